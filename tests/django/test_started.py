"""A project as `django-admin startproject` makes it, under the real master: what a beginner has."""
import http.client
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
                server.wait_log(r"WARN .*answered 404 to GET /static/admin/css/base.css, and no entry of `static` is for /static/ \(set STATIC_ROOT .*collectstatic.*static = ")
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


if __name__ == "__main__":
    unittest.main()
