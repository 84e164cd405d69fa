"""An application whose requests take 60 microseconds, but for those that last as long as somebody holds the FIFO LASTS open for
writing."""

import os
import time


def application(environ, start):
    path = environ["PATH_INFO"]
    end = time.perf_counter_ns() + 60000
    while time.perf_counter_ns() < end:
        pass
    if path in ("/lasts", "/dies"):
        with open(os.environ["LASTS"]) as lasts:
            lasts.read()
    if path == "/dies":
        os._exit(5)
    start("200 OK", [("Content-Type", "text/plain")])
    if path == "/pieces":
        return iter([b"one ", b"two"])
    return [path.encode()]
