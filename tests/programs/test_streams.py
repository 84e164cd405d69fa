"""What flows through a site to a program: WebSocket, server-sent events, and bodies that are passed on while they arrive."""
import base64
import hashlib
import json
import os
import socket
import ssl
import subprocess

from stand import GUARD, Preforkd, ProgramCase, free_port, needs, needs_module

SITE = """
[app.other]
command = ["sleep", "1d"]
ready = "exec"
env = {{ VERSION = {version} }}
[site.demo]
listen = "fd:web"
routes = [{{ path = "/upload", app = "demo", stream = true }}, {{ path = "/gone", answer = {gone} }}, {{ path = "/", app = "demo" }}]
[site.secure]
listen = "127.0.0.1:{secure}"
app = "demo"
tls = {{ cert = "cert.pem", key = "key.pem" }}
[front]
workers = 1
"""


def make_certificate(folder):
    """A certificate for localhost, signed by itself."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    command = [*command.split(), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True)


class BehindSite(Preforkd):
    """preforkd with a program that only a site reaches, and with another one."""

    gone = 404

    def configure(self, **app):
        version = json.dumps(app["env"]["VERSION"])
        app = {key: value for key, value in app.items() if key != "listen"}
        app["env"] = {**app["env"], "VERSION": "v1"}
        if not hasattr(self, "secure"):
            self.secure = free_port()
            make_certificate(self.config.parent)
        super().configure(**app)
        self.config.write_text(self.config.read_text() + SITE.format(version=version, secure=self.secure, gone=self.gone))


class Raw:
    """A client that sees every byte when it comes."""

    def __init__(self, port, text, authority=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=GUARD)
        if authority:
            context = ssl.create_default_context(cafile=authority)
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""
        self.send(text.encode())

    def send(self, data):
        self.socket.sendall(data)

    def take(self, length):
        while len(self.buffer) < length:
            data = self.socket.recv(4096)
            assert data, f"the end: {self.buffer}"
            self.buffer += data
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def read_to(self, end):
        """What comes up to the end of this."""
        data = b""
        while not data.endswith(end):
            data += self.take(1)
        return data.decode()

    def frame(self, text):
        """Sends a text as WebSocket does (RFC 6455 section 5.2), and reads one."""
        data, mask = text.encode(), os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        self.send(bytes([0x81, 0x80 | len(data)]) + mask + masked)
        kind, length = self.take(2)
        assert kind == 0x81 and length < 126, (kind, length)
        return self.take(length).decode()


class Streams(ProgramCase):
    """uvicorn behind a site."""

    kind = BehindSite

    def launch_it(self):
        needs("openssl")
        needs_module("websockets")
        command = [*needs_module("uvicorn"), "site_code:asgi", "--fd", "{fd}", "--log-level", "warning"]
        return self.launch(command=command, reload={"when": "on-change"}).ready()

    def ask(self, server, text, secure=False):
        client = Raw(server.secure, text, self.folder / "cert.pem") if secure else Raw(server.port, text)
        self.addCleanup(client.socket.close)
        return client

    def end(self, server):
        self.finish(server, perhaps=["as root", "no app uses"])

    def open_websocket(self, server, secure):
        key = base64.b64encode(os.urandom(16)).decode()
        client = self.ask(server, f"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                  f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n", secure)
        head = client.read_to(b"\r\n\r\n")
        self.assertTrue(head.startswith("HTTP/1.1 101 "), head)
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
        self.assertIn(f"sec-websocket-accept: {accept}\r\n", head.lower().replace(accept.lower(), accept))
        self.assertEqual(client.frame("hello"), "hello")
        return client

    def test_websocket_connections_go_on_while_another_app_is_deployed(self):
        server = self.launch_it()
        clients = [self.open_websocket(server, secure) for secure in (False, True)]
        for version in ("v2", "v3"):
            self.configure(server, env={"VERSION": version})
            self.renew(server)
            for client in clients:
                self.assertEqual(client.frame(version), version)
        plain, secure = clients
        plain.socket.close()
        self.event("websocket ended")
        # Both sides say that they have ended.
        secure.socket.unwrap().close()
        self.event("websocket ended")
        self.end(server)

    def test_websocket_connections_go_on_while_the_site_changes(self):
        server = self.launch_it()
        client = self.open_websocket(server, False)
        server.gone = 410
        self.configure(server)
        server.reload()
        # The workers of the new site serve; the old ones end when their last connection does.
        answer = self.ask(server, "GET /gone HTTP/1.1\r\nHost: a\r\n\r\n").read_to(b"\r\n\r\n")
        self.assertTrue(answer.startswith("HTTP/1.1 410 "), answer)
        self.assertEqual(client.frame("still"), "still")
        client.socket.close()
        self.event("websocket ended")
        self.wait_left(server)
        self.end(server)

    def test_events_come_when_they_are_sent_and_end_when_the_client_leaves(self):
        server = self.launch_it()
        client = self.ask(server, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        head = client.read_to(b"\r\n\r\n")
        self.assertIn("content-type: text/event-stream\r\n", head.lower())
        self.event("held event")
        self.open_gate()
        client.read_to(b"data: 1\n\n")
        client.read_to(b": still here\n\n")
        client.socket.close()
        self.event("client left")
        self.end(server)

    def test_a_body_is_passed_on_while_it_arrives(self):
        server = self.launch_it()
        client = self.ask(server, "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(client.read_to(b"\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n")
        for part in ("one", "two"):
            client.send(f"3\r\n{part}\r\n".encode())
            self.event(f"part {part}")
        client.send(b"0\r\n\r\n")
        self.assertTrue(client.read_to(b"\r\n\r\n").startswith("HTTP/1.1 200 "))
        self.end(server)
