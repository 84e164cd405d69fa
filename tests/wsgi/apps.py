"""Applications for the tests of this folder."""
import atexit
import json
import os
import random
import signal
import sys
import threading

TEXT = [("Content-Type", "text/plain")]
# Drawn before any worker is forked from a template.
random.seed(1)


def facts(environ, start_response):
    """What a worker finds around it, at /held only after the test has opened the gate."""
    body = json.dumps({
        "pid": os.getpid(), "slot": os.environ["PREFORKD_SLOT"], "generation": os.environ["PREFORKD_GENERATION"],
        "app": os.environ["PREFORKD_APP"], "random": random.getrandbits(64), "cwd": os.getcwd(), "path": sys.path[0],
        "names": sorted(os.environ), "multithread": environ["wsgi.multithread"],
        "multiprocess": environ["wsgi.multiprocess"], "run_once": environ["wsgi.run_once"],
        "thread": threading.current_thread() is threading.main_thread(),
    }).encode()
    start_response("200 OK", TEXT)
    if environ["PATH_INFO"].startswith("/held"):
        gate = os.environ["E2E_GATE"] + environ["PATH_INFO"].removeprefix("/held").replace("/", "-")
        return held(body + b"\n", gate)
    if environ["PATH_INFO"] == "/exit":
        os._exit(7)
    if environ["PATH_INFO"] == "/print":
        atexit.register(print, "left in order")
        print("printed by the application")
        print("told to wsgi.errors", file=environ["wsgi.errors"])
    return [body]


def named(environ, start_response):
    """The name of the request."""
    start_response("200 OK", [*TEXT, ("X-Request-ID", "another")])
    return [environ["HTTP_X_REQUEST_ID"].encode()]


def held(first, gate):
    """Answer at once, go on when the gate is open."""
    yield first
    with open(gate) as gate:
        yield gate.read().encode()


def mortal(environ, start_response):
    """Notes each call beside the gate. If the file `kill` is there, the first worker that finds it dies in the middle of its call."""
    folder = os.path.dirname(os.environ["E2E_GATE"])
    with open(os.path.join(folder, "times"), "a") as times:
        times.write(environ["REQUEST_METHOD"] + "\n")
    try:
        os.unlink(os.path.join(folder, "kill"))
    except FileNotFoundError:
        start_response("200 OK", TEXT)
        return [b"alive"]
    os.kill(os.getpid(), signal.SIGKILL)
