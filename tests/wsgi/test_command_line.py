"""An application that the command line names, without a configuration file."""
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from test_life import GUARD
from harness import PREFORKD  # noqa: E402 (test_life has found the folder)
from service import Service  # noqa: E402

APPLICATION = "def {name}(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{answer}']\n"


class CommandLine(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="preforkd-line-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, answer):
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)
        (self.folder / "site_of_test.py").write_text(APPLICATION.format(name=name, answer=answer))

    def serve(self, *words, **env):
        """A master with these words, in the folder of the application."""
        env = {"PYTHONDONTWRITEBYTECODE": "1", "PWD": str(self.folder), **env}
        server = Service([PREFORKD, *words], env=env, cwd=self.folder)
        self.addCleanup(server.close)
        server.wait_notify("READY=1")
        return server

    def ask(self, server):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        connection.request("GET", "/")
        return connection.getresponse().read().decode()

    def command(self, *words):
        env = {**os.environ, "PWD": str(self.folder)}
        return subprocess.run([PREFORKD, *words], cwd=self.folder, env=env, capture_output=True, text=True, timeout=GUARD)

    def test_an_application_is_served_and_reloaded_and_commands_find_it_by_its_folder(self):
        self.write("app", "one")
        server = self.serve("site_of_test:app", "-b", "fd:web", "-w", "2", "--python", sys.executable, "--timeout", "20")
        self.assertEqual(self.ask(server), "one")
        self.write("app", "two")
        reloaded = self.command("reload")
        self.assertEqual((reloaded.returncode, self.ask(server)), (0, "two"), reloaded.stderr)
        status = self.command("status")
        self.assertIn("web: 2/2 ready", status.stdout)
        (self.folder / "site_of_test.py").write_text("")
        refused = self.command("reload")
        self.assertEqual((refused.returncode, self.ask(server)), (1, "two"))
        self.assertIn("has no attribute app", refused.stderr)
        stopped = self.command("stop")
        self.assertEqual((stopped.returncode, server.stop()), (0, 0), stopped.stderr)

    def test_a_module_alone_has_application_or_app(self):
        package = self.folder / "package"
        package.mkdir()
        for name in ("application", "app"):
            with self.subTest(name=name):
                (package / "wsgi.py").write_text(APPLICATION.format(name=name, answer=name))
                server = self.serve("package.wsgi", "--bind", "fd:web", "--python", sys.executable)
                self.assertEqual(self.ask(server), name)
                self.assertEqual(server.stop(), 0)

    def test_what_is_printed_as_a_configuration_does_the_same(self):
        self.write("app", "the same")
        words = ("site_of_test:app", "-b", "fd:web", "-w", "2", "--python", sys.executable, "-e", "A=$B", "--access-logfile", "-")
        printed = self.command("--print-config", *words)
        self.assertEqual(printed.returncode, 0, printed.stderr)
        (self.folder / "app.toml").write_text(printed.stdout)
        server = self.serve()
        server.wait_log("no configuration is named: taking app.toml of this folder")
        self.assertEqual(self.ask(server), "the same")
        server.wait_log('"GET / HTTP/1.1" 200')
        self.assertIn("web: 2/2 ready", self.command("status").stdout)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
