"""Static files under the real master: from app.toml to the client.

    python3 -m unittest discover -s tests/wsgi

What a response looks like is tested beside its source, in src/http/files.
"""
import http.client
import os
import subprocess
import unittest
from pathlib import Path

from test_life import GUARD, Life as Base
from harness import PREFORKD

# The one of a virtual environment may lie where only its owner can go.
PUBLIC = Path("/usr/bin/python3")


def fetch(server, path, **fields):
    """A response, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def check(folder):
    """What `preforkd -t` says about the configuration, and its exit status."""
    done = subprocess.run([PREFORKD, "-t", "-c", folder / "app.toml"], capture_output=True, text=True, timeout=GUARD)
    return done.stdout + done.stderr, done.returncode


class Static(unittest.TestCase):
    """A folder with files, and a server that ends with the test."""

    launch = Base.launch

    def setUp(self):
        Base.setUp(self)
        self.folder.chmod(0o755)
        self.files = self.folder / "dist"
        self.files.mkdir()
        for name, text in (("index.html", "index"), ("app.js", "plain"), ("app.js.gz", "gzip"), ("logo.svgz", "svgz")):
            (self.files / name).write_text(text)

    def serve(self, static, **options):
        """A server of hello.py with these mappings."""
        return self.launch(wsgi="hello:application", static=static, **options).ready()

    def test_an_application_behind_its_files(self):
        server = self.serve({"/": str(self.files)})
        for path, body in (("/", b"index"), ("/app.js", b"plain"), ("/api/users", b"Hello, world\n")):
            self.assertEqual(fetch(server, path)[1], body, path)
        said, status = check(self.folder)
        self.assertEqual(status, 0, said)
        self.assertNotIn("warning", said)
        server.finish()

    def test_files_that_hide_the_application_are_warned_of(self):
        server = self.serve({"/": {"folder": str(self.files), "fallthrough": False}})
        warning = "app=demo static: the application is never called"
        server.wait_log(warning)
        said, status = check(self.folder)
        self.assertTrue(warning in said and status == 0, said)
        self.assertEqual(fetch(server, "/api/users")[0].status, 404)
        server.finish()

    def test_a_mapping_with_all_its_keys(self):
        server = self.serve({
            "/my files/": {
                "folder": str(self.files), "max_age": "1y", "immutable": True, "headers": {"X-Robots-Tag": "none"},
                "index": "app.js", "fallthrough": True, "precompressed": ["gzip"],
            },
            "/médias/": str(self.files),
            "/icon": str(self.files / "logo.svgz"),
        })
        response, body = fetch(server, "/my%20files/app.js", Accept_Encoding="br, gzip")
        self.assertEqual((body, response.headers["Content-Encoding"]), (b"gzip", "gzip"))
        self.assertEqual(response.headers["Content-Type"], "text/javascript; charset=utf-8")
        self.assertEqual(response.headers["Vary"], "Accept-Encoding")
        self.assertEqual(response.headers["Cache-Control"], "max-age=31557600, immutable")
        self.assertEqual(response.headers["X-Robots-Tag"], "none")
        self.assertEqual(fetch(server, "/my%20files/")[1], b"plain")
        self.assertEqual(fetch(server, "/my%20files/none")[1], b"Hello, world\n")
        self.assertEqual(fetch(server, "/m%C3%A9dias/app.js", Accept_Encoding="gzip")[1], b"plain")
        response, body = fetch(server, "/icon")
        self.assertEqual((body, response.headers["Content-Encoding"]), (b"svgz", "gzip"))
        self.assertEqual(response.headers["Content-Type"], "image/svg+xml")
        server.finish()

    @unittest.skipUnless(os.getuid() == 0, "only root can run workers as another user")
    @unittest.skipUnless(PUBLIC.exists(), "needs a Python that every user may execute")
    def test_what_the_workers_user_may_not_read(self):
        closed = self.folder / "closed"
        closed.mkdir(mode=0o700)
        secret = self.files / "secret.css"
        secret.touch(mode=0o600)
        other = {"user": "nobody", "python": str(PUBLIC)}
        server = self.serve({"/static/": str(self.files)}, **other)
        for _ in range(3):
            self.assertEqual(fetch(server, "/static/secret.css")[0].status, 403)
        line = f"could not open the static file {secret} as user nobody: Permission denied"
        server.wait_log(line)
        self.assertEqual(sum(line in entry for entry in server.log), 1)
        server.finish()
        server = self.launch(wsgi="hello:application", static={"/static/": str(closed)}, **other)
        server.wait_log(f"could not enter a folder of static files as user nobody: {closed}: Permission denied")
        said, status = check(self.folder)
        self.assertIn(f"app=demo static: user nobody may not enter {closed}, ", said)
        self.assertEqual(status, 0)
