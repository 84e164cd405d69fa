"""Pages as a browser shows them: a new project that `preforkd init` has configured, and the demo site, directly and as a site with TLS and HTTP/2.
A browser is a large program that is slow on a busy machine: PREFORKD_BROWSER=1 asks for these tests."""
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import chromium
from harness import PREFORKD, PYTHON, SITE, Preforkd, data, environ, toml
from service import GUARD, Service

SITES = """
[site.www]
listen = ["fd:web"]
tls    = {{ cert = "cert.pem", key = "key.pem" }}
static = {static}
app    = "{app}"
"""
# The background of what no style sheet speaks of.
UNSTYLED = "rgba(0, 0, 0, 0)"


@unittest.skipUnless(os.environ.get("PREFORKD_BROWSER"), "PREFORKD_BROWSER is not set")
@unittest.skipUnless(chromium.PROGRAM, "left out: no chromium (apt-get install chromium)")
class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = chromium.Chromium()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-pages-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def certificate(self):
        if not shutil.which("openssl"):
            self.skipTest("left out: no openssl (apt-get install openssl)")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
        subprocess.run(command.split(), cwd=self.folder, check=True, capture_output=True)

    def assertWhole(self, page, protocol):
        """All that the page is made of was answered, by this protocol, and is in use."""
        self.assertEqual(page["requests"][0][1:], [200, protocol])
        for path, status, spoken in page["requests"]:
            self.assertEqual(status, 200, path)
            # None for what the browser still has of the page before.
            self.assertIn(spoken, (protocol, ""), path)
        for sheet, rules in page["sheets"]:
            self.assertGreater(rules, 0, sheet)
        self.assertEqual(page["broken"], [], "images")

    def assertAdmin(self, url, password, protocol):
        """The admin has its styles, before and after a login."""
        # Those of the other scheme are for the same host.
        self.browser.call("Network.clearBrowserCookies")
        login = self.browser.open(url + "/admin/")
        self.assertEqual(login["path"], "/admin/login/")
        self.assertWhole(login, protocol)
        self.assertIn(["/static/admin/css/base.css", 200, protocol], login["requests"])
        self.assertNotEqual(self.browser.style("#header", "backgroundColor"), UNSTYLED)
        index = self.browser.submit("#login-form", username="demo", password=password)
        self.assertEqual(index["path"], "/admin/", index["text"])
        self.assertIn("Site administration", index["text"])
        self.assertNotEqual(self.browser.style("#header", "backgroundColor"), UNSTYLED)
        users = self.browser.open(url + "/admin/auth/user/")
        self.assertIn("demo", users["text"])
        # The browser asks for nothing again that it has, so all that is new was answered.
        for page in (index, users):
            self.assertEqual([path for path, status, _ in page["requests"] if status != 200], [])
            self.assertEqual(page["broken"], [])

    def project(self):
        """A new project with a user, and the app.toml that `preforkd init` writes."""
        def run(*command, **env):
            env = {**os.environ, "PWD": str(self.folder), **env}
            done = subprocess.run(command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GUARD)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

        run(PYTHON, "-m", "django", "startproject", "shop", ".")
        run(PYTHON, "manage.py", "migrate", "--verbosity=0")
        user = ("--noinput", "--username=demo", "--email=demo@example.com")
        run(PYTHON, "manage.py", "createsuperuser", *user, DJANGO_SUPERUSER_PASSWORD="a password")
        run(PREFORKD, "init", VIRTUAL_ENV=str(Path(PYTHON).parent.parent))
        return self.folder / "app.toml"

    def serve(self):
        server = Service([PREFORKD], env={"PWD": str(self.folder)}, cwd=self.folder)
        self.addCleanup(server.close)
        server.wait_notify("READY=1")
        return server

    def test_a_new_project(self):
        config = self.project()
        written = config.read_text()
        listen = 'listen = ["127.0.0.1:8000"]\n'
        for scheme, protocol in (("http", "http/1.1"), ("https", "h2")):
            with self.subTest(scheme):
                text = written.replace(listen, 'listen = ["fd:web"]\n')
                if scheme == "https":
                    self.certificate()
                    text = written.replace(listen, "") + SITES.format(static='"django"', app="web")
                config.write_text(text)
                server = self.serve()
                url = f"{scheme}://127.0.0.1:{server.port}"
                first = self.browser.open(url)
                self.assertIn("The install worked successfully!", first["text"])
                self.assertWhole(first, protocol)
                self.assertAdmin(url, "a password", protocol)
                self.assertEqual(server.stop(), 0)

    def test_the_demo_site(self):
        static = {"/static/": str(data() / "static")}
        ours = {key: value for key, value in environ(data()).items() if os.environ.get(key) != value}
        app = {"wsgi": "mysite.wsgi:application", "chdir": str(SITE), "python": PYTHON, "workers": 2, "env": ours}
        for scheme, protocol in (("http", "http/1.1"), ("https", "h2")):
            with self.subTest(scheme):
                if scheme == "http":
                    server = Preforkd(self.folder, **app, listen=["fd:web"], static=static)
                else:
                    self.certificate()
                    server = Secure(self.folder, static, **app)
                self.addCleanup(server.close)
                server.ready()
                url = f"{scheme}://127.0.0.1:{server.port}"
                for path, heading in (("/", "It works"), ("/notes/", "Notes")):
                    page = self.browser.open(url + path)
                    self.assertIn(heading, page["text"])
                    self.assertWhole(page, protocol)
                    self.assertIn("/static/notes/style.css", [sheet for sheet, _ in page["sheets"]])
                self.assertAdmin(url, (data() / "password").read_text().strip(), protocol)
                server.finish()


class Secure(Preforkd):
    """The app behind a site with TLS."""

    def __init__(self, folder, static, **app):
        self.static = static
        super().__init__(folder, **app)

    def configure(self, **app):
        super().configure(**app)
        with open(self.config, "a") as file:
            file.write(SITES.format(static=toml(self.static), app="demo"))


if __name__ == "__main__":
    unittest.main()
