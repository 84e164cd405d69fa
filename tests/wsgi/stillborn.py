"""An application whose workers die at their fork, before they can say who they are: at the first or the second."""
import os

from apps import facts as application  # noqa: F401

forks = 0


def born():
    global forks
    forks += 1
    if forks == int(os.environ["STILLBORN_AT"]):
        os._exit(7)


os.register_at_fork(after_in_child=born)
