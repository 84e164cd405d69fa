"""An application whose requests are short, but for one that lasts as long as somebody holds the FIFO LASTS open for writing, and one that
ends the process."""

import os


def application(environ, start):
    path = environ["PATH_INFO"]
    if path == "/lasts":
        with open(os.environ["LASTS"]) as lasts:
            lasts.read()
    if path == "/dies":
        os._exit(5)
    start("200 OK", [("Content-Type", "text/plain")])
    return [path.encode()]
