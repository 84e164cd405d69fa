"""An application that says half a line at its end."""

import atexit

atexit.register(print, "without an end", end="")


def application(environ, start_response):
    start_response("204 No Content", [])
    return []
