"""Functions of the application that are called at the turns of a worker's life."""

import os
import tempfile

from case import Case


class Hooks(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-")
        self.addCleanup(folder.cleanup)
        self.events = os.path.join(folder.name, "events")

    def env(self, **more):
        return {"EVENTS": self.events, "SEEN": self.events, **more}

    def noted(self):
        with open(self.events) as events:
            return [line.split() for line in events]

    def test_a_worker_calls_its_hooks_when_it_starts_and_stops(self):
        for threads in (1, 2):
            worker = self.worker("hooked:application", hooks="hooked", threads=threads, env=self.env())
            self.once(worker, "/")
            self.assertEqual(self.noted(), [["worker_start", str(worker.pid), "3"]])
            self.assertStops(worker)
            self.assertEqual(self.noted()[1:], [["worker_stop", str(worker.pid), "3"]])
            self.assertNotIn("Traceback", worker.read_log())
            os.unlink(self.events)

    def test_hooks_around_a_fork(self):
        worker, second = self.pair("hooked:application", hooks="hooked", env=self.env())
        template, one, two = str(worker.process.pid), str(worker.pid), str(second)
        self.assertEqual(self.noted(), [
            ["before_fork", template, "-"],
            ["after_fork", one, "3"], ["worker_start", one, "3"],
            ["after_fork", two, "4"], ["worker_start", two, "4"],
        ])

    def test_a_hook_that_fails_fails_the_start(self):
        for name, preload in (("worker_start", False), ("before_fork", True)):
            log = self.failed_start("hooked:application", hooks="hooked", preload=preload, env=self.env(FAILS=name))
            self.assertIn("LookupError: a hook that fails", log)

    def test_a_last_hook_that_fails_is_shown_and_changes_nothing(self):
        worker = self.worker("hooked:application", hooks="hooked", env=self.env(FAILS="worker_stop"))
        self.assertStops(worker)
        self.assertIn("LookupError: a hook that fails", worker.read_log())

    def test_a_module_need_not_have_all_of_them(self):
        worker = self.worker(hooks="hooked_partly")
        self.assertStops(worker)
        self.assertIn("started", worker.read_log())
        self.assertNotIn("never called", worker.read_log())

    def test_hooks_of_forks_without_a_fork_are_warned_of(self):
        worker = self.worker("hooked:application", hooks="hooked", env=self.env())
        for name in ("before_fork", "after_fork"):
            self.assertIn(f"hooks: hooked.{name} is never called", worker.read_log())

    def test_what_is_no_module_of_hooks_does_not_start(self):
        for module, complaint in (
            ("apps", "has none of the functions before_fork"), ("kinds_of_hooks", "there is no module"),
            ("hooked_wrongly", "hooks: hooked_wrongly.worker_start is asynchronous"),
            ("hooked_with_arguments", "hooks: hooked_with_arguments.worker_start(worker) is called without arguments"),
        ):
            for preload in (False, True):
                self.assertIn(complaint, self.failed_start(hooks=module, preload=preload))
