"""The tour that scripts/demo prints: each of its commands does what the tour says, on a copy of the site."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import PREFORKD, PYTHON, ROOT, SITE, Preforkd, data, environ
from strict import Connection


class Site(Preforkd):
    """The copy, served as conf/demo/app.toml does it."""

    def configure(self, **_):
        text = (SITE / "app.toml").read_text()
        for theirs, ours in (
            ("127.0.0.1:8000", "fd:web"),
            ("../../target/demo/venv/bin/python", PYTHON),
            ("../../target/demo", str(data())),
        ):
            assert theirs in text, theirs
            text = text.replace(theirs, ours)
        self.config.write_text(text)


class Tour(unittest.TestCase):
    def setUp(self):
        self.printed = subprocess.run([ROOT / "scripts" / "demo", "--tour"], check=True, capture_output=True, text=True).stdout
        # `$ cd FOLDER`, `$ PATH=…`, and the commands of the steps.
        self.here, self.path, *self.commands = re.findall(r"^  \$ (.*)$", self.printed, re.MULTILINE)
        folder = tempfile.TemporaryDirectory(prefix="preforkd-tour-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "demo"
        shutil.copytree(SITE, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.server = Site(self.folder).ready()
        self.addCleanup(self.server.close)

    def follow(self, start):
        """Types the next command, which begins like this; its exit status and what it prints."""
        command = self.commands.pop(0)
        self.assertTrue(command.startswith(start), command)
        env = {**environ(data()), "PATH": f"{os.path.dirname(PREFORKD)}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    def assertServed(self):
        with Connection(self.server.port) as connection:
            self.assertEqual(connection.request("/admin/login/").status, 200)
            self.assertEqual(connection.request("/static/admin/css/base.css").status, 200)

    def test_it_can_be_followed(self):
        self.assertEqual(self.here, f"cd {ROOT}/conf/demo")
        self.assertEqual(self.path, f"PATH={ROOT}/target/release:$PATH")
        self.assertEqual(re.findall(r"^  (\d)\.", self.printed, re.MULTILINE), ["1", "2", "3", "4", "5"])
        self.assertServed()

        self.assertEqual(self.follow("echo"), (0, ""))
        status, said = self.follow("preforkd reload")
        self.assertEqual(status, 1, said)
        self.assertIn("no_such_module", said)
        self.assertServed()
        self.assertEqual(self.follow("sed"), (0, ""))
        status, said = self.follow("preforkd reload")
        self.assertEqual(status, 0, said)
        self.assertIn("demo 2/2 ready", said)
        self.assertServed()

        start = len(self.server.log)
        self.assertEqual(self.follow("kill"), (0, ""))
        self.server.wait_log("app=demo worker=0 .*killed by SIGKILL, not by preforkd", start)
        self.server.wait_log("app=demo worker=0 .*: ready after", start)
        self.assertServed()

        status, said = self.follow("preforkd status")
        self.assertEqual(status, 0, said)
        self.assertIn("demo", said)
        status, said = self.follow("preforkd stop")
        self.assertEqual((status, said, self.commands), (0, "stopped\n", []))
        self.assertEqual(self.server.process.wait(self.server.guard), 0)
        self.assertEqual((self.folder / "mysite" / "wsgi.py").read_text(), (SITE / "mysite" / "wsgi.py").read_text())


if __name__ == "__main__":
    unittest.main()
