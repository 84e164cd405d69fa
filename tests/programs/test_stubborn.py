"""Programs that take some care: wrappers, programs that go into the background, and one that ignores SIGTERM."""
import re
import sys
import textwrap
import time

from stand import GUARD, Connection, ProgramCase, descendants, get, needs_module

SERVER = f"{sys.executable} -m site_code"


class Wrapper(ProgramCase):
    """A shell that waits for a server. It has more than one command, or the shell would become the server."""

    def launch_it(self, **more):
        server = self.launch(command=["sh", "-c", f"{SERVER}; exit 1"], ready="exec", **more).ready()
        self.event("serves")
        self.assertRegex(get(server.port), "^v1 ")
        return server

    def hold_over(self, server, version, order):
        """A request in flight is answered, whoever is told to end."""
        with Connection(server.port) as held:
            held.socket.sendall(b"GET /held HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            self.event("held request")
            order()
            self.open_gate()
            self.assertRegex(held.read_answer().body.decode(), f"^{version} ")

    def reload_and_stop(self, server):
        self.configure(server, env={"VERSION": "v2"})

        def reload():
            server.reload()
            # The new one starts, the old one is told to end: in any order.
            self.assertEqual({self.events.recv(4096).decode() for _ in range(2)}, {"serves", "term"})

        def stop():
            self.stop(server)
            self.event("term")

        self.hold_over(server, "v1", reload)
        server.wait_log("gen=1 .*ended|gen=1 .*killed by SIGTERM")
        self.hold_over(server, "v2", stop)

    def test_the_server_below_it_is_told_when_the_shell_has_ended(self):
        server = self.launch_it()
        self.reload_and_stop(server)
        self.finish(server, "gen=1 .*: left a process that it had started; sending SIGTERM", "gen=2 .*: left a process")

    def test_with_stop_group_the_server_is_told_at_once(self):
        server = self.launch_it(stop_group=True)
        self.reload_and_stop(server)
        for generation in (1, 2):
            server.wait_log(rf"gen={generation} .*: waiting for a process that it had started \(the process group has got SIGTERM\)")
        self.finish(server)

    def test_a_shell_that_becomes_the_server_needs_nothing(self):
        server = self.launch(command=["sh", "-c", f"exec {SERVER}"], ready="exec").ready()
        self.event("serves")
        self.reload_and_stop(server)
        self.finish(server)


class Background(ProgramCase):
    """Programs that put themselves into the background."""

    def assert_refused(self, **app):
        server = self.launch(ready="30s", graceful_timeout="500ms", **app)
        server.expect("puts itself into the background")
        server.wait_log(r"ERROR cannot start: .*it puts itself into the background \(start it in the foreground")
        self.assertEqual(server.process.wait(GUARD), 1)
        self.assert_nothing_left(server)
        started = [line for line in server.log if re.search(r"worker=\d+ gen=1 pid=", line)]
        self.assertEqual(len({re.search(r"pid=(\d+)", line)[1] for line in started}), 1, "it was started once")

    def test_one_that_forks_twice_as_the_books_say(self):
        (self.folder / "daemon.py").write_text(textwrap.dedent("""
            import os, signal
            if os.fork():
                os._exit(0)
            os.setsid()
            if os.fork():
                os._exit(0)
            os.chdir("/")
            signal.pause()
        """))
        self.assert_refused(command=[sys.executable, "daemon.py"])

    def test_gunicorn(self):
        self.assert_refused(command=[*needs_module("gunicorn"), "--daemon", "--bind", "unix:own.sock", "site_code:application"])


class Deaf(ProgramCase):
    """A program that ignores SIGTERM, as an interactive shell does, and so does the program that it has started."""

    def test_all_of_it_is_killed_when_its_time_is_over(self):
        (self.folder / "deaf.py").write_text(textwrap.dedent("""
            import signal, subprocess, sys, site_code
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if len(sys.argv) == 1:
                sys.exit(subprocess.run([sys.executable, "deaf.py", "below"]).returncode)
            site_code.tell("deaf")
            while True:
                signal.pause()
        """))
        server = self.launch(command=[sys.executable, "deaf.py"], listen=[], ready="exec", graceful_timeout="300ms")
        server.ready()
        self.event("deaf")
        self.assertGreaterEqual(len(descendants(server.process.pid)), 2)
        begin = time.monotonic()
        after = r"sending SIGKILL \(still running after graceful_timeout\)"
        self.finish(server, after, "killed by SIGKILL after our SIGKILL", perhaps=["left a process .*; sending SIGKILL"])
        self.assertGreaterEqual(time.monotonic() - begin, 0.3)
