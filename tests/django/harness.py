"""The demo site under the real master, on a fresh database, for the tests of this folder.

    python3 -m unittest discover -s tests/django

PREFORKD names the binary (target/release/preforkd otherwise), DEMO_PYTHON a Python that has Django
(the one that `scripts/demo --prepare` makes otherwise).
"""
import atexit
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from service import Service

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SITE = ROOT / "conf" / "demo"
PREFORKD = os.path.abspath(os.environ.get("PREFORKD", ROOT / "target/release/preforkd"))
# abspath, not resolve: a virtual environment's python is a link, and is one only by its own name.
PYTHON = os.path.abspath(os.environ.get("DEMO_PYTHON", ROOT / "target/demo/venv/bin/python"))

MISTAKE = re.compile(r"\bERROR\b|^Traceback|panicked at|garbage collected without being closed|never retrieved")


@functools.cache
def data() -> Path:
    """Database, static files and user of this run: prepared once, by the site's own command."""
    folder = Path(tempfile.mkdtemp(prefix="preforkd-django-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [PYTHON, SITE / "manage.py", "prepare"]
    done = subprocess.run(command, env=environ(folder), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"cannot prepare the demo site:\n{done.stdout}{done.stderr}")
    return folder


def environ(folder):
    """What the site needs to know, here and in its workers."""
    return {
        **os.environ,
        "DEMO_DATA": str(folder),
        "DJANGO_SETTINGS_MODULE": "e2e.settings",
        "PYTHONPATH": str(HERE / "extra"),
        "PYTHONPYCACHEPREFIX": str(ROOT / "target" / "pycache"),
        "E2E_GATE": str(folder / "gate"),
    }


class Preforkd(Service):
    """preforkd with one application, configured in `folder`."""

    def __init__(self, folder, **app):
        self.config = Path(folder) / "app.toml"
        self.configure(**app)
        self.expected = []
        super().__init__([PREFORKD, "-c", self.config])

    def configure(self, **app):
        """Write another app.toml; it counts from the next reload on."""
        self.config.write_text("[app.demo]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in app.items()))

    def ready(self):
        """Wait until it serves; or clean up."""
        try:
            self.wait_notify("READY=1")
        except BaseException:
            self.close()
            raise
        return self

    def expect(self, pattern):
        """Let error lines pass that `pattern` is found in."""
        self.expected.append(pattern)

    def reload(self):
        """HUP, and wait until the master says that it is done."""
        self.send(signal.SIGHUP)
        said = self.wait_notify("RELOADING=1")
        assert int(said["MONOTONIC_USEC"]) > 0, said
        return self.wait_notify("READY=1")

    def finish(self):
        """Stop gracefully; the exit status must be 0, and the log without mistakes."""
        try:
            status = self.stop()
            lines = [line for line in self.log if MISTAKE.search(line)]
            unexpected = [line for line in lines if not any(re.search(wanted, line) for wanted in self.expected)]
            if status or unexpected:
                raise AssertionError(f"exit status {status}, mistakes in the log: {unexpected}\n{self.report()}")
        finally:
            self.close()


class Sited(Preforkd):
    """The same, where only a site reaches the application; `route` is what else its route says."""

    route = ""

    def configure(self, **app):
        app.pop("listen", None)
        super().configure(**app)
        site = f'[site.all]\nlisten = "fd:web"\nroutes = [{{ path = "/", app = "demo"{self.route} }}]\n'
        # A test may take its time between two requests, however busy the machine is.
        front = '[front]\nworkers = 1\nheader_timeout = "5m"\nkeepalive_timeout = "5m"\n'
        self.config.write_text(self.config.read_text() + site + front)


def site(kind=Preforkd, **options):
    """The demo site, served as conf/demo/app.toml does it but for `options`."""
    folder = data()
    gate = folder / "gate"
    if not gate.exists():
        os.mkfifo(gate)
    ours = {key: value for key, value in environ(folder).items() if os.environ.get(key) != value}
    app = {
        "wsgi": "mysite.wsgi:application", "chdir": str(SITE), "python": PYTHON, "listen": ["fd:web"], "workers": 2,
        "preload": True, "static": {"/static/": str(folder / "static")}, "env": ours,
    }
    return kind(folder, **{**app, **options}).ready()


class SiteCase(unittest.TestCase):
    """Tests that share one running site; a failed one shows what the site said."""

    options = {}

    @classmethod
    def setUpClass(cls):
        cls.site = site(**cls.options)

    @classmethod
    def tearDownClass(cls):
        cls.site.finish()

    def run(self, result=None):
        """As ever, but with the log when it went wrong."""
        before = len(result.failures) + len(result.errors)
        start = len(self.site.log)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(f"\nlog during {self.id()}:", *self.site.log[start:], sep="\n  ", file=sys.stderr)


def toml(value):
    """A value as TOML; JSON's strings, numbers and booleans are TOML too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
