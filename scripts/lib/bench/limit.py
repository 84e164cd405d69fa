"""The limit that an application sets: called in a loop with a ready environ, no server. Run in the bench's Python:

    limit.py MODULE:NAME PATH SECONDS    prints calls per second, and microseconds of processor time for each
    limit.py MODULE:NAME PATH x1000      only makes so many calls
"""
import gc
import importlib
import io
import os
import sys
import time

BATCH = 50


def environ(path):
    """What a server hands to the application for wrk's request."""
    return {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": "none", "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000", "HTTP_HOST": "127.0.0.1:8000", "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "wsgi.multithread": False, "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def main():
    """Warm up, then count."""
    sys.path.insert(0, os.getcwd())
    module, _, name = sys.argv[1].partition(":")
    application = getattr(importlib.import_module(module), name)
    ready = environ(sys.argv[2])

    def start_response(status, headers, exc_info=None):
        return None

    def call():
        result = application(ready.copy(), start_response)
        for _ in result:
            pass
        if (close := getattr(result, "close", None)) is not None:
            close()

    # As preforkd does before it forks: what was imported is not looked at by the collector again.
    gc.collect()
    gc.freeze()
    if sys.argv[3].startswith("x"):
        for _ in range(int(sys.argv[3][1:])):
            call()
        return
    seconds = float(sys.argv[3])
    for _ in range(BATCH):
        call()
    calls, spent, start = 0, time.process_time(), time.perf_counter()
    end = start
    while end - start < seconds:
        for _ in range(BATCH):
            call()
        calls += BATCH
        end = time.perf_counter()
    print(calls / (end - start), (time.process_time() - spent) / calls * 1_000_000)


if __name__ == "__main__":
    main()
