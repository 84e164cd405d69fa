"""An application that keeps things by thread, as Flask, sqlite3 and Django do, and finds out when another request gets there."""

import io
import os
import threading

LOCAL = threading.local()
NOTES = []  # paths and threads, for /notes
TEXT = [("Content-Type", "text/plain")]
PAUSE = threading.Event()  # never set


def pause(seconds):
    """The application takes its time."""
    PAUSE.wait(seconds)


class Body:
    """An iterable; from the call to the end of close() its thread belongs to one request."""

    def __init__(self, name, pieces):
        self.name, self.pieces = name, pieces
        self.threads = {threading.get_ident()}
        LOCAL.owner = self

    def __iter__(self):
        self.check()
        return self

    def check(self):
        self.threads.add(threading.get_ident())
        if getattr(LOCAL, "owner", None) is not self:
            raise AssertionError("%s on the thread of another request" % self.name)

    def __next__(self):
        self.check()
        piece = next(self.pieces)
        self.check()
        return piece

    def read(self, size):
        """As a file for wsgi.file_wrapper."""
        return next(self, b"")

    def close(self):
        self.check()
        pause(0.002)
        LOCAL.owner = None
        NOTES.append("%s closed on %d thread" % (self.name, len(self.threads)))


class Pieces(list):
    """A list with an end that is told."""

    def __init__(self, body):
        super().__init__(body)
        self.close = body.close


def rows(environ, start):
    """200 rows with pauses, of the user in the query."""
    start("200 OK", TEXT)
    user = environ["QUERY_STRING"].encode()
    return Body("rows", paused(b"row of %s\n" % user for _ in range(200)))


def paused(pieces):
    for piece in pieces:
        pause(0.001)
        yield piece


def pieces(environ, start):
    start("200 OK", TEXT)
    return Pieces(Body("pieces", iter([b"one ", b"two"])))


def wrapped(environ, start):
    start("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Body("wrapped", iter([b"one ", b"two"])))


class File(io.FileIO):
    """A real file whose end is told."""

    def close(self):
        if not self.closed:
            NOTES.append("file closed in %s" % LOCAL.owner)
            LOCAL.owner = None
        super().close()


def file(environ, start):
    start("200 OK", TEXT)
    LOCAL.owner = "file"
    return environ["wsgi.file_wrapper"](File(__file__))


def written(environ, start):
    write = start("200 OK", TEXT)
    body = Body("written", iter(()))
    for _ in range(20):
        pause(0.001)
        body.check()
        write(b"one ")
    return body


def raises(environ, start):
    start("200 OK", TEXT)

    def pieces():
        yield b"one"
        pause(0.005)
        raise ValueError("a deliberate error")

    return Body("raises", pieces())


def export(environ, start):
    """As long as a client is there."""
    start("200 OK", TEXT)
    return Body("export", paused(iter(lambda: b"x" * 1000, None)))


def silent(environ, start):
    """One piece, then nothing as long as a client is there."""
    start("200 OK", TEXT)

    def pieces():
        yield b"one"
        while True:
            pause(0.001)
            yield b""

    return Body("silent", pieces())


def writes(environ, start):
    """Writes as long as a client is there."""
    write = start("200 OK", TEXT)
    try:
        while True:
            write(b"x" * 1000)
    except BrokenPipeError as error:
        NOTES.append("writes ended: %s" % error.strerror)
        raise


def gate(environ, start):
    """Goes on when somebody opens the FIFO for writing."""
    write = start("200 OK", TEXT)
    write(b"before ")
    with open(os.environ["FIFO"]) as fifo:
        fifo.read()
    return [b"after"]


def stream_gate(environ, start):
    """The same in a generator, which sends one more piece then."""
    start("200 OK", TEXT)
    yield b"before "
    with open(os.environ["FIFO"]) as fifo:
        fifo.read()
    yield b"after"


def forks(environ, start):
    """Forks in the middle of the response, in the way that the query says; the child forgets to leave."""
    write = start("200 OK", TEXT)
    how = environ["QUERY_STRING"]
    pids = []

    class Forking:
        def __init__(self):
            self.pieces = iter([b"one ", b"two"])

        def __iter__(self):
            return self

        def __next__(self):
            piece = next(self.pieces)
            if how == "piece" and piece == b"two":
                pids.append(os.fork())
            return piece

        def close(self):
            if how == "close":
                pids.append(os.fork())
            for pid in filter(None, pids):
                NOTES.append("%s left with %d" % (how, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))

    if how == "write":
        write(b"zero ")
        pids.append(os.fork())
        if pids == [0]:
            try:
                write(b"child")
            except RuntimeError:
                os._exit(4)
    return Forking()


def large(environ, start):
    """As many megabytes as the query says, in one piece."""
    start("200 OK", TEXT)
    return [b"0123456789abcdef" * 65536 * int(environ["QUERY_STRING"])]


def streamed(environ, start):
    """The same in pieces."""
    start("200 OK", TEXT)
    return Body("streamed", (b"0123456789abcdef" * 65536 for _ in range(int(environ["QUERY_STRING"]))))


def memory(environ, start):
    """The most memory that this process had, in kB."""
    start("200 OK", TEXT)
    with open("/proc/self/status") as status:
        return [next(line for line in status if line.startswith("VmHWM")).split()[1].encode()]


def save(environ, start):
    if getattr(LOCAL, "owner", None) is not None:
        raise AssertionError("a request within another")
    start("200 OK", TEXT)
    return [b"saved"]


def notes(environ, start):
    start("200 OK", TEXT)
    return ["\n".join(NOTES).encode()]


def application(environ, start_response):
    if getattr(LOCAL, "owner", None) is not None:
        raise AssertionError("a request within another")
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
