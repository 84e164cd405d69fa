"""What the Python programs of these tests serve and do. Each runs in the folder of its test.

The answer is the VERSION of the environment and the process. A request for /held says so to the test and waits until the test
lets it go on.
"""
import asyncio
import http.server
import os
import signal
import socket
import threading


def tell(text):
    """Tell the test what has happened."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as events:
        events.sendto(text.encode(), "events")


def hold(name):
    """Wait at the gate."""
    tell(f"held {name}")
    with open("gate", "rb", buffering=0) as gate:
        gate.read(1)


def notify(text):
    """What sd_notify(3) does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as master:
        address = os.environ["NOTIFY_SOCKET"]
        master.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def answer():
    """The body of an answer."""
    return f"{os.environ['VERSION']} {os.getpid()}".encode()


def application(environ, start_response):
    """For gunicorn (WSGI)."""
    if environ["PATH_INFO"] == "/held":
        hold("request")
    body = answer()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def echo(receive, send):
    """Sends back what a WebSocket client sends."""
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": event["text"]})
    tell("websocket ended")


async def events(receive, send):
    """Server-sent events: the head, an event when the test says so, a comment, and no end."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await asyncio.to_thread(hold, "event")
    for text in (b"data: 1\n\n", b": still here\n\n"):
        await send({"type": "http.response.body", "body": text, "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    tell("client left")


async def upload(receive):
    """Tells of each part of a body when it arrives."""
    while (event := await receive())["more_body"] or event["body"]:
        if event["body"]:
            tell(f"part {event['body'].decode()}")
        if not event["more_body"]:
            return


async def asgi(scope, receive, send):
    """For uvicorn (ASGI). It is ready when its startup is complete: the socket has listened all the time."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            notify("READY=1")
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    if scope["path"] == "/events":
        await events(receive, send)
        return
    if scope["path"] == "/upload":
        await upload(receive)
    if scope["path"] == "/held":
        await asyncio.to_thread(hold, "request")
    body = answer()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Handler(http.server.BaseHTTPRequestHandler):
    """For the server below."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/held":
            hold("request")
        body = answer()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve():
    """A small server by itself: it finishes its request when it is told to end."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=3)

    def end(*_):
        tell("term")
        # It must not be called on the thread that serves.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    tell("serves")
    server.serve_forever()


if __name__ == "__main__":
    serve()
