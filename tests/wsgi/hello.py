"""The least a WSGI application can do: what remains is the server's work."""

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "13")]


def application(environ, start_response):
    """Thirteen bytes."""
    start_response("200 OK", HEADERS)
    return [b"Hello, world\n"]
