"""Projects of several frameworks, served with the app.toml that `preforkd init` writes, and nothing else."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from stand import GUARD, get, needs_module
from harness import PREFORKD  # noqa: E402 (stand has found the folder)
from service import Service  # noqa: E402

FLASK = """
from flask import Flask
app = Flask(__name__)
@app.get("/")
def index():
    return "old code"
"""
FACTORY = """
from flask import Flask
def create_app():
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "old code")
    return app
"""
FASTAPI = """
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
def index():
    return "old code"
"""
PYRAMID = """
from pyramid.config import Configurator
from pyramid.response import Response
def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.add_route("index", "/")
        config.add_view(lambda request: Response("old code"), route_name="index")
        return config.make_wsgi_app()
"""
PASTER = """
[app:main]
use = call:shop:main
pyramid.includes =
"""


class Initialised(unittest.TestCase):
    def serve(self, modules, files):
        """Writes a project, configures it, serves it, and takes in new code."""
        for name in modules:
            needs_module(name)
        folder = Path(tempfile.mkdtemp(prefix="preforkd-init-"))
        self.addCleanup(shutil.rmtree, folder)
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        env = {"PWD": str(folder), "VIRTUAL_ENV": sys.prefix, "PYTHONDONTWRITEBYTECODE": "1"}

        def command(word):
            done = subprocess.run([PREFORKD, word], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=GUARD)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return done.stdout

        self.assertIn(" application ", command("init"))
        config = folder / "app.toml"
        text = config.read_text()
        self.assertIn("127.0.0.1:8000", text)
        config.write_text(text.replace('"127.0.0.1:8000"', '"fd:web"'))
        server = Service([PREFORKD], env=env, cwd=folder)
        self.addCleanup(server.close)
        server.wait_notify("READY=1")
        self.assertIn("old code", get(server.port))
        for name, text in files.items():
            (folder / name).write_text(text.replace("old code", "new code"))
        command("reload")
        # A server that is told to end may still accept.
        while not re.search("generation 2: web 2/2 ready$", server.wait_notify().get("STATUS", "")):
            pass
        self.assertIn("new code", get(server.port))
        self.assertIn("2/2 ready", command("status"))
        command("stop")
        self.assertEqual(server.process.wait(GUARD), 0, server.report())
        mistakes = [line for line in server.log if " WARN " in line or " ERROR " in line]
        self.assertEqual(mistakes, [])

    def test_flask(self):
        self.serve(["flask"], {"app.py": FLASK})

    def test_a_factory_in_a_package(self):
        self.serve(["flask"], {"shop/__init__.py": FACTORY})

    def test_pyramid(self):
        self.serve(["pyramid"], {"production.ini": PASTER, "shop.py": PYRAMID})

    def test_fastapi_by_uvicorn(self):
        self.serve(["fastapi", "uvicorn"], {"main.py": FASTAPI})


if __name__ == "__main__":
    unittest.main()
