"""An application that notes in the file EVENTS what it is told of a fork. The process in between dies of it while there is a file
DEADLY."""

import os

from apps import application  # noqa: F401

TEMPLATE = os.getpid()


def note(event):
    with open(os.environ["EVENTS"], "a") as events:
        events.write("%d %s\n" % (os.getpid(), event))


def child():
    note("child")
    if os.getppid() == TEMPLATE and os.path.exists(os.environ["DEADLY"]):
        os._exit(3)


os.register_at_fork(before=lambda: note("before"), after_in_parent=lambda: note("parent"), after_in_child=child)
