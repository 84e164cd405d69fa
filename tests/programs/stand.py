"""Real programs under preforkd: a test starts one, asks it, reloads it and stops it.

    python3 -m unittest discover -s tests/programs

A test whose program is not installed is skipped and says so.
"""
import ctypes
import glob
import importlib.util
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Behind our own folder: both have tests of streams.
sys.path.append(str(HERE.parent / "django"))
from harness import Preforkd  # noqa: E402
from service import GUARD, descendants, is_running  # noqa: E402
from strict import Connection, Loss  # noqa: E402

# What the server leaves behind becomes a child of the test (PR_SET_CHILD_SUBREAPER), wherever it has hidden.
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def needs(name):
    """The path of a server, which may have its version behind its name; the test is left out if it is not installed."""
    for folder in [*os.environ.get("PATH", "").split(":"), "/usr/local/sbin", "/usr/sbin"]:
        if found := sorted(glob.glob(f"{glob.escape(folder)}/{name}*[0-9]") + glob.glob(f"{glob.escape(folder)}/{name}")):
            return found[-1]
    raise unittest.SkipTest(f"left out: no {name} here (.ci/run installs it)")


def needs_module(name):
    """A Python program, run as a module; the test is left out if it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise unittest.SkipTest(f"left out: no {name} for {sys.executable} (pip install -r tests/requirements.txt)")
    return [sys.executable, "-m", name]


def get(port, target="/"):
    """The body of an answer, on a connection of its own."""
    with Connection(port) as connection:
        answer = connection.request(target, close=True)
    if answer.status != 200:
        raise Loss(f"status {answer.status}")
    return answer.body.decode()


def free_port():
    """A port that nobody has, for a program that does not take over a socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Behind(Preforkd):
    """preforkd with a site at the test's port, and what answers there; `site` has the keys of the site."""

    site = 'app = "demo"'

    def configure(self, **app):
        if not app.get("listen"):
            app.pop("listen", None)
        super().configure(**app)
        self.config.write_text(f'{self.config.read_text()}[site.demo]\nlisten = "fd:web"\n{self.site}\n[front]\nworkers = 1\n')


class ProgramCase(unittest.TestCase):
    """A folder for one test, in which the program runs."""

    kind = Preforkd

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="preforkd-programs-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.events.close)
        self.events.bind(f"{self.folder}/events")
        self.events.settimeout(GUARD)
        os.mkfifo(self.folder / "gate")
        # Open for both: nobody waits for the other end.
        self.gate = os.open(self.folder / "gate", os.O_RDWR | os.O_CLOEXEC)
        self.addCleanup(os.close, self.gate)

    def launch(self, kind=None, **app):
        """preforkd with this app; not waited for. `kind` writes its configuration."""
        self.app = {"listen": ["fd:web"], **app}
        env = {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.folder), "VERSION": "v1"}
        self.app["env"] = {**env, **app.get("env", {})}
        server = (kind or self.kind)(self.folder, **self.app)
        self.addCleanup(server.close)
        return server

    def configure(self, server, **changes):
        """Another app.toml for the next reload."""
        env = {**self.app["env"], **changes.pop("env", {})}
        self.app = {**self.app, **changes, "env": env}
        server.configure(**self.app)

    def renew(self, server):
        """Reload, and wait until the old workers have ended."""
        server.reload()
        self.wait_left(server)

    def wait_left(self, server):
        """Wait until the workers have ended that were told to."""
        while "leaving" in server.heard[-1][-1]:
            server.wait_notify()

    def event(self, text):
        """Wait until a program tells this."""
        self.assertEqual(self.events.recv(4096).decode(), text)

    def open_gate(self, number=1):
        """Let so many go on that wait there."""
        os.write(self.gate, b"x" * number)

    def stop(self, server):
        """Tell it to stop, and wait until it has heard that."""
        server.send(signal.SIGTERM)
        server.wait_notify("STOPPING=1")

    def assert_nothing_left(self, server):
        """The master has ended, and so has all that it and its programs have started."""
        self.assertEqual(descendants(os.getpid()), [], server.report())

    def finish(self, server, *warnings, perhaps=()):
        """Stop, or wait if it was told so: nothing may be left, and only these warnings in the log, each of the first ones."""
        if any("STOPPING=1" in lines for lines in server.heard):
            server.process.wait(GUARD)  # a second order would be to stop at once
        server.finish()
        self.assert_nothing_left(server)
        socket.create_server(("127.0.0.1", server.port)).close()
        self.assertRegex(server.log[-1], r"INFO +stopped$")
        if "fd:web" not in self.app["listen"] and not isinstance(server, Behind):
            warnings += ("no app uses the inherited socket web",)
        if isinstance(server, Behind):
            # As root, and of what a client has written that only a proxy may write.
            perhaps = (*perhaps, "app=front its workers run as root", "removed the field X-Forwarded-For")
        said = [line for line in server.log if re.search(r"Z WARN ", line)]
        for pattern in warnings:
            self.assertRegex("\n".join(said), pattern)
        self.assertEqual([line for line in said if not any(re.search(known, line) for known in (*warnings, *perhaps))], [])


class Asking:
    """Clients that ask all the time, each request on a connection of its own; every answer counts."""

    def __init__(self, ask, clients=2):
        self.ask = ask
        self.answers = []
        self.losses = []
        self.stopping = False
        self.more = threading.Condition()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def _run(self):
        while not self.stopping:
            try:
                answer, loss = self.ask(), None
            except (Loss, OSError, ValueError) as error:
                answer, loss = None, error
            with self.more:
                (self.losses if loss else self.answers).append(loss or answer)
                self.more.notify_all()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.wait_for(10)
        return self

    def wait_for(self, number):
        """Wait for so many more answers or losses."""
        with self.more:
            wanted = len(self.answers) + len(self.losses) + number
            if not self.more.wait_for(lambda: len(self.answers) + len(self.losses) >= wanted, GUARD):
                raise AssertionError(f"{len(self.answers)} answers, {len(self.losses)} losses, and no more")

    def __exit__(self, *_):
        self.stopping = True
        for thread in self.threads:
            thread.join(GUARD)


def wait_ended(pid):
    """Wait until a process has ended, whoever's child it is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([handle], [], [], GUARD)[0] and is_running(pid):
            raise AssertionError(f"pid {pid} is still there")
    finally:
        os.close(handle)
