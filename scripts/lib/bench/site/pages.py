"""Plain WSGI pages that make the server work, and one that makes the interpreter work."""
import os
import time

TEXT = ("Content-Type", "text/plain")
LARGE = b"0123456789abcde\n" * 6400
PIECE = b"0123456789abcde\n" * 4096
PIECES = 160


def body(environ, start_response):
    """100 kB at once."""
    start_response("200 OK", [TEXT, ("Content-Length", str(len(LARGE)))])
    return [LARGE]


def stream(environ, start_response):
    """10 MB in pieces of 64 kB, the length not told."""
    start_response("200 OK", [TEXT])
    return (PIECE for _ in range(PIECES))


def post(environ, start_response):
    """How long the body is, all of it read."""
    length = len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    answer = b"%d\n" % length
    start_response("200 OK", [TEXT, ("Content-Length", str(len(answer)))])
    return [answer]


def cpu(environ, start_response):
    """About a millisecond of Python."""
    total = 0
    for number in range(20_000):
        total += number & 7
    answer = b"%d\n" % total
    start_response("200 OK", [TEXT, ("Content-Length", str(len(answer)))])
    return [answer]


def pid(environ, start_response):
    """Who answers; with a number as query after so many seconds."""
    if environ["QUERY_STRING"]:
        time.sleep(float(environ["QUERY_STRING"]))
    answer = b"%d\n" % os.getpid()
    start_response("200 OK", [TEXT, ("Content-Length", str(len(answer)))])
    return [answer]


PAGES = {"/body": body, "/stream": stream, "/post": post, "/cpu": cpu, "/pid": pid}


def application(environ, start_response):
    """The page that was asked for."""
    return PAGES[environ["PATH_INFO"]](environ, start_response)
