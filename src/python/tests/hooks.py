"""An application that notes in the file EVENTS what it is told of a fork. The intermediate process dies of it while there is a file
DEADLY, or hangs if that is a FIFO, which it opens."""

import os
import time
from pathlib import Path

from apps import application  # noqa: F401

TEMPLATE = os.getpid()


def note(event):
    with open(os.environ["EVENTS"], "a") as events:
        events.write("%d %s\n" % (os.getpid(), event))


def child():
    note("child")
    deadly = Path(os.environ["DEADLY"])
    if os.getppid() != TEMPLATE or not deadly.exists():
        return
    if not deadly.is_fifo():
        os._exit(3)
    with deadly.open("w"):
        while True:
            time.sleep(1000)


os.register_at_fork(before=lambda: note("before"), after_in_parent=lambda: note("parent"), after_in_child=child)
