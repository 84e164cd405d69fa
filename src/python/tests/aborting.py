"""An application that has a handler for SIGABRT."""

import os
import signal
import threading

ABORTED = threading.Event()
signal.signal(signal.SIGABRT, lambda *_: ABORTED.set())


def application(environ, start):
    os.kill(os.getpid(), signal.SIGABRT)
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"aborted, and goes on" if ABORTED.wait(20) else b"lost"]
