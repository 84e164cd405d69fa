"""The smallest WSGI application, so that the sample configurations beside it can be tried as they are."""

import os


def application(environ, start_response):
    body = f"Hello from worker {os.environ['PREFORKD_SLOT']}.\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
