"""The applications under test; the path says which."""

import atexit
import io
import json
import os
import random
import signal
import sys
import tempfile
import threading
import urllib.parse
import wsgiref.validate

from readers import READERS

SEEN = []  # what happened, for /seen
PAUSE = threading.Event()  # never set
GATE = threading.Event()
FORKED = []
AT_IMPORT = random.random()
os.register_at_fork(after_in_child=lambda: FORKED.append("child"))
atexit.register(lambda: print("atexit ran", file=sys.stderr))

TEXT = [("Content-Type", "text/plain")]


class Body:
    """An iterable that notes its end."""

    def __init__(self, name, items):
        self.name = name
        self.items = iter(items)

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self):
        SEEN.append("closed " + self.name)


def shown(value):
    return value if isinstance(value, (str, int, bool, tuple, list)) else type(value).__name__


def environ_(environ, start):
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: shown(value) for key, value in environ.items()}).encode()]


def seen(environ, start):
    start("200 OK", TEXT)
    return ["\n".join(SEEN).encode()]


def read(environ, start):
    data = environ["wsgi.input"].read()
    start("200 OK", TEXT)
    return [b"%d %s" % (len(data), data[:1000])]


KEPT = []


def keep(environ, start):
    """Reads the input, and keeps it for ever."""
    data = environ["wsgi.input"].read()
    KEPT.append(environ["wsgi.input"])
    start("200 OK", TEXT)
    return [b"%d" % len(data)]


def inputs(environ, start):
    """Runs the expressions of the query over the input, one after the other."""
    results = [eval(part, {"i": environ["wsgi.input"]}) for part in urllib.parse.unquote(environ["QUERY_STRING"]).split(";")]
    start("200 OK", TEXT)
    return [repr(results).encode()]


def refusals(environ, start):
    """What a reader cannot do: the exceptions."""
    stream = environ["wsgi.input"]
    calls = [
        stream.fileno, lambda: stream.seek(0), stream.tell, lambda: stream.truncate(0), lambda: stream.write(b"x"),
        lambda: stream.writelines([b"x"]), stream.detach, lambda: stream.readinto(b"abc"), lambda: stream.readinto(None), stream.close,
        stream.read, stream.read1, stream.readline, lambda: stream.readinto(bytearray(1)), stream.readable, stream.flush,
        lambda: iter(stream), stream.__enter__,
    ]
    names = []
    for call in calls:
        try:
            call()
        except Exception as error:
            names.append(type(error).__name__)
    start("200 OK", TEXT)
    return [" ".join(names).encode()]


def several(environ, start):
    start("200 OK", TEXT)
    return [b"one ", b"", b"two"]


def tuple_(environ, start):
    start("200 OK", TEXT)
    return (b"one ", b"two")


def empty(environ, start):
    start("200 OK", TEXT)
    return []


def generator(environ, start):
    start("200 OK", TEXT)
    yield b""
    yield b"one "
    yield b"two"


def late(environ, start):
    yield b""
    start("201 Created", TEXT)
    yield b"late"


def sized(environ, start):
    start("200 OK", TEXT + [("Content-Length", "7")])
    return Body("sized", [b"one ", b"two"])


def closes(environ, start):
    start("200 OK", TEXT)
    return Body("closes", [b"x"])


def write(environ, start):
    out = start("200 OK", TEXT)
    out(b"one ")
    out(b"two ")
    return [b"three"]


def write_sized(environ, start):
    out = start("200 OK", TEXT + [("Content-Length", "3")])
    out(b"one")
    return []


def write_large(environ, start):
    start("200 OK", TEXT)(b"x" * 50_000_000)
    return []


def write_text(environ, start):
    start("200 OK", TEXT)("text")
    return []


def raises(environ, start):
    raise ValueError("a deliberate error")


def exits(environ, start):
    sys.exit(7)


def interrupts(environ, start):
    raise KeyboardInterrupt


def raises_after_start(environ, start):
    start("200 OK", TEXT)
    raise ValueError("a deliberate error")


def raises_in_body(environ, start):
    start("200 OK", TEXT)
    return Body("raises_in_body", [b"begun", ValueError("a deliberate error")])


def raises_in_sized_body(environ, start):
    start("200 OK", TEXT + [("Content-Length", "100")])
    return Body("raises_in_sized_body", [b"begun", ValueError("a deliberate error")])


def raises_in_close(environ, start):
    start("200 OK", TEXT + [("Content-Length", "2")])
    body = Body("raises_in_close", [b"ok"])

    class Wrapper:
        __iter__ = body.__iter__

        def close(self):
            raise ValueError("a deliberate error")

    return Wrapper()


def too_short(environ, start):
    start("200 OK", TEXT + [("Content-Length", "10")])
    return [b"short"]


def too_long(environ, start):
    start("200 OK", TEXT + [("Content-Length", "4")])
    return [b"four and more"]


def exc_info_before(environ, start):
    start("200 OK", TEXT + [("X-First", "1")])
    try:
        raise ValueError
    except ValueError:
        start("503 Sorry", TEXT, sys.exc_info())
    return [b"sorry"]


def exc_info_after(environ, start):
    start("200 OK", TEXT)
    yield b"begun"
    try:
        raise ValueError("raised again")
    except ValueError:
        start("500 Sorry", TEXT, sys.exc_info())
    yield b"never"


def twice(environ, start):
    start("200 OK", TEXT)
    start("200 OK", TEXT)
    return [b""]


def never_starts(environ, start):
    return [b"x"]


def never_starts_generator(environ, start):
    yield b"x"


def text_body(environ, start):
    start("200 OK", TEXT)
    return ["text"]


def text_in_generator(environ, start):
    start("200 OK", TEXT)
    yield "text"


def not_iterable(environ, start):
    start("200 OK", TEXT)
    return 5


def none(environ, start):
    start("200 OK", TEXT)


def start(environ, start):
    """Calls start_response with what the query says."""
    from urllib.parse import unquote

    arguments = eval(unquote(environ["QUERY_STRING"]))
    start(*arguments)
    return [b"body"]


def no_content(environ, start):
    start("204 No Content", [])
    return [b"not to be seen"]


def reset_content(environ, start):
    start("205 Reset Content", [])
    return iter([b"not to be ", b"seen"])


def not_modified(environ, start):
    start("304 Not Modified", [("ETag", '"a"'), ("Content-Length", "5")])
    return []


def file_(environ, start):
    file = tempfile.TemporaryFile()
    file.write(b"0123456789" * 30000)
    file.seek(10)
    start("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](reopened(file), 4096)


def reopened(file):
    copy = open("/proc/self/fd/%d" % file.fileno(), "rb")
    copy.seek(file.tell())
    return copy


def file_sized(environ, start):
    file = tempfile.TemporaryFile()
    file.write(b"0123456789")
    file.seek(0)
    start("200 OK", TEXT + [("Content-Length", "4")])
    return environ["wsgi.file_wrapper"](reopened(file))


def file_like(environ, start):
    start("200 OK", TEXT)

    class Like:
        def __init__(self, data):
            self.read = io.BytesIO(data).read

        def close(self):
            SEEN.append("closed file_like")

    return environ["wsgi.file_wrapper"](Like(b"like a file"), 4)


def reader(environ, start):
    start("200 OK", TEXT)
    make, _ = READERS[environ["QUERY_STRING"]]
    return environ["wsgi.file_wrapper"](make(), 4)


def large(environ, start):
    start("200 OK", TEXT)
    return [b"x" * 5_000_000]


def endless(environ, start):
    start("200 OK", TEXT)

    def items():
        while True:
            yield b"x" * 65536

    return Body("endless", items())


def forever(environ, start):
    """Events without an end, with a sign of life now and then; with ?much more than any client reads."""
    start("200 OK", TEXT)
    try:
        yield b"begun\n"
        while True:
            PAUSE.wait(0.02)
            yield b"x" * 65536 if environ["QUERY_STRING"] else b""
    finally:
        print("the stream was closed")


def wait(environ, start):
    """Answers once /open was called."""
    start("200 OK", TEXT)
    yield b"waiting\n"
    GATE.wait(20)
    yield b"open\n"


def block(environ, start):
    SEEN.append("blocking")
    GATE.wait(20)
    start("200 OK", TEXT)
    return [b"unblocked"]


def spin(environ, start):
    """Never leaves a function of C, nor lets another thread run."""
    sum(iter(int, 1))


def open_(environ, start):
    GATE.set()
    start("200 OK", TEXT)
    return [b""]


def offspring(environ, start):
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    start("200 OK", TEXT)
    return [b"%d" % child]


def process(environ, start):
    start("200 OK", [("Content-Type", "application/json")])
    thread = threading.current_thread()
    state = {
        "pid": os.getpid(),
        "slot": os.environ.get("PREFORKD_SLOT"),
        "environ": [key for key in os.environ if key.startswith(("PREFORKD", "LISTEN", "NOTIFY"))],
        "path": sys.path[0],
        "forked": len(FORKED),
        "random": random.random(),
        "at_import": AT_IMPORT,
        "thread": [thread.name, thread.is_alive(), thread is threading.main_thread()],
        "argv": sys.argv,
        "fds": len(os.listdir("/proc/self/fd")),
        "inheritable": [fd for fd in range(3, 50) if is_inheritable(fd)],
    }
    return [json.dumps(state).encode()]


def is_inheritable(fd):
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def plain(environ, start):
    start("200 OK", TEXT + [("Content-Length", "5")])
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return [b"valid"] if environ["REQUEST_METHOD"] != "HEAD" else []


valid = wsgiref.validate.validator(plain)


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").partition("/")[0]
    app = globals().get(name) or globals().get(name + "_") or environ_
    return app(environ, start_response)


answer = 42
