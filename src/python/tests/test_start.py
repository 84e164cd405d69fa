"""What a start says, and what does not start."""

import ast
import os
import subprocess
import tempfile

from case import Case
from client import Client
from manager import BOOTSTRAP
from test_wsgi import OPTIONS

APPLICATIONS = (
    "plain", "instance", "method", "Response", "wrapped", "starred", "partial", "nested.application", "defaults",
    "factory()", "named('production', debug=True)", 'named ( name = "production", debug = True )', "open_to_all()", "open_to_all({'a': [1, (2,)]}, None)",
    "strict('x', secret=b'y')", "nested.factory()", "Callable()", "factory( )", "Given", "Metered", "short", "static", "of_class",
    "lent", "rough", "positional",
)

# What is no application, with words of the message.
OTHERS = {
    "scoped": ("ASGI", "uvicorn"),
    "other": ("ASGI",),
    "old_asgi": ("ASGI",),
    "synchronous_asgi": ("ASGI",),
    "stream": ("ASGI",),
    "async_instance": ("ASGI",),
    "AsyncCallable": ("ASGI",),
    "AsyncCallable()": ("ASGI",),
    "async_factory()": ("coroutine",),
    "with_name": ("(name)", '"kinds:with_name(…)"'),
    "seven": ("what kinds:seven returns is of type int",),
    "async_factory": ("ASGI",),
    "Callable": ("class", '"kinds:Callable()"'),
    "NoResponse": ("class",),
    "wants_request": ("(request)", "environ"),
    "nested.bound": ("(start_response)",),
    "number": ("int", "not callable"),
    "stranger": ("Stranger", "not callable"),
    "three": ("(environ, start_response, more)",),
    "keyword_only": ("(environ, start_response, *, more)",),
    "open_to_all": ("(config=None, debug=False)", 'write "kinds:open_to_all()"'),
    "gives_a_factory()": ("(config=None, debug=False)", "return what it makes"),
    "nothing()": ("what kinds:nothing() returns is of type NoneType", "return application"),
    "gone": ("the module kinds has no attribute gone", "what it has: "),
    "plan": ("has no attribute plan", 'did you mean "kinds:plain"?'),
    "factori": ("has no attribute factori", 'did you mean "kinds:factory()"?'),
    "nested.aplication": ("kinds:nested has no attribute aplication", 'did you mean "kinds:nested.application"?'),
    "number.x.y": ("kinds:number has no attribute x",),
    "plain(": ("no Python expression",),
    "factory)(": ("no Python expression",),
    "factory(plain)": ("no literal",),
    "factory(*[])": ("no literal",),
    "factory(**{})": ("no literal",),
    "factory(__import__('os'))": ("no literal",),
    "factory() or plain": ("neither a name nor a call",),
    "factory()()": ("no name",),
    "(lambda: 1)()": ("no name",),
}


class Start(Case):
    def test_what_is_an_application_starts(self):
        for name in [*("kinds:" + name for name in APPLICATIONS), "mocked:mock"]:
            worker = self.worker(name)
            self.assertEqual(self.once(worker, "/").body, b"answered", name)
            self.assertNotIn("WARN", worker.read_log(), name)

    def test_what_is_none_does_not_start_and_the_log_says_what_to_do(self):
        for name, words in OTHERS.items():
            log = self.failed_start("kinds:" + name)
            for word in ("kinds:" + name,) + words:
                self.assertIn(word, log)
            self.assertNotIn("Traceback", log, name)
            self.assertEqual(log.count("ERROR"), 1, log)

    def test_a_template_refuses_them_too(self):
        for name in ("scoped", "seven", "plain("):
            self.assertIn("kinds:" + name, self.failed_start("kinds:" + name, preload=True))

    def test_a_factory_that_is_not_called_is_called_with_a_warning(self):
        for name in ("factory", "optional", "nested.factory"):
            worker = self.worker("kinds:" + name)
            self.assertEqual(self.once(worker, "/").body, b"answered", name)
            self.assertIn('write wsgi = "kinds:%s()"' % name, worker.read_log())

    def test_a_module_that_is_missing_is_named_with_what_to_write(self):
        for name, words in (
            ("nope:application", ("wsgi = \"nope:application\": there is no module nope", os.path.dirname(__file__), "chdir", "python")),
            ("kinds.wsgi:application", ("there is no module kinds.wsgi",)),
            ("kinds.py:plain", ("there is no module kinds.py", "wsgi = \"kinds:plain\"")),
        ):
            log = self.failed_start(name)
            for word in words:
                self.assertIn(word, log)
            self.assertNotIn("Traceback", log)

    def test_what_an_import_raises_is_shown_without_the_frames_of_importlib(self):
        for text, words in (
            ("import nope", ("broken is there, and imports nope, which is missing", "broken.py, line 1", "-m pip install nope", "this one is that of the test")),
            ("import json.nope", ("imports json.nope, which is missing", "broken.py, line 1", "looked in /")),
            ("import importlib\nimportlib.import_module('nope.x')", ("imports nope, which is missing", "broken.py, line 2")),
            ("import importlib\nimportlib.import_module('broken_too')", ("ZeroDivisionError", "broken_too.py")),
            ("def f(:", ("SyntaxError", "broken.py")),
            ("import sys; sys.exit('no settings')", ("wsgi = \"broken:application\": the import of broken calls sys.exit('no settings')", "broken.py")),
        ):
            with tempfile.TemporaryDirectory(prefix="preforkd-") as folder:
                with open(os.path.join(folder, "broken.py"), "w") as code:
                    code.write(text)
                with open(os.path.join(folder, "broken_too.py"), "w") as code:
                    code.write("1 / 0\n")
                log = self.failed_start("broken:application", chdir=folder)
            for word in words:
                self.assertIn(word, log)
            self.assertNotIn("importlib/", log)
            self.assertNotIn("frozen importlib", log)
            self.assertEqual(log.count("which is missing"), 1 if "which is missing" in words[0] else 0)

    def test_an_interpreter_that_cannot_load_the_extension_says_what_it_is(self):
        with open(BOOTSTRAP) as source:
            bootstrap = source.read()
        for change, words in (
            ("sys.version_info = (2, 7, 18)", "is Python 2.7.18"),
            ("sys.version_info = (3, 9, 1)", "is Python 3.9.1"),
            ("sys.implementation.name = 'pypy'", "is pypy 3."),
            ("sys.abiflags = 't'", "is a free-threaded build of Python 3."),
        ):
            log = self.failed_start(bootstrap="import sys; %s\n%s" % (change, bootstrap))
            self.assertIn(words, log)
            self.assertIn("python: %s" % OPTIONS["python"], log)
            self.assertNotIn("Traceback", log)

    def test_an_old_python_can_read_the_bootstrap(self):
        with open(BOOTSTRAP) as source:
            tree = ast.parse(source.read(), feature_version=(3, 4))
        newer = (ast.JoinedStr, ast.AnnAssign, ast.Nonlocal, ast.AsyncFunctionDef, ast.Await, ast.YieldFrom, ast.NamedExpr, ast.Starred)
        for node in ast.walk(tree):
            self.assertNotIsInstance(node, newer)
            if isinstance(node, ast.Call):
                self.assertFalse(isinstance(node.func, ast.Name) and node.func.id == "print")

    def test_hooks_that_are_missing_are_named(self):
        self.assertIn('hooks = "nope": there is no module nope', self.failed_start(hooks="nope"))

    def test_what_a_factory_raises_is_shown(self):
        log = self.failed_start("kinds:named('x')")
        self.assertIn("AssertionError", log)
        self.assertIn("Traceback", log)

    def test_the_log_names_the_interpreter_and_its_environment_once(self):
        version = subprocess.run([OPTIONS["python"], "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True, check=True)
        line = "Python " + version.stdout.strip()
        for settings in ({"env": {"PREFORKD_SLOT": "0"}}, {"preload": True}):
            worker = self.worker(**settings)
            self.assertEqual(worker.read_log().count(line), 1, worker.read_log())
        self.assertNotIn(line, self.worker().read_log(), "the other workers need not say it again")

    def test_a_virtual_environment_is_named(self):
        with tempfile.TemporaryDirectory(prefix="preforkd-") as folder:
            subprocess.run([OPTIONS["python"], "-m", "venv", "--without-pip", folder], check=True)
            python = os.path.join(folder, "bin", "python")
            options = dict(OPTIONS)
            OPTIONS["python"] = python
            try:
                worker = self.worker(env={"PREFORKD_SLOT": "0"})
            finally:
                OPTIONS.update(options)
            self.assertIn("in the virtual environment " + folder, worker.read_log())

    def test_a_folder_for_temporary_files_that_cannot_be_used_is_named_at_the_start_and_when_it_is_needed(self):
        worker = self.worker(env={"PREFORKD_SLOT": "0", "TMPDIR": "/no/such/folder"}, body_in_memory=1000)
        self.assertIn("/no/such/folder", worker.read_log())
        with Client(worker.connect()) as client:
            self.assertEqual(client.ask("/read", method="POST", body=b"x" * 2000).status, "200 OK")
        self.assertEqual(worker.read_log().count("/no/such/folder"), 2, worker.read_log())

    def test_patches_of_the_standard_library_are_warned_of(self):
        for library in ("gevent", "eventlet"):
            for threads in (1, 2):
                with tempfile.TemporaryDirectory(prefix="preforkd-") as folder:
                    self.stand_in(library, folder)
                    worker = self.worker("kinds:plain", threads=threads, chdir=folder)
                    log = worker.read_log()
                    self.assertIn("the standard library is patched by " + library, log)
                    self.assertIn("one request" if threads == 1 else "2 requests", log)
                    self.assertEqual(self.once(worker, "/").body, b"answered")
                    self.assertStops(worker)

    def test_a_database_driver_that_waits_for_greenlets_is_warned_of(self):
        for callback, warned in (("print", True), ("None", False)):
            with tempfile.TemporaryDirectory(prefix="preforkd-") as folder:
                for package, module, text in (
                    ("psycopg2", "extensions", "def get_wait_callback():\n    return %s\n" % callback), ("psycogreen", "gevent", "import psycopg2.extensions\n"),
                ):
                    os.mkdir(os.path.join(folder, package))
                    for name, content in (("__init__", ""), (module, text)):
                        with open(os.path.join(folder, package, name + ".py"), "w") as code:
                            code.write(content)
                with open(os.path.join(folder, "green.py"), "w") as code:
                    code.write("import psycogreen.gevent\ndef application(environ, start_response):\n    return []\n")
                log = self.worker("green:application", chdir=folder).read_log()
                self.assertEqual("psycopg2 waits by psycogreen" in log, warned, log)

    def stand_in(self, library, folder):
        """A library that answers the questions of the one with this name, and whose threads never begin, and an application that uses it."""
        module, question = {"gevent": ("monkey", "is_module_patched"), "eventlet": ("patcher", "is_monkey_patched")}[library]
        os.mkdir(os.path.join(folder, library))
        with open(os.path.join(folder, library, "__init__.py"), "w"):
            pass
        with open(os.path.join(folder, library, module + ".py"), "w") as code:
            code.write("import threading\nthreading.Thread.start = lambda self: self._started.wait()\ndef %s(name):\n    return name != 'socket'\n" % question)
        with open(os.path.join(os.path.dirname(__file__), "kinds.py")) as kinds, open(os.path.join(folder, "kinds.py"), "w") as code:
            code.write("import %s.%s\n%s" % (library, module, kinds.read()))
