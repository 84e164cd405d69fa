"""Applications behind a proxy: what they know of their clients, and that nobody else can say it.

    python3 -m unittest discover -s tests/wsgi      (with Django and what tests/requirements.txt lists)
"""
import http.client
import json
import socket
import struct
import unittest

from test_life import GUARD, Life

HTTPS = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example"}
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.2 5000 443\r\n"
# Version 2, with TLS between client and proxy.
TLS = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 20, bytes([203, 0, 113, 7]), bytes([192, 0, 2, 2]), 5000, 443) + b"\x20\0\x05\1\0\0\0\0"


class Proxies(Life):
    def get(self, server, path="/", fields=(), unix=None):
        """A connection, and the answer to a request on it."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        if unix:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(GUARD)
            connection.sock.connect(str(unix))
        connection.request("GET", path, headers=dict(fields))
        return connection.getresponse()

    def known(self, *arguments, **options):
        return json.loads(self.get(*arguments, **options).read())

    def raw(self, server, data):
        """All that comes back, until the connection ends."""
        with socket.create_connection(("127.0.0.1", server.port), GUARD) as sock:
            try:
                sock.sendall(data)
                return b"".join(iter(lambda: sock.recv(65536), b""))
            except ConnectionResetError:
                return b""

    def test_a_trusted_unix_socket_says_who_asks_and_the_access_log_shows_it(self):
        unix, log = self.folder / "web.sock", self.folder / "access.log"
        server = self.launch(
            wsgi="proxied:application", listen=["fd:web", f"unix:{unix}"], trusted_proxies=["unix"], prefix="/shop", access_log=str(log),
        ).ready()
        names = sorted("HTTP_" + name.upper().replace("-", "_") for name in HTTPS)
        self.assertEqual(
            self.known(server, "/shop/cart", HTTPS, unix),
            ["203.0.113.7", None, "https", "shop.example", "shop.example", "443", "/shop", "/cart", names])
        # The same from a peer that is none of ours.
        host = f"127.0.0.1:{server.port}"
        address, port, *others = self.known(server, "/shop/cart", HTTPS)
        self.assertEqual(address, "127.0.0.1")
        self.assertTrue(port.isdigit())
        self.assertEqual(others, ["http", host, "127.0.0.1", str(server.port), "/shop", "/cart", []])
        server.wait_log(r'removed the field X-Forwarded-For of a request from 127\.0\.0\.1.*trusted_proxies = \["127\.0\.0\.1"\]')
        server.finish()
        clients = [line.split()[0] for line in log.read_text().splitlines()]
        self.assertEqual(clients, ["203.0.113.7", "127.0.0.1"])

    def post(self, server, fields):
        """Sends Django's form as a browser does that has got it over https."""
        page = self.get(server, "/form", fields)
        cookie = page.getheader("Set-Cookie").split(";")[0]
        token, url, address = page.read().decode().split()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        origin = {"Origin": "https://shop.example", "Cookie": cookie, "X-CSRFToken": token, "Content-Length": "0"}
        connection.request("POST", "/form", headers={**fields, **origin})
        return connection.getresponse().status, url, address

    def test_a_form_of_django_behind_tls(self):
        fields = {"Host": "shop.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
        believed = (200, "https://shop.example/next", "203.0.113.7")
        removed = (403, "http://shop.example/next", "127.0.0.1")
        scheme = {"SCHEME": "HTTP_X_FORWARDED_PROTO", "PYTHONDONTWRITEBYTECODE": "1"}
        for trusted, env, expected in [
            (["127.0.0.0/8"], {}, believed), (["127.0.0.0/8"], scheme, believed),
            # Not even an application that believes the field itself sees it.
            ([], {}, removed), ([], scheme, removed),
        ]:
            server = self.launch(wsgi="form:application", trusted_proxies=trusted, env={"PYTHONDONTWRITEBYTECODE": "1", **env}).ready()
            self.assertEqual(self.post(server, fields), expected, (trusted, env))
            server.finish()

    def test_a_prefix_of_gunicorns_kind(self):
        env = {"SCRIPT_NAME": "/shop", "PYTHONDONTWRITEBYTECODE": "1"}
        server = self.launch(wsgi="proxied:application", env=env).ready()
        self.assertEqual(self.known(server, "/shop/cart")[-3:-1], ["/shop", "/cart"])
        server.finish()

    def test_connections_with_a_proxy_header(self):
        log = self.folder / "access.log"
        check = {"path": "/health", "attempts": 1, "timeout": "20s"}
        for threads in (1, 2):
            server = self.launch(
                wsgi="proxied:application", trusted_proxies=["127.0.0.1"], proxy_protocol=True, threads=threads, access_log=str(log),
                reload={"check": check},
            ).ready()
            request = b"GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n"
            for header, scheme in [(LINE, "http"), (TLS, "https")]:
                answer = self.raw(server, header + request)
                self.assertEqual(
                    json.loads(answer.partition(b"\r\n\r\n")[2]),
                    ["203.0.113.7", "5000", scheme, "shop.example", "192.0.2.2", "443", "", "/a", []])
            self.assertEqual(self.raw(server, request), b"")
            server.wait_log(r"closed a connection from 127\.0\.0\.1: no PROXY header")
            # The master's own check has none.
            self.assertNotIn("failed", server.reload().get("STATUS", ""))
            self.assertIn(b" 200 ", self.raw(server, LINE + request))
            server.finish()
        clients = [line.split()[0] for line in log.read_text().splitlines() if "/health" not in line]
        self.assertEqual(clients, ["203.0.113.7"] * 6)


if __name__ == "__main__":
    unittest.main()
