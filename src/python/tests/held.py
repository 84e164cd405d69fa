"""An application whose requests are short, but for those that last as long as somebody holds the FIFO LASTS open for writing."""

import os


def application(environ, start):
    path = environ["PATH_INFO"]
    if path in ("/lasts", "/dies"):
        with open(os.environ["LASTS"]) as lasts:
            lasts.read()
    if path == "/dies":
        os._exit(5)
    start("200 OK", [("Content-Type", "text/plain")])
    if path == "/pieces":
        return iter([b"one ", b"two"])
    return [path.encode()]
