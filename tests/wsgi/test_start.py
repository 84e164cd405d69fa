"""Messages of a start, a reload and a check that fail, or that are probably a mistake, through the real master.

Which object is an application is tested beside the source of the worker; here is what reaches the operator.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from test_life import Life, both_kinds
from harness import PREFORKD, toml  # noqa: E402 (test_life has found the folder)
from service import GUARD  # noqa: E402

PLAIN = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{}']\n"
ASGI = "async def application(scope, receive, send):\n    pass\n"

# What an application's file is, how it is named, and what the reason of the failed start must say.
FAILURES = (
    (ASGI, "site_of_test:application", ("site_of_test:application is an ASGI application", 'command = ["uvicorn"')),
    ("class application:\n    pass\n", "site_of_test:application", ("is a class", '"site_of_test:application()"')),
    ("def application(request):\n    pass\n", "site_of_test:application", ("(request)", "(environ, start_response)")),
    (PLAIN, "site_of_test:aplication", ('has no attribute aplication (did you mean "site_of_test:application"?)',)),
    (PLAIN, "site_of_tests:application", ("there is no module site_of_tests", "chdir")),
    ("def create_app():\n    pass\n", "site_of_test:create_app()", ("returns is of type NoneType", "return application")),
    ("def create_app(config=None, debug=False):\n    pass\n", "site_of_test:create_app", ('write "site_of_test:create_app()"',)),
    ("import sys\nsys.exit('no settings')\n", "site_of_test:application", ("calls sys.exit('no settings')",)),
    ("def application(\n", "site_of_test:application", ("SyntaxError", "site_of_test.py")),
    ("import os\nos.kill(os.getpid(), 11)\n", "site_of_test:application", ("SIGSEGV", "site_of_test.py", "line 2")),
    ("import os\nos._exit(0)\n", "site_of_test:application", ("exited with status 0, before",)),
)


class Messages(Life):
    def write(self, text):
        file = self.folder / "site_of_test.py"
        # A file of another size and time, whatever the clock's steps are.
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)
        file.write_text(text)

    @both_kinds
    def test_the_reason_of_a_failed_start_says_what_is_wrong_and_what_to_write(self, preload):
        for text, application, words in FAILURES:
            with self.subTest(application=application, text=text):
                self.write(text)
                server = self.launch(preload=preload, wsgi=application, chdir=str(self.folder))
                with self.assertRaisesRegex(AssertionError, "^ended .*exit status 1\n"):
                    server.ready()
                [reason] = [line for line in server.log if "cannot start: " in line]
                for word in words:
                    self.assertIn(word, reason)
                self.assertNotIn("INFO ", reason)

    def test_a_program_that_is_no_interpreter_is_named(self):
        server = self.launch(python="/bin/true")
        with self.assertRaisesRegex(AssertionError, "^ended .*exit status 1\n"):
            server.ready()
        [reason] = [line for line in server.log if "cannot start: " in line]
        self.assertIn("exited with status 0, before it was ready", reason)
        self.assertIn("(it wrote no error; check that /bin/true is a Python interpreter, and", reason)

    @both_kinds
    def test_under_the_journal_each_line_of_a_failed_start_has_its_priority(self, preload):
        self.write("import logging\nlogging.error('no settings')\nraise ValueError('in a pickle')\n")
        config = self.folder / "app.toml"
        app = {"wsgi": "site_of_test:application", "chdir": str(self.folder), "python": sys.executable, "listen": ["unix:web.sock"], "preload": preload}
        config.write_text("[app.web]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in app.items()))
        with tempfile.TemporaryFile() as journal:
            status = os.fstat(journal.fileno())
            environ = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            command = [PREFORKD, "-c", str(config)]
            done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=journal, stderr=journal, timeout=GUARD)
            self.assertEqual(done.returncode, 1)
            journal.seek(0)
            lines = journal.read().decode().splitlines()
        for line in lines:
            self.assertRegex(line, "^<[0-7]>")
            self.assertNotRegex(line, "T[0-9:.]{8,}Z (INFO|ERROR)")
        for word in ("no settings", "Traceback", "ValueError: in a pickle"):
            self.assertTrue([line for line in lines if line.startswith("<3>") and word in line], lines)
        [reason] = [line for line in lines if "cannot start: " in line]
        self.assertNotIn("<3>", reason[3:])

    @both_kinds
    def test_a_reload_to_what_is_no_application_is_rolled_back(self, preload):
        self.write(PLAIN)
        server = self.launch(preload=preload, wsgi="site_of_test:application", chdir=str(self.folder)).ready()
        server.expect(".")
        for text, word in ((ASGI, "is an ASGI application"), ("class application:\n    pass\n", "is a class"), ("app = None\n", "has no attribute application")):
            self.write(text)
            status = server.reload()["STATUS"]
            self.assertIn("keeping generation 1", status)
            server.wait_log("reload failed: .*" + word)
            self.assertEqual(self.ask(server), {})
        server.finish()

    @both_kinds
    def test_interpreter_and_environment_are_named_once_for_a_generation(self, preload):
        server = self.launch(preload=preload, workers=3).ready()
        server.reload()
        named = [line for line in server.log if "Python %d.%d" % sys.version_info[:2] in line]
        self.assertEqual(len(named), 2, named)
        for generation, line in enumerate(named, 1):
            self.assertIn("gen=%d " % generation, line)
            self.assertIn(sys.executable, line)
        server.finish()

    def check(self, **app):
        """The end and the words of `preforkd -t`."""
        options = {"wsgi": "apps:facts", "chdir": str(self.folder), "python": sys.executable, "listen": ["127.0.0.1:8000"], **app}
        config = Path(self.folder) / "check.toml"
        config.write_text("[app.demo]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in options.items()))
        done = subprocess.run([PREFORKD, "-t", "-c", config], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_a_check_says_what_would_run(self):
        status, said = self.check(workers=2, threads=3)
        self.assertEqual(status, 0, said)
        self.assertIn("app=demo runs apps:facts in 2 workers with 3 threads each, listening on 127.0.0.1:8000\n", said)
        version = "Python %d.%d.%d" % sys.version_info[:3]
        self.assertIn(f"app=demo {version}, {sys.executable}; it is that of the key `python`\n", said)
        self.assertRegex(said, r"extension module \S+/libpreforkd_python.so\nconfiguration OK\n$")

    def test_a_check_refuses_an_interpreter_that_is_too_old(self):
        versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
        for program in versions.glob("3.[0-9].*/bin/python"):
            break
        else:
            self.skipTest("left out: there is no Python older than 3.10 here")
        status, said = self.check(python=str(program))
        self.assertEqual(status, 2, said)
        self.assertRegex(said, r"preforkd: app=demo python: .* is Python 3\.\d\.\d+, and preforkd needs CPython 3\.10 or later")
        self.assertNotIn("configuration OK", said)

    def test_a_check_warns_of_a_folder_for_temporary_files_that_cannot_be_used(self):
        status, said = self.check()
        self.assertEqual(status, 0, said)
        self.assertNotIn("warning", said)
        status, said = self.check(env={"TMPDIR": "/no/such/folder"})
        self.assertEqual(status, 0)
        self.assertIn("preforkd: warning: app=demo", said)
        self.assertIn("/no/such/folder: No such file or directory", said)

    @unittest.skipIf(os.getuid(), "only root can run workers as another user")
    def test_a_folder_for_temporary_files_is_looked_at_as_the_user_of_the_app(self):
        with tempfile.TemporaryDirectory(prefix="preforkd-wsgi-") as folder:
            os.chmod(folder, 0o755)
            status, said = self.check(env={"TMPDIR": folder}, user="nobody")
            self.assertEqual(status, 0)
            self.assertIn(f"user nobody cannot write to the folder for temporary files, {folder}: Permission denied", said)
            os.chmod(folder, 0o1777)
            status, said = self.check(env={"TMPDIR": folder}, user="nobody")
            self.assertEqual(status, 0, said)
            self.assertNotIn("folder for temporary files", said)

    @unittest.skipIf(os.getuid(), "only root can run workers as another user")
    def test_an_interpreter_that_the_user_cannot_execute_is_named_with_the_user(self):
        with tempfile.TemporaryDirectory(prefix="preforkd-wsgi-") as folder:
            os.mkdir(f"{folder}/closed")
            program = shutil.copy(os.path.realpath(sys.executable), f"{folder}/closed/python3")
            os.chmod(f"{folder}/closed", 0o700)
            os.chmod(folder, 0o755)
            server = self.launch(python=program, user="nobody", chdir=folder)
            with self.assertRaisesRegex(AssertionError, "^ended .*exit status 1\n"):
                server.ready()
            [reason] = [line for line in server.log if "cannot start: " in line]
            self.assertIn(f"cannot execute {program} as user nobody (", reason)
            self.assertIn("the user needs permission to execute it", reason)
