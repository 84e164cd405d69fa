"""Applications behind a site: what they know of their clients, and what a deploy means to these.

    python3 -m unittest discover -s tests/wsgi
"""
import http.client
import json
import unittest

from test_life import GUARD, Life
from harness import Preforkd


class BehindSite(Preforkd):
    """preforkd with an application that only a site reaches."""

    def configure(self, **app):
        app.pop("listen")
        super().configure(**app)
        site = '[site.demo]\nlisten = "fd:web"\nroutes = [{ path = "/shop", app = "demo" }, { path = "/api", app = "demo", strip_prefix = true }]\n'
        self.config.write_text(self.config.read_text() + site + "[front]\nworkers = 1\n")


class Sites(Life):
    def test_the_application_sees_the_client_and_a_deploy_keeps_its_connection(self):
        for threads, preload in ((1, False), (1, True), (4, False)):
            with self.subTest(threads=threads, preload=preload):
                server = self.launch(kind=BehindSite, wsgi="proxied:application", threads=threads, preload=preload, workers=2).ready()
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
                self.addCleanup(connection.close)

                def ask(path, **fields):
                    connection.request("GET", path, headers=fields)
                    return json.loads(connection.getresponse().read())

                lie = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.8"}
                address, _, *others = ask("/shop/a%20b?c", **lie)
                client = connection.sock.getsockname()
                host = f"127.0.0.1:{server.port}"
                self.assertEqual(address, "127.0.0.1")
                self.assertEqual(others[:6], ["http", host, "127.0.0.1", str(server.port), "", "/shop/a b"])
                # The prefix is a part of the URL that the application does not have to know.
                self.assertEqual(ask("/api/x")[6:8], ["/api", "/x"])
                server.reload()
                self.assertEqual(ask("/shop/b")[7], "/shop/b")
                self.assertEqual(connection.sock.getsockname(), client, "it is the same connection")
                connection.close()
                server.finish()


if __name__ == "__main__":
    unittest.main()
