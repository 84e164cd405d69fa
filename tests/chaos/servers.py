"""The servers that are tormented, each with the same application in a folder of its own."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import processes
from service import Service

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PREFORKD = os.path.abspath(os.environ.get("PREFORKD", ROOT / "target/release/preforkd"))
# abspath, not resolve: a virtual environment's python is a link, and is one only by its own name.
PYTHON = os.path.abspath(ROOT / "target/chaos/venv/bin/python")

GOOD = "from app import application\n"
# One value per thing that both can be told; times in seconds.
DEFAULTS = {
    "workers": 3, "threads": 1, "preload": False, "timeout": 30, "graceful": 30, "max_requests": 0, "jitter": 0,
    "chdir": ".", "listen": [], "more": [],
}


class Server(Service):
    """One server and what its log tells: which worker was ready when. `output` is a file for its log to go to."""

    READY = None

    def __init__(self, options, output=None, wrap=(), talks=False, code=GOOD):
        self.options = {**DEFAULTS, **options}
        self.home = Path(tempfile.mkdtemp(prefix="preforkd-chaos-"))
        self.notes = self.home / "notes"
        self.notes.touch()
        # The folder of the application; it may be a link.
        self.chdir = self.home / self.options["chdir"]
        self.ready = {}  # worker's pid: when it was ready
        self.log_bytes = 0
        self.hooked = output is None
        if self.chdir == self.home:
            self.deploy(code)
        else:
            self.release(0, code)
        self.configure()
        command = [*wrap, *self.command()]
        if output:
            command = ["sh", "-c", 'out=$1; shift; exec "$@" >"$out" 2>&1', "sh", str(output), *command]
        env = {"CHAOS_LOG": str(self.notes), "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        super().__init__(command, env={**env, "CHAOS_TALKS": "1"} if talks else env, cwd=self.home)
        threading.Thread(target=self._read_notify, daemon=True).start()

    def _read_notify(self):
        """As an init system does, which nobody here asks what it has heard."""
        while not self.notify.recv(65536).startswith(b"ENDED="):
            pass

    @property
    def pid(self):
        """The master."""
        return self.process.pid

    def deploy(self, text):
        """Put other code in the place of the application's."""
        draft = self.home / "draft"
        draft.write_text(text)
        draft.rename(self.home / "site_code.py")

    def release(self, number, text):
        """Make a release, and let the application's folder be a link to it, in one step, as deployments do; when that was."""
        folder = self.home / "releases" / str(number)
        folder.mkdir(parents=True)
        (folder / "site_code.py").write_text(text)
        draft = self.home / "link"
        draft.symlink_to(folder.relative_to(self.home))
        draft.rename(self.chdir)
        return time.monotonic()

    def _read_log(self):
        for line in self.process.stdout:
            now = time.monotonic()
            self.log_bytes += len(line)
            line = line.decode("utf-8", "backslashreplace").rstrip("\n")
            if found := re.search(self.READY, line):
                self.ready[int(found[1])] = now
            with self.more_lines:
                self.lines.append(line)
        with self.more_lines:
            self.lines.append(None)

    def workers(self, since=0.0):
        """The workers that live and were ready after `since`."""
        return [pid for pid, at in list(self.ready.items()) if at > since and processes.alive(pid)]

    def wait(self, fact, limit, step=0.005, alive=True):
        """Wait until `fact()`; the time of it, or None when that has not come within `limit` seconds or cannot come."""
        deadline = time.monotonic() + limit
        while not fact():
            if time.monotonic() > deadline or (alive and not self.living()):
                return None
            time.sleep(step)
        return time.monotonic()

    def wait_full(self, limit=10.0, without=()):
        """Wait until as many workers as wanted live and are ready, none of `without`; the time of the last one."""
        wanted = self.options["workers"]
        if self.wait(lambda: len(set(self.workers()) - set(without)) >= wanted, limit) is None:
            return None
        return max(self.ready[pid] for pid in set(self.workers()) - set(without))

    def wait_renewed(self, since, limit=10.0):
        """Wait until there are exactly the wanted workers, all of them ready after `since`; the time of it."""

        def renewed():
            living = self.workers()  # one look: an old one may leave and a new one come between two
            return len(living) == self.options["workers"] and all(self.ready[pid] > since for pid in living)

        return self.wait(renewed, limit)

    def noted(self):
        """The notes of the application, also when the server is closed."""
        with contextlib.suppress(FileNotFoundError):
            self.last_notes = self.notes.read_text().splitlines()
        return self.last_notes

    def asked(self):
        """The notes of the application: for each id the workers that were asked."""
        found = {}
        for line in self.noted():
            kind, *words = line.split()
            if kind == "asked":
                found.setdefault(words[0], []).append(int(words[1]))
        return found

    def stillborn(self):
        """How many workers have died at their start, see `sicken`."""
        return sum(line.startswith("sick ") for line in self.noted())

    def sicken(self, sick=True):
        """Let workers die at their start from now on; or no more."""
        if sick:
            (self.home / "sick").touch()
        else:
            (self.home / "sick").unlink()

    def cpu(self):
        """Seconds of CPU that all processes have used so far, those that have ended among them."""
        return sum(processes.cpu(pid) for pid in self.family())

    def living(self):
        """Whether the master does."""
        return self.process.poll() is None

    def hup(self):
        """Ask for a reload; when that was."""
        self.signal(signal.SIGHUP)
        return time.monotonic()

    def signal(self, number):
        """Signal the master, if there is one."""
        if self.living():
            self.process.send_signal(number)

    def family(self):
        """All processes that came of this server, also those whose master is gone: they live in its folder."""
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit() and f"{os.readlink(f'/proc/{name}/cwd')}/".startswith(f"{self.home}/"):
                    found.append(int(name))
        return found

    def close(self):
        """Nothing stays."""
        if self.living():
            self.process.kill()
        for pid in self.family():
            processes.kill(pid)
        super().close()
        self.noted()
        shutil.rmtree(self.home, ignore_errors=True)


class Preforkd(Server):
    """preforkd, configured by app.toml."""

    READY = re.compile(r"pid=(\d+): ready after")

    def configure(self, broken=False):
        """Write app.toml."""
        told = self.options
        app = {
            "wsgi": "site_code:application", "chdir": str(self.chdir), "python": PYTHON,
            "listen": ["fd:web", *told["listen"]],
            "workers": told["workers"], "threads": told["threads"], "preload": told["preload"],
            "timeout": f"{told['timeout']}s", "graceful_timeout": f"{told['graceful']}s",
        }
        if told["max_requests"]:
            app |= {"max_requests": told["max_requests"], "max_requests_jitter": told["jitter"]}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in app.items()]
        lines += told["more"]
        text = "[app.web\n" if broken else "[app.web]\n" + "".join(lines)
        (self.home / "app.toml").write_text('[master]\ncontrol = "control.sock"\n' + text)

    def command(self):
        """How it is started."""
        return [PREFORKD, "-c", str(self.home / "app.toml")]


class Gunicorn(Server):
    """gunicorn, configured by gunicorn.conf.py; a hook says when a worker is ready, which no log line does."""

    READY = re.compile(r"^ready (\d+)$")  # a line of its own, whoever has not ended his
    KIND = "sync"

    def configure(self, broken=False):
        """Write gunicorn.conf.py."""
        told = self.options
        settings = {
            "chdir": str(self.chdir), "worker_class": self.KIND, "workers": told["workers"], "threads": told["threads"],
            "preload_app": told["preload"], "timeout": told["timeout"], "graceful_timeout": told["graceful"],
            "max_requests": told["max_requests"], "max_requests_jitter": told["jitter"],
            "control_socket": str(self.home / "gunicorn.ctl"),
        }
        lines = [f"{key} = {value!r}\n" for key, value in settings.items()]
        # Where nobody hears it, it must not be what blocks or fails.
        hook = 'import os\n\n\ndef post_worker_init(worker):\n    os.write(2, b"\\nready %d\\n" % os.getpid())\n'
        text = "workers = = 3\n" if broken else "".join(lines) + hook * self.hooked
        (self.home / "gunicorn.conf.py").write_text(text)

    def command(self):
        """How it is started."""
        config = str(self.home / "gunicorn.conf.py")
        return [PYTHON, "-m", "gunicorn", "--config", config, "site_code:application"]


class Gthread(Gunicorn):
    """gunicorn with threads, which also keeps connections."""

    KIND = "gthread"

    def __init__(self, options, **more):
        super().__init__({"threads": 4, **options}, **more)


class Threads(Preforkd):
    """preforkd with threads and a template."""

    def __init__(self, options, **more):
        super().__init__({"threads": 4, "preload": True, **options}, **more)


class Front(Preforkd):
    """preforkd with the application behind two sites: one at the port, one with TLS at `secure`."""

    # Only the workers of the application count.
    READY = re.compile(r"app=web .*pid=(\d+): ready after")
    FRONT = re.compile(r"app=front .*pid=(\d+): ready after")

    def __init__(self, options, **more):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.secure = free.getsockname()[1]
        super().__init__({"fronts": 2, "sites": 0, **options}, **more)

    def configure(self, broken=False):
        """Write app.toml, and at first a certificate for each site."""
        others = [f"s{number}" for number in range(self.options["sites"])]
        for name in ("", *others):
            if not (self.home / f"cert{name}.pem").exists():
                self.certify(name)
        told = self.options
        app = {
            "wsgi": "site_code:application", "chdir": str(self.chdir), "python": PYTHON, "workers": told["workers"],
            "threads": told["threads"], "preload": told["preload"], "timeout": f"{told['timeout']}s",
            "graceful_timeout": f"{told['graceful']}s",
        }
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in app.items())
        sites = (
            '[site.plain]\nlisten = "fd:web"\napp = "web"\n'
            f'[site.secure]\nlisten = "127.0.0.1:{self.secure}"\napp = "web"\n'
            'tls = { cert = "cert.pem", key = "key.pem" }\n'
            f"[front]\nworkers = {told['fronts']}\n"
        )
        sites += "".join(
            f'[site.{name}]\nlisten = "127.0.0.1:{self.secure}"\nhosts = "{name}.example"\napp = "web"\n'
            f'tls = {{ cert = "cert{name}.pem", key = "key{name}.pem" }}\n'
            for name in others
        )
        text = "[app.web\n" if broken else "[app.web]\n" + lines + sites + "".join(told["more"])
        (self.home / "app.toml").write_text('[master]\ncontrol = "control.sock"\n' + text)

    def certify(self, name=""):
        """Put another key and certificate in the place of those of a site."""
        files = [self.home / f"{file}{name}" for file in ("key", "cert")]
        key, cert = (file.with_suffix(".new") for file in files)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=chaos", "-addext", f"subjectAltName=DNS:{name or 'a'}.example", "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )
        for file in files:
            file.with_suffix(".new").rename(file.with_suffix(".pem"))

    def fronts(self):
        """The workers of the front that live and were ready."""
        with self.more_lines:
            found = [self.FRONT.search(line) for line in self.lines if line]
        return [int(match[1]) for match in found if match and processes.alive(int(match[1]))]

    def family(self):
        """As before, and the workers of the front, which live elsewhere."""
        return list({*super().family(), *self.fronts()})

    def wait_full(self, limit=10.0, without=()):
        """As before, when there are as many workers of the front as wanted too."""
        if self.wait(lambda: len(set(self.fronts()) - set(without)) >= self.options["fronts"], limit) is None:
            return None
        return super().wait_full(limit, without)


SERVERS = {"preforkd": Preforkd, "preforkd threads": Threads, "gunicorn sync": Gunicorn, "gunicorn gthread": Gthread}
FRONTS = {"preforkd front": Front}
