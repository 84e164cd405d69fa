"""What an application writes into its scoreboard is data: it harms neither other apps nor the master.

    python3 -m unittest discover -s tests/wsgi
"""
import errno
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "django"))
from harness import PREFORKD, toml  # noqa: E402
from service import GUARD, Service  # noqa: E402


class Forged(unittest.TestCase):
    """Two apps of one master."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="preforkd-wsgi-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.config = self.folder / "app.toml"
        text = "[master]\ncontrol = \"control.sock\"\n"
        for name, listener in (("forger", "fd:web"), ("other", "unix:other.sock")):
            app = {"wsgi": "forger:application", "chdir": str(HERE), "python": sys.executable, "listen": [listener], "workers": 1,
                   "env": {"PYTHONDONTWRITEBYTECODE": "1"}}
            text += f"[app.{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in app.items())
        self.config.write_text(text)
        self.server = Service([PREFORKD, "-c", self.config])
        self.addCleanup(self.server.close)
        self.server.wait_notify("READY=1")

    def ask(self, app, query=""):
        """What the application answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        if app == "other":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(GUARD)
            connection.sock.connect(str(self.folder / "other.sock"))
        connection.request("GET", "/?" + query)
        return json.loads(connection.getresponse().read())

    def workers(self):
        """The worker of each app, as `preforkd status` has it."""
        command = [PREFORKD, "-c", self.config, "status", "--json"]
        status = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=GUARD).stdout)
        return {app["name"]: app["workers"][0] for app in status["apps"]}

    def forged(self, since):
        """The worker of the forger, after it has written that its oldest request began then."""
        self.ask("forger", str(since))
        while True:
            worker = self.workers()["forger"]
            if worker["busy"] is not None and worker["request"].startswith("?[2J"):
                return worker

    def test_an_app_has_a_scoreboard_of_its_own_that_it_cannot_cut_off(self):
        forger, other = self.ask("forger"), self.ask("other")
        self.assertEqual(forger["names"], ["/memfd:preforkd scoreboard forger (deleted)"])
        self.assertEqual(other["names"], ["/memfd:preforkd scoreboard other (deleted)"])
        self.assertNotEqual(forger["inodes"], other["inodes"])
        self.assertEqual(forger["refused"], [errno.EPERM] * 4)

    def test_what_a_worker_notes_is_bounded_where_it_is_read(self):
        for since in (2**64 - 1, 1):
            worker = self.forged(since)
            self.assertEqual(worker["request"].rstrip("?"), "?[2J?ERROR app=other is lost")
            self.assertEqual(len(worker["request"]), 160)
            self.assertEqual((worker["requests"], worker["connections"]), (2**48, 1_000_000))
            if since == 1:
                # Not since the machine was started.
                self.assertLess(worker["busy"], worker["age"] + 1)
            else:
                self.assertEqual(worker["busy"], 0)
        other = self.workers()["other"]
        self.assertEqual((other["requests"], other["errors"]), (0, 0))
        self.assertEqual(self.server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
