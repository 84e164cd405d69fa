"""The servers: how each is started with one worker on the first core, and when it serves."""
import http.client
import os
import shutil
import socket
import time
from pathlib import Path

from .places import APPS, BENCH, HERE, PREFORKD, PYTHON, on_core
from .static import FOLDER, nginx
from service import GUARD, Service, descendants

BASE = "gunicorn sync"
# No server but the least that one would have to do.
BARE = "bare loop"
# No server for applications, but the one that static files are compared with.
NGINX = "nginx"


def preforkd(threads=1):
    """One worker, as the defaults have it."""
    def command(app, name, _):
        application, folder = APPS[app]
        static = f'static = {{ "/static/" = "{FOLDER}/files" }}\n' if app == "static" else ""
        config = BENCH / f"{name.replace(' ', '-').replace('=', '-')}-{app}.toml"
        config.write_text(
            f'[app.bench]\nwsgi = "{application}"\nchdir = "{folder}"\npython = "{PYTHON}"\n'
            f'listen = ["fd:web"]\nworkers = 1\nthreads = {threads}\npreload = true\n'
            f"{static}"
        )
        return [PREFORKD, "-c", config]
    return command


def gunicorn(*options):
    """One worker of that class."""
    command = [PYTHON, "-m", "gunicorn", "--workers=1", "--log-level=warning", *options]
    return lambda app, *_: [*command, APPS[app][0]]


def runner(script):
    """One process that gets its socket from a script of ours."""
    return lambda app, *_: [PYTHON, HERE / script, APPS[app][0]]


def granian(app, _, port):
    """One worker with one thread for Python: with the default, many, it was a seventh as fast."""
    return [PYTHON, "-m", "granian", "--interface=wsgi", "--host=127.0.0.1", f"--port={port}", "--workers=1",
            "--blocking-threads=1", "--http=1", "--no-ws", "--log-level=warning", APPS[app][0]]


def uwsgi(protocol):
    """One process; its own HTTP, which ends each connection after an answer, or stays with one (http11)."""
    return lambda app, _, port: [
        PYTHON.parent / "uwsgi", f"--{protocol}=127.0.0.1:{port}", f"--module={APPS[app][0]}", "--master",
        "--processes=1", "--listen=1024", "--disable-logging", "--need-app", "--die-on-term", "--pythonpath=.",
    ]


def mod_wsgi(app, _, port):
    """Apache and one daemon process; Apache does not run applications as root."""
    module, _, name = APPS[app][0].partition(":")
    root = BENCH / f"mod_wsgi-{app}"
    shutil.rmtree(root, ignore_errors=True)
    return [
        PYTHON.parent / "mod_wsgi-express", "start-server", "--application-type=module", module,
        f"--callable-object={name}", "--host=127.0.0.1", f"--port={port}", "--processes=1", "--threads=1",
        "--keep-alive-timeout=10", f"--server-root={root}", f"--working-directory={APPS[app][1]}", "--log-to-terminal",
        f"--python-path={os.environ['PYTHONPATH']}",
        *(["--user=www-data", "--group=www-data"] if os.getuid() == 0 else []),
    ]


# Name: command for (app, name, port), whether the socket is handed over.
SERVERS = {
    "preforkd": (preforkd(), True),
    "preforkd threads=4": (preforkd(4), True),
    "bjoern": (runner("run_bjoern.py"), True),
    BARE: (runner("run_bare.py"), True),
    "granian": (granian, False),
    "uWSGI": (uwsgi("http-socket"), False),
    "uWSGI http11": (uwsgi("http11-socket"), False),
    "mod_wsgi": (mod_wsgi, False),
    "waitress": (runner("run_waitress.py"), True),
    "gunicorn gthread": (gunicorn("--worker-class=gthread", "--threads=4"), True),
    BASE: (gunicorn("--worker-class=sync"), True),
    NGINX: (nginx, False),
}
# Where the package that could not be installed is missed.
NEEDS = {"bjoern": "bjoern", "uwsgi": "uWSGI", "mod_wsgi": "mod_wsgi"}


def free_port():
    """A port that nobody listens on now: for servers that cannot be handed a socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Running:
    """A server that serves an application until `close`."""

    def __init__(self, name, app):
        self.name, self.app = name, app
        command, handed = SERVERS[name]
        port = None if handed else free_port()
        own = ["env", "-u", "LISTEN_FDS", "-u", "LISTEN_PID", "-u", "NOTIFY_SOCKET"] if port else []
        self.service = Service(on_core(0, [*own, *command(app, name, port)]), cwd=APPS[app][1])
        self.port = port or self.service.port
        try:
            self.wait(handed)
        except BaseException:
            self.close()
            raise

    def wait(self, handed):
        """Until it accepts. gunicorn is ready before its worker is: the first answer tells."""
        if handed:
            self.service.wait_notify("READY=1")
            return
        deadline = time.monotonic() + GUARD
        while True:
            if self.service.process.poll() is not None:
                raise AssertionError(f"{self.name} ended\n{self.service.report()}")
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.name} does not listen: {error}\n{self.service.report()}") from None
                time.sleep(0.01)

    def fetch(self, method, path, body=None):
        """Status and body of one answer."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GUARD)
        try:
            client.request(method, path, body=body)
            answer = client.getresponse()
            return answer.status, answer.read()
        except OSError as error:
            raise AssertionError(f"{self.name} does not answer {path}: {error}\n{self.service.report()}") from None
        finally:
            client.close()

    def spent(self):
        """Nanoseconds of processor time that all its processes have taken."""
        pids = [self.service.process.pid, *descendants(self.service.process.pid)]
        tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def close(self):
        """Nothing of it stays."""
        self.service.close()
