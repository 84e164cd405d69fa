"""A project as `django-admin startproject` makes it, under the real master: what a beginner has."""
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import PREFORKD, PYTHON
from service import GUARD, Service

STYLE = "/static/admin/css/base.css"


class Started(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="preforkd-started-"))
        self.addCleanup(shutil.rmtree, self.folder)
        command = [PYTHON, "-m", "django", "startproject", "shop", str(self.folder)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=GUARD)

    def serve(self, *words):
        server = Service([PREFORKD, *words], env={"PWD": str(self.folder)}, cwd=self.folder)
        self.addCleanup(server.close)
        server.wait_notify("READY=1")
        return server

    def get(self, server, path):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response

    def test_styles_that_nobody_serves_are_said_once_with_what_to_do(self):
        for words in ((), ("--threads", "2")):
            with self.subTest(words=words):
                server = self.serve("shop.wsgi", "-b", "fd:web", "--python", PYTHON, *words)
                self.assertEqual(self.get(server, "/elsewhere").status, 404)
                self.assertEqual(self.get(server, STYLE).status, 404)
                server.wait_log(r"WARN .*answered 404 to GET /static/admin/css/base.css, and no entry of `static` is for /static/ \(write static = \"django\"\)")
                self.assertEqual(self.get(server, STYLE + "2").status, 404)
                self.assertEqual(server.stop(), 0)
                said = [line for line in server.log if "no entry of `static`" in line]
                self.assertEqual(len(said), 1, said)

    def test_a_file_that_is_not_where_a_mapping_leads_is_said_with_its_path(self):
        static = self.folder / "collected"
        static.mkdir()
        server = self.serve("shop.wsgi", "-b", "fd:web", "--python", PYTHON, "--static", "/static/=collected")
        self.assertEqual(self.get(server, STYLE).status, 404)
        server.wait_log(f"there is no file {static}/admin/css/base.css, to which the mapping of /static/ leads; answering 404")
        self.assertEqual(server.stop(), 0)
        self.assertFalse([line for line in server.log if "no entry of `static`" in line])

    def settings(self, text):
        """Adds to the settings of the project."""
        with open(self.folder / "shop" / "settings.py", "a") as file:
            file.write(text)
        shutil.rmtree(self.folder / "shop" / "__pycache__", ignore_errors=True)

    def command(self, *words, status=0, **env):
        """What a command prints."""
        env = {**os.environ, "PWD": str(self.folder), **env}
        done = subprocess.run([PREFORKD, *words], cwd=self.folder, env=env, capture_output=True, text=True, timeout=GUARD)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_under_debug_the_finders_say_where_static_files_are(self):
        own = self.folder / "own" / "admin" / "css"
        own.mkdir(parents=True)
        (own / "base.css").write_text("/* ours */")
        downloads = self.folder / "files"
        downloads.mkdir()
        (downloads / "a.txt").write_text("a file")
        self.settings("STATICFILES_DIRS = [BASE_DIR / 'own', ('dl', BASE_DIR / 'files')]\n")
        for words in ((), ("--preload", "--threads", "2")):
            with self.subTest(words=words):
                server = self.serve("shop.wsgi", "-b", "fd:web", "--python", PYTHON, "--static", "django", *words)
                server.wait_log("static files below /static/ are served from .*own.*as DEBUG is on, by the finders")
                style = self.get(server, STYLE)
                self.assertEqual((style.status, style.headers["Content-Type"]), (200, "text/css; charset=utf-8"))
                self.assertEqual(int(style.headers["Content-Length"]), len("/* ours */"), "the first folder counts")
                self.assertEqual(self.get(server, "/static/admin/css/login.css").status, 200, "the folder of an app")
                self.assertEqual(self.get(server, "/static/dl/a.txt").status, 200)
                self.assertEqual(self.get(server, "/static/nothing.css").status, 404)
                self.assertEqual(self.get(server, "/elsewhere").status, 404)
                self.assertEqual(server.stop(), 0)

    def test_without_debug_static_root_is_served_and_what_is_missing_is_said(self):
        self.settings("DEBUG = False\nALLOWED_HOSTS = ['*']\n")
        words = ("shop.wsgi", "-b", "fd:web", "--python", PYTHON, "--static", "django")
        server = self.serve(*words)
        server.wait_log('WARN .*static = "django": the setting STATIC_ROOT is not set')
        server.wait_log("WARN .*DEBUG is off and the settings have no LOGGING")
        self.assertEqual(self.get(server, STYLE).status, 404)
        self.settings("STATIC_ROOT = BASE_DIR / 'collected'\nLOGGING = {'version': 1}\n")
        self.command("reload")
        server.wait_log("WARN .*there is nothing in .*collected, the setting STATIC_ROOT .run manage.py collectstatic")
        collect = [PYTHON, "manage.py", "collectstatic", "--noinput"]
        subprocess.run(collect, cwd=self.folder, check=True, capture_output=True, timeout=GUARD)
        self.command("reload")
        self.assertEqual(self.get(server, STYLE).status, 200)
        self.assertEqual(server.stop(), 0)
        self.assertEqual(len([line for line in server.log if "no LOGGING" in line]), 1)

    def test_a_site_asks_the_application_for_its_static_files(self):
        config = self.folder / "app.toml"
        config.write_text(
            f'[master]\ncontrol = "c.sock"\n[app.web]\nwsgi = "shop.wsgi"\npython = "{PYTHON}"\n'
            f'[site.shop]\nlisten = "fd:web"\napp = "web"\nstatic = "django"\n'
        )
        server = self.serve()
        self.assertEqual(self.get(server, STYLE).status, 200)
        self.assertEqual(self.get(server, "/elsewhere").status, 404)
        access = [line for line in server.log if STYLE in line]
        self.assertEqual(access, [], "the application was not asked")
        self.settings("import nope_of_test\n")
        said = self.command("reload", status=1)
        self.assertIn("app web cannot be asked where its static files are", said)
        self.assertIn("imports nope_of_test, which is missing", said)
        self.assertEqual(self.get(server, STYLE).status, 200)
        self.assertEqual(server.stop(), 0)

    def test_a_reload_of_some_apps_asks_only_theirs_and_replaces_the_front_if_static_files_have_changed(self):
        loaded = self.folder / "loaded"
        for name in ("first", "second"):
            (self.folder / name).mkdir()
            (self.folder / name / "a.css").write_text(name)
        count = f"with open({str(loaded)!r}, 'a') as file: file.write(str(os.getpid()) + '\\n')\n"
        self.settings(f"DEBUG = False\nALLOWED_HOSTS = ['*']\nLOGGING = {{'version': 1}}\nSTATIC_ROOT = BASE_DIR / 'first'\nimport os\n{count}")
        config = self.folder / "app.toml"
        config.write_text(
            f'[master]\ncontrol = "c.sock"\n[app.web]\nwsgi = "shop.wsgi"\npython = "{PYTHON}"\n'
            f'[app.other]\ncommand = ["sleep", "1000"]\nready = "exec"\n'
            f'[site.shop]\nlisten = "fd:web"\napp = "web"\nstatic = "django"\n'
        )
        server = self.serve()
        before = loaded.read_text()

        def front():
            """The workers of the front, without those that are about to end."""
            status = json.loads(self.command("status", "--json"))
            workers = next(app["workers"] for app in status["apps"] if app["name"] == "front")
            newest = max(worker["generation"] for worker in workers)
            return {worker["pid"] for worker in workers if worker["generation"] == newest}

        workers = front()
        too = "the static files of app web have changed, so its workers are replaced too"
        self.assertIn("web: is replaced (nothing has changed, but it is named)", self.command("plan", "web"))
        self.assertNotIn(too, self.command("reload", "web"))
        self.assertEqual(front(), workers, "nothing has changed")
        self.assertNotEqual(loaded.read_text(), before, "a reload of the app asks it")

        self.settings("import nope_of_test\n")
        before = loaded.read_text()
        self.command("reload", "other")
        self.command("stop", "other")
        self.assertIn("other: started", self.command("start", "other"))
        self.command("restart", "other")
        self.assertEqual(self.command("plan", "other"), "other: is replaced (nothing has changed, but it is named)\n")
        self.assertEqual(loaded.read_text(), before, "the application was not loaded")
        for words in (("reload",), ("reload", "web"), ("reload", "front"), ("restart", "web"), ("plan",), ("plan", "web")):
            with self.subTest(words=words):
                said = self.command(*words, status=1)
                self.assertIn("static: app web cannot be asked where its static files are", said)
                self.assertIn("app.toml:", said)
        self.assertEqual(front(), workers)
        self.assertEqual(self.get(server, "/static/a.css").headers["Content-Length"], str(len("first")))

        settings = self.folder / "shop" / "settings.py"
        settings.write_text(settings.read_text().replace("import nope_of_test\n", ""))
        self.settings("STATIC_ROOT = BASE_DIR / 'second'\n")
        line = "front: is replaced (changed: static files of app web, the sites)"
        self.assertIn(line, self.command("plan", "web"))
        self.assertIn(line, self.command("plan"))
        self.assertIn(f"front: {too}\n", self.command("reload", "web"))
        server.wait_log(f"app=front: {too}")
        self.assertTrue(workers.isdisjoint(front()))
        self.assertEqual(self.get(server, "/static/a.css").headers["Content-Length"], str(len("second")))
        self.settings("STATIC_ROOT = BASE_DIR / 'first'\n")
        self.assertIn(f"front: {too}\n", self.command("restart", "web"))
        self.assertEqual(self.get(server, "/static/a.css").headers["Content-Length"], str(len("first")))
        self.assertEqual(server.stop(), 0)

    def test_applications_are_loaded_by_a_check_that_is_asked_to(self):
        words = ("-t", "--import", "shop.wsgi", "--python", PYTHON, "--static", "django")
        said = self.command(*words)
        self.assertRegex(said, r"app=web shop.wsgi was loaded by .*, Python 3\.\d+\.\d+, Django \d+\.\d+.*; it is that of the key `python`")
        self.assertIn("configuration OK", said)
        self.settings("import nope_of_test\n")
        said = self.command(*words, status=1)
        self.assertIn("app=web cannot be loaded: ", said)
        self.assertIn("shop.wsgi is there, and imports nope_of_test, which is missing: ", said)
        self.assertIn("settings.py, line ", said)
        self.assertNotIn("Traceback", said)
        self.assertIn("configuration OK\n", self.command("-t", *words[2:]), "nothing was imported")

    def test_what_an_application_prints_is_no_answer_and_one_that_takes_too_long_is_ended(self):
        config = self.folder / "app.toml"
        config.write_text(f'[app.web]\nwsgi = "shop.wsgi"\npython = "{PYTHON}"\nlisten = "127.0.0.1:0"\nstart_timeout = "20s"\n')
        self.settings("import os\nprint('{\\x1b[2J')\nos.write(1, b'}')\n")
        said = self.command("-t", "--import")
        self.assertIn("shop.wsgi was loaded", said)
        self.assertIn("{[2J", said, "what could control a terminal is left out")
        config.write_text(config.read_text().replace("20s", "1s"))
        self.settings("import subprocess\nsubprocess.run(['sleep', '1000'])\n")
        said = self.command("-t", "--import", status=1)
        self.assertIn("app=web cannot be loaded: the process that loads it has not ended within 1s", said)

    def test_a_deployment_is_checked_by_django_and_by_what_the_server_knows(self):
        said = self.command("check", "shop.wsgi", "--python", PYTHON, "-w", "3", "--threads", "2")
        self.assertIn("security.W018", said, "DEBUG is on")
        self.assertIn("6 requests at a time", said)
        self.assertIn('nothing serves the static files below /static/ (write static = "django")', said)
        self.settings("ROOT_URLCONF = 'nowhere'\n")
        self.assertIn("nowhere", self.command("check", "shop.wsgi", "--python", PYTHON, status=1))

    def test_a_new_project_is_served_by_the_file_that_init_writes(self):
        said = self.command("init", VIRTUAL_ENV=str(Path(PYTHON).parent.parent))
        self.assertIn("serves the Django application shop.wsgi:application.\nNext:\n  preforkd ", said)
        config = self.folder / "app.toml"
        written = config.read_text()
        self.assertIn('static = "django"', written)
        again = self.command("init", status=1)
        self.assertIn("is there already, and stays as it is", again)
        self.assertEqual(config.read_text(), written)
        config.write_text(written.replace('"127.0.0.1:8000"', '"fd:web"'))
        server = self.serve()
        self.assertEqual(self.get(server, STYLE).status, 200)
        self.assertIn("web: is replaced (nothing has changed, but its key reload.when is", self.command("plan"))
        config.write_text(config.read_text().replace("workers = 2", "workers = 1") + '[app.more]\ncommand = ["sleep", "100"]\n')
        plan = self.command("plan")
        self.assertIn("web: is replaced (changed: workers)", plan)
        self.assertIn("more: is started with 1 worker", plan)
        self.assertIn("web: 2/2 ready", self.command("status"))
        config.write_text("[app.web]\n")
        self.assertIn("a reload would be refused: ", self.command("plan", status=1))
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
