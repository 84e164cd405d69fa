"""An application that handles signals itself. What its handlers do goes to the FIFO or file SEEN."""

import os
import signal
import sys
import threading

NAMES = ("TERM", "HUP", "USR1", "INT", "CHLD")


def note(text):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(text + "\n")


def handler(number, frame):
    note(signal.Signals(number).name)


def leaves(number, frame):
    sys.exit(3)


def fails(number, frame):
    raise ValueError("a handler that fails")


ORDERS = [getattr(signal, "SIG" + name) for name in ("HUP", "USR1", "USR2", "TTIN", "TTOU")]
IGNORED = [number.name for number in ORDERS if signal.getsignal(number) != signal.SIG_DFL]
signal.signal(signal.SIGUSR2, handler)
if "AT_IMPORT" in os.environ:
    signal.signal(signal.SIGTERM, handler)


def numbers():
    return [getattr(signal, "SIG" + name) for name in NAMES]


def restore():
    """What a library does around a section that must not be interrupted."""
    for number in numbers():
        signal.signal(number, signal.signal(number, handler))


def application(environ, start):
    path = environ["PATH_INFO"]
    main = threading.current_thread() is threading.main_thread()
    if path == "/restore":
        restore()
    elif path == "/replace":
        for number in numbers():
            signal.signal(number, handler)
    elif path == "/ignore":
        for number in numbers():
            signal.signal(number, signal.SIG_IGN)
    elif path in ("/leaves", "/fails"):
        signal.signal(signal.SIGTERM, globals()[path[1:]])
    elif path == "/asyncio":
        import asyncio

        async def take_signals():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, handler, signal.SIGUSR1, None)
            loop.remove_signal_handler(signal.SIGUSR1)

        asyncio.run(take_signals())
    start("200 OK", [("Content-Type", "text/plain")])
    if path == "/ignored":
        return [repr(IGNORED).encode()]
    if path == "/large":
        return [b"x" * (20 << 20)]
    if path == "/held":
        with open(os.environ["HOLD"]) as hold:
            hold.read()
    return [b"main" if main else b"other"]
