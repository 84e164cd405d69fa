"""A celery worker, which starts processes of its own. Its broker is a folder."""
import os
import subprocess

from stand import GUARD, ProgramCase, descendants, needs_module, wait_ended


class Celery(ProgramCase):
    """The default pool: processes."""

    def launch_it(self):
        self.celery = needs_module("celery")
        (self.folder / "queue").mkdir()
        (self.folder / "control").mkdir()
        command = [*self.celery, "-A", "tasks", "worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        return self.launch(command=command, listen=[]).ready()

    def send(self, name):
        """Put a task into the queue."""
        command = [*self.celery, "-A", "tasks", "call", "tasks.held", "--args", f'["{name}"]']
        env = {**os.environ, **self.app["env"]}
        subprocess.run(command, env=env, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=GUARD)

    def test_a_task_in_flight_ends_over_a_reload_and_over_a_stop(self):
        server = self.launch_it()
        self.send("a")
        self.event("held a")
        self.configure(server, env={"VERSION": "v2"})
        server.reload()
        server.wait_log("Warm shutdown")
        self.open_gate()
        self.event("done a v1")
        self.wait_left(server)
        self.send("b")
        self.event("held b")
        self.stop(server)
        self.open_gate()
        self.event("done b v2")
        self.finish(server)

    def test_nothing_is_left_when_the_master_is_killed(self):
        server = self.launch_it()
        self.send("a")
        self.event("held a")
        family = descendants(server.process.pid)
        self.assertGreaterEqual(len(family), 3, "the worker and its processes")
        server.process.kill()
        self.open_gate()
        self.event("done a v1")
        for pid in family:
            wait_ended(pid)
        self.assert_nothing_left(server)
