"""An application whose workers die at their fork, before they can say who they are: at the first or the second. With
STILLBORN_HANGS they hang instead, as long as there is that FIFO, and open it."""
import os
import time

from apps import facts as application  # noqa: F401

forks = 0


def born():
    global forks
    forks += 1
    if forks != int(os.environ["STILLBORN_AT"]):
        return
    hangs = os.environ.get("STILLBORN_HANGS")
    if hangs is None:
        os._exit(7)
    if os.path.exists(hangs):
        with open(hangs, "w"):
            while True:
                time.sleep(1000)


os.register_at_fork(after_in_child=born)
