"""The application that the scenarios are played with: it repeats the id that it was asked with, and notes each id.

The notes go to the file CHAOS_LOG, opened for appending: `asked ID PID` for each request, `began ID` and `closed ID own` or
`closed ID other` for each stream of rows, and `sick PID` for a worker that dies at its start, which each one does while there is
a file `sick`.
"""
import fcntl
import json
import os
import subprocess
import threading
import time
from urllib.parse import parse_qsl

NOTES = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
TALKS = "CHAOS_TALKS" in os.environ
PRESENT = threading.local()  # what belongs to the present request, as frameworks and database drivers keep it
REPEATED = 50  # times an answer says its id, so that it is long enough to be cut


def note(*words):
    """One line, in one piece whoever else writes."""
    os.write(NOTES, (" ".join(map(str, words)) + "\n").encode())


def check_up():
    """Die, if that is what workers do now."""
    if os.path.exists("sick"):
        note("sick", os.getpid())
        os._exit(1)


check_up()
os.register_at_fork(after_in_child=check_up)


def application(environ, start_response):
    """Whatever is asked for by the path; the answer is the id, line after line."""
    asked = dict(parse_qsl(environ["QUERY_STRING"]))
    note("asked", asked["id"], os.getpid())
    if TALKS:
        print("asked for", asked["id"], "x" * 100, file=environ["wsgi.errors"], flush=True)
    if environ["PATH_INFO"] == "/rows":
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
        return Rows(asked["id"], int(asked["number"]), float(asked["pause"]))
    body = PAGES[environ["PATH_INFO"]](asked) or (asked["id"] + "\n") * REPEATED
    head = [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))]
    if "pieces" in asked:
        start_response("200 OK", head)
        return pieces(body.encode(), int(asked["pieces"]))
    start_response("200 OK", [*head, ("Content-Length", str(len(body)))])
    return [body.encode()]


class Rows:
    """Rows of the user whose request this thread has, with pauses."""

    def __init__(self, ident, number, pause):
        PRESENT.ident, self.ident = ident, ident
        self.thread = threading.get_ident()
        self.left, self.pause = number, pause
        note("began", ident)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        time.sleep(self.pause)
        return (getattr(PRESENT, "ident", "nobody") + "\n").encode()

    def close(self):
        own = threading.get_ident() == self.thread and getattr(PRESENT, "ident", None) == self.ident
        note("closed", self.ident, "own" if own else "other")


def pieces(body, number):
    """The body, little by little."""
    size = -(-len(body) // number)
    for start in range(0, len(body), size):
        yield body[start:start + size]
        time.sleep(0.0005)


def slow(asked):
    """Take the time that was asked for: a millisecond, or for ever."""
    time.sleep(float(asked.get("seconds", "0.001")))


def leave(asked):
    """End the worker with this exit status."""
    os._exit(int(asked["status"]))


def descriptors(_):
    """What a program that the application starts would inherit but 0, 1 and 2: the descriptors and where they lead."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the listing's own
    return json.dumps(found)


def orphans(asked):
    """Leave grandchildren behind, which outlive their parents and then end: strangers to the master."""
    for _ in range(int(asked["number"])):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                time.sleep(0.3)
            os._exit(0)
        os.waitpid(child, 0)


def deaf(_):
    """Leave a child that does not end at SIGTERM."""
    child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; echo; exec sleep 1000"], stdout=subprocess.PIPE)
    child.stdout.readline()


def big(asked):
    """More than a socket takes at once."""
    return (asked["id"] + "\n") * 60000


PAGES = {"/big": big, "/deaf": deaf, "/echo": slow, "/exit": leave, "/descriptors": descriptors, "/orphans": orphans}
