"""A WSGI application that shows what it is told of a request, for the tests of proxies."""
import json


def application(environ, start_response):
    """The environ and the length of the body, as JSON; as many bytes as the query says after that."""
    body = environ["wsgi.input"].read()
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    text = json.dumps({**shown, "length": len(body)}).encode() + b"\n"
    answer = text + b"x" * int(environ["QUERY_STRING"] or 0)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
