"""preforkd with any configuration, and what can be asked about its processes."""
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .places import APPS, BENCH, PREFORKD, PYTHON
from service import GUARD, LAUNCHER, Service, descendants


class Master(Service):
    """A master with one app, which is `bench`; `keys` are lines of its table."""

    def __init__(self, *keys, app=None, command=None, python=PYTHON):
        own = Path(tempfile.mkdtemp(dir=BENCH, prefix="master-"))
        self.config = own / "app.toml"
        lines = ["[master]", f'control = "{own / "sock"}"', "[app.bench]"]
        if app:
            application, folder = APPS[app]
            lines += [f'wsgi = "{application}"', f'chdir = "{folder}"', f'python = "{python}"', 'listen = ["fd:web"]']
        if command:
            lines.append(f"command = {json.dumps(command)}")
        self.config.write_text("\n".join([*lines, *keys]) + "\n")
        self.began = time.monotonic()
        super().__init__([PREFORKD, "-c", self.config])

    def ready(self):
        """Wait until all workers are; the seconds since the start."""
        try:
            self.wait_notify("READY=1")
        except BaseException:
            self.close()
            raise
        return time.monotonic() - self.began

    @staticmethod
    @functools.cache
    def launching():
        """Milliseconds that the small program takes which hands the socket over: not the master's time."""
        command = [sys.executable, "-IS", "-c", LAUNCHER, "0", "true"]
        took = []
        for _ in range(9):
            start = time.monotonic()
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            took.append((time.monotonic() - start) * 1000)
        return min(took)

    def wait_ready(self, number):
        """Wait until so many workers are ready, as the status for the init system has it."""
        while not any(f" {number}/{number} ready" in line for line in self.heard[-1]):
            self.notify.settimeout(GUARD)
            self.heard.append(self.notify.recv(65536).decode().splitlines())

    def wait_alone(self, number):
        """Wait until so many workers are ready, and no other is left."""
        while not any(line.endswith(f" {number}/{number} ready") for line in self.heard[-1]):
            self.notify.settimeout(GUARD)
            self.heard.append(self.notify.recv(65536).decode().splitlines())

    def tell(self, *words):
        """A command to the master; what it says."""
        done = subprocess.run([PREFORKD, "-c", self.config, *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.report()}"
        return done.stdout

    def workers(self):
        """The workers, as the scoreboard has them."""
        return json.loads(self.tell("status", "--json"))["apps"][0]["workers"]

    def others(self):
        """Children that are no workers: the template."""
        workers = {worker["pid"] for worker in self.workers()}
        return [pid for pid in descendants(self.process.pid) if pid not in workers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        shutil.rmtree(self.config.parent)


def smaps(pid):
    """kB by name: Pss, Private_Dirty and so on."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def private(pid):
    """kB that are this process' alone."""
    sizes = smaps(pid)
    return sizes["Private_Clean"] + sizes["Private_Dirty"]


def switches(pid):
    """How often a process has slept and was woken."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)[1])
    return total
