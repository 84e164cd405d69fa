"""A Django site that asks its databases while it is imported and in each request: SQLite, and PostgreSQL with pools."""
import os
import threading

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.http import JsonResponse
from django.urls import path

FOLDER = os.environ["E2E_FOLDER"]
POOLED = {"ENGINE": "django.db.backends.postgresql", "HOST": FOLDER, "NAME": "postgres", "USER": "postgres", "OPTIONS": {"pool": True}}
settings.configure(
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{FOLDER}/db.sqlite3"},
        "pooled": POOLED, "warmed": POOLED, "unused": POOLED,
    },
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="not secret", USE_TZ=True, TIME_ZONE="UTC",
    LOGGING_CONFIG=None,
)
django.setup()
LOADER = os.getpid()
AT_FORK = []


def ask(alias, question):
    """The one value that a database answers."""
    with connections[alias].cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0]


def backend(alias="pooled"):
    """What is on the other side of a connection."""
    return ask(alias, "SELECT pg_backend_pid()")


def look():
    """What there is of the databases, before each fork."""
    files = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    AT_FORK.append({
        "open": [alias for alias in connections if connections[alias].connection],
        "threads": len(os.listdir("/proc/self/task")),
        "files": [file for file in files if file.startswith(FOLDER)],
    })


def facts(request):
    """What this worker has found."""
    return JsonResponse({
        "pid": os.getpid(), "loader": LOADER, "at_import": AT_IMPORT, "at_fork": AT_FORK, "backend": backend(), "sum": ask("default", "SELECT 1 + 1"),
    })


def warm():
    """A thread may have ended, and its pool still be there."""
    backend("warmed")
    connections.close_all()


urlpatterns = [path("", facts)]
application = get_wsgi_application()
os.register_at_fork(before=look)
ask("default", "SELECT 1")
AT_IMPORT = backend()
thread = threading.Thread(target=warm)
thread.start()
thread.join()
