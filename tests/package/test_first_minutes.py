"""The first minutes with Django, as conf/guide/django.md has them: its commands are typed into a shell on a terminal, in a fresh environment.
Django comes from the package index. The times are printed."""

import http.client
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

import test_wheel
from test_wheel import ROOT, clean_environment, free_ports

GUARD = 120  # seconds after which a wait is a failure
PAGE = os.path.join(ROOT, "conf", "guide", "django.md")
PROMPT = "next> "
# What a terminal is told besides the text: colours, and that pasted text begins and ends.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")

setUpModule = test_wheel.setUpModule


def blocks(heading, language="sh"):
    """The blocks below a heading of the page."""
    with open(PAGE, encoding="utf-8") as page:
        section = re.search(r"^## %s$(.*?)(?=^## |\Z)" % heading, page.read(), re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^```%s\n(.*?)^```$" % language, section, re.MULTILINE | re.DOTALL)


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, folder, **variables):
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile"], {**clean_environment(), "PS1": PROMPT, "TERM": "dumb", **variables})
        self.text = ""
        self.wait(PROMPT)

    def wait(self, *ends):
        """What is shown from now on up to one of these."""
        start, deadline = len(self.text), time.monotonic() + GUARD
        while not any(end in self.text[start:] for end in ends):
            if not select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError("none of %s within %d s after:\n%s" % (ends, GUARD, self.text))
            try:
                data = os.read(self.terminal, 65536)
            except OSError:  # The shell has ended.
                raise AssertionError("none of %s before the end of:\n%s" % (ends, self.text)) from None
            self.text += CONTROL.sub("", data.decode("utf-8", "replace"))
        return self.text[start:]

    def type(self, line, *ends):
        """Types a line, and waits for the prompt, or for one of these."""
        os.write(self.terminal, line.encode() + b"\n")
        # The echo first, which may have the words that are waited for.
        return self.wait(*(ends or (PROMPT,)))

    def run(self, line, status=0):
        """Types a command, which must end with this status; what it shows."""
        shown = self.type(line)
        found = self.type("echo status=$?")
        if "\nstatus=%d\n" % status not in found:
            raise AssertionError("%s: not status %d: %s\n%s" % (line, status, found, self.text))
        return shown

    def interrupt(self):
        os.write(self.terminal, b"\x03")

    def close(self):
        try:
            os.killpg(self.process, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(self.terminal)
        os.waitpid(self.process, 0)


class FirstMinutes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-first-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        (self.port,) = free_ports(1)
        self.begun = time.monotonic()
        self.variables = {"WHEELS": os.path.dirname(test_wheel.wheel), "HOME": self.folder, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.variables |= {name: value for name, value in os.environ.items() if name.startswith("PIP_") and name != "PIP_FIND_LINKS"}
        # A Python by its own name, as `python3` may be a wrapper.
        python = subprocess.run(["python3", "-c", "import sys; print(sys.executable)"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        self.variables["PATH"] = os.path.dirname(os.path.realpath(python)) + ":/usr/bin:/bin"

    def open(self, folder):
        terminal = Terminal(folder, **self.variables)
        self.addCleanup(terminal.close)
        return terminal

    def lap(self, what):
        print("first minutes: %5.1f s  %s" % (time.monotonic() - self.begun, what), flush=True)

    def get(self, path):
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GUARD)
        try:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read().decode()
        finally:
            client.close()

    def assertStyled(self, path="/admin/login/"):
        """The admin is there, and its style sheets are."""
        status, page = self.get(path)
        self.assertEqual(status, 200)
        sheets = re.findall(r'<link rel="stylesheet" href="([^"]+\.css)"', page)
        self.assertGreater(len(sheets), 1)
        for sheet in sheets:
            self.assertEqual(self.get(sheet)[0], 200, sheet)

    def test_from_nothing_to_a_deploy(self):
        first = self.open(self.folder)
        for line in blocks("A project")[0].splitlines():
            first.run(line)
        self.lap("an environment with Django and preforkd, and a project in it")
        project = os.path.join(self.folder, "shop")
        configuration = os.path.join(project, "app.toml")
        write, check, serve = blocks("Serve")[0].splitlines()
        first.run(write)
        with open(configuration, encoding="utf-8") as file:
            text = file.read()
        # The page says http://127.0.0.1:8000, which may be in use here.
        text = text.replace("127.0.0.1:8000", "127.0.0.1:%d" % self.port)
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(text)
        self.assertIn("configuration OK", first.run(check))
        first.type(serve, "generation 1 is ready")
        self.assertEqual(self.get("/")[0], 200)
        self.lap("served")
        self.assertStyled()

        second = self.open(project)
        reload, status, stop = blocks("Deploy")[0].splitlines()
        settings, urls = (os.path.join(project, "mysite", name) for name in ("settings.py", "urls.py"))
        with open(settings, encoding="utf-8") as file:
            whole = file.read()
        with open(settings, "a", encoding="utf-8") as file:
            file.write("INSTALLED_APPS += ['no_such_app']\n")
        said = second.run(reload, 1)
        self.assertRegex(said, "no_such_app(.|\n)*keeping generation 1")
        self.assertStyled()
        self.lap("a broken reload is refused")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(whole)
        with open(urls, encoding="utf-8") as file:
            routes = file.read()
        with open(urls, "w", encoding="utf-8") as file:
            file.write(re.sub("['\"]admin/['\"]", "'office/'", routes))
        self.assertRegex(second.run(reload), r"generation \d+: web 2/2 ready")
        self.assertEqual((self.get("/office/login/")[0], self.get("/admin/login/")[0]), (200, 404))
        self.lap("new code is served")
        # In production: one folder has the static files.
        with open(settings, "a", encoding="utf-8") as file:
            file.write(blocks("Static files", "python")[0] + "DEBUG = False\nALLOWED_HOSTS = ['127.0.0.1', 'localhost']\n")
        for line in blocks("Static files")[0].splitlines():
            second.run(line)
        second.run(reload)
        self.assertStyled("/office/login/")
        self.lap("served without DEBUG")
        self.assertRegex(second.run(status), r"preforkd \S+ pid \d+")
        self.assertIn("stopped", second.run(stop))
        first.wait(PROMPT)
        self.assertIn("\nstatus=0\n", first.type("echo status=$?"))
        self.lap("stopped")


if __name__ == "__main__":
    unittest.main()
