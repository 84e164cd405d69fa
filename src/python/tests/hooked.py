"""Hooks that note in the file EVENTS where they run; one of them fails if FAILS names it."""

import os
import threading
import time

from signalling import application  # noqa: F401


def note(event):
    with open(os.environ["EVENTS"], "a") as events:
        events.write("%s %d %s\n" % (event, os.getpid(), os.environ.get("PREFORKD_SLOT", "-")))
    assert threading.current_thread() is threading.main_thread()
    if os.environ.get("FAILS") == event:
        raise LookupError("a hook that fails")


def before_fork():
    note("before_fork")


def after_fork():
    note("after_fork")


def worker_start():
    note("worker_start")
    threading.Thread(target=time.sleep, args=(1000,), daemon=True, name="exporter").start()


def worker_stop():
    note("worker_stop")
    assert any(thread.name == "exporter" for thread in threading.enumerate())
