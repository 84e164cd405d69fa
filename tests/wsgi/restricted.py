"""A site of Django that uses what many sites do, and tries what it may not. DATABASE is the path of its database."""
import errno
import multiprocessing
import os
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import zoneinfo
from datetime import datetime

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="x" * 50, ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="restricted", LOGGING_CONFIG=None, USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
)
django.setup()


def database():
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS seen (number INTEGER)")
        cursor.execute("INSERT INTO seen VALUES (7)")
        cursor.execute("SELECT number FROM seen")
        return cursor.fetchone()[0]


def thread():
    done = []
    other = threading.Thread(target=done.append, args=("thread",))
    other.start()
    other.join()
    return done[0]


def lock():
    with multiprocessing.Lock():
        return "held"


def temporary():
    with tempfile.TemporaryFile() as file:
        file.write(b"text")
        return file.tell()


def pair():
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"x")
        return other.recv(1).decode()


WORKS = {
    "database": database,
    "thread": thread,
    "lock": lock,
    "temporary": temporary,
    "pair": pair,
    "program": lambda: subprocess.run(["/bin/echo", "ran"], capture_output=True, check=True, text=True).stdout.strip(),
    "zone": lambda: datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")).tzname(),
    "name": lambda: bool(socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)),
    "certificates": lambda: ssl.create_default_context().verify_mode.name,
    "random": lambda: len(os.urandom(8)),
    "sqlite": lambda: sqlite3.connect(":memory:").execute("SELECT 1").fetchone()[0],
}


def raise_limit():
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


REFUSED = {
    "write": lambda: open("/var/tmp/preforkd-restricted", "w"),
    "read": lambda: open(os.environ["CLOSED"]),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "bind": lambda: socket.create_server(("127.0.0.1", 0)),
    "signal": lambda: os.kill(os.getppid(), 0),
    "chown": lambda: os.chown(os.environ["DATABASE"], 1, 1),
    "limit": raise_limit,
}


def attempt(act):
    try:
        act()
    except ValueError as error:
        # What the module resource says instead of EPERM.
        return "EPERM" if "not allowed" in str(error) else repr(error)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def all_of_it(request):
    facts = {name: work() for name, work in WORKS.items()}
    return JsonResponse({**facts, "refused": {name: attempt(act) for name, act in REFUSED.items()}})


def taken(request):
    return HttpResponse(str(len(request.body)))


urlpatterns = [path("", all_of_it), path("taken", taken)]
application = get_wsgi_application()
