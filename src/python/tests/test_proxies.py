"""What stands in the environ behind a proxy."""

import json
import pathlib
import socket

from case import Case
from client import Client
from test_life import mapping


class Prefix(Case):
    def environ(self, worker, path):
        environ = json.loads(self.client(worker).ask(path).body)
        return environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["RAW_URI"]

    def test_a_prefix_is_the_script_name_and_not_in_the_path(self):
        for threads in (1, 2):
            worker = self.worker(prefix="/shop", threads=threads)
            for target, path in [
                ("/shop/cart", "/cart"), ("/shop/a%2Fb?q", "/a/b"), ("/%73hop/cart", "/cart"), ("/shop", ""), ("/shop/", "/"),
                ("/shop//a", "//a"), ("/shop/shop/a", "/shop/a"), ("http://a/shop/cart", "/cart"),
                # Not below it: a proxy has removed it.
                ("/cart", "/cart"), ("/", "/"), ("/shopping", "/shopping"), ("/Shop/cart", "/Shop/cart"),
            ]:
                self.assertEqual(self.environ(worker, target), ("/shop", path, target))

    def test_a_prefix_has_the_bytes_of_its_encoding(self):
        worker = self.worker(prefix="/größe")
        self.assertEqual(self.environ(worker, "/gr%C3%B6%C3%9Fe/x")[:2], ("/gr\xc3\xb6\xc3\x9fe", "/x"))

    def test_static_files_have_the_path_of_the_url(self):
        here = str(pathlib.Path(__file__).parent)
        worker = self.worker(prefix="/shop", static={"/shop/static/": mapping(here)})
        client = self.client(worker)
        self.assertEqual(client.ask("/shop/static/run.py").status, "200 OK")
        self.assertEqual(json.loads(client.ask("/static/run.py").body)["PATH_INFO"], "/static/run.py")


class Trusted(Case):
    KEYS = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO")
    FIELDS = [
        ("X-Forwarded-For", "6.6.6.6, 1.1.1.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "a.example"),
        ("X-Forwarded-Port", "8443"), ("X-Forwarded-Prefix", "/shop"),
    ]

    def serve(self, **settings):
        return self.worker(trusted_proxies=["127.0.0.1/32", "10.0.0.0/8"], **settings)

    def environ(self, worker, fields, path="/x", source="127.0.0.1"):
        sock = socket.create_connection(worker.address, 30, (source, 0))
        with Client(sock) as client:
            return json.loads(client.ask(path, fields=fields).body)

    def known(self, *arguments, **options):
        environ = self.environ(*arguments, **options)
        return tuple(environ.get(key) for key in self.KEYS)

    def test_a_trusted_proxy_says_who_asks_and_for_which_url(self):
        for threads in (1, 2):
            worker = self.serve(threads=threads)
            self.assertEqual(
                self.known(worker, self.FIELDS),
                ("1.1.1.1", None, "https", "a.example", "8443", "a.example:8443", "/shop", "/x"))
            self.assertEqual(
                self.known(worker, [("Forwarded", 'for="[2001:db8::1]:99";proto=https;host="[2001:db8::2]:81"')]),
                ("2001:db8::1", "99", "https", "[2001:db8::2]", "81", "[2001:db8::2]:81", "", "/x"))
            # The next request on such a connection, and one without these fields, is as ever.
            with Client(worker.connect()) as client:
                client.ask("/x", fields=self.FIELDS)
                environ = json.loads(client.ask("/x").body)
            self.assertEqual(environ["REMOTE_ADDR"], "127.0.0.1")
            self.assertTrue(environ["REMOTE_PORT"].isdigit())
            self.assertEqual((environ["wsgi.url_scheme"], environ["SCRIPT_NAME"], environ["HTTP_HOST"]), ("http", "", "test"))

    def test_the_fields_stay_for_an_application_that_reads_them(self):
        environ = self.environ(self.serve(), self.FIELDS)
        self.assertEqual(environ["HTTP_X_FORWARDED_PROTO"], "https")

    def test_a_forwarded_prefix_is_removed_from_the_path_if_it_is_there(self):
        worker = self.serve(prefix="/own")
        fields = [("X-Forwarded-Prefix", "/a%20b/")]
        for path, info in [("/a%20b/x", "/x"), ("/x", "/x"), ("/own/x", "/own/x"), ("/", "/")]:
            self.assertEqual(self.known(worker, fields, path=path)[-2:], ("/a b", info))
        self.assertEqual(self.known(worker, [], path="/own/x")[-2:], ("/own", "/x"))
        self.assertEqual(self.known(worker, [("X-Forwarded-Prefix", "/")], path="/x")[-2:], ("", "/x"))

    def test_what_a_stranger_says_is_removed_and_the_log_says_so_once(self):
        for worker, source in [(self.serve(), "127.0.0.2"), (self.worker(), "127.0.0.1")]:
            fields = self.FIELDS + [("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6"), ("X-Other", "1")]
            for _ in range(2):
                environ = self.environ(worker, fields, source=source)
                self.assertEqual((environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]), (source, "http", "test"))
                self.assertEqual(environ["SCRIPT_NAME"], "")
                self.assertEqual([key for key in environ if "FORWARDED" in key or "REAL" in key], [])
                self.assertEqual(environ["HTTP_X_OTHER"], "1")
            log = worker.read_log()
            self.assertEqual(log.count("removed the field"), 1, log)
            self.assertIn('trusted_proxies = ["%s"]' % source, log)

    def test_only_the_fields_that_a_proxy_sets_are_believed(self):
        worker = self.serve(forwarded_fields=["X-Forwarded-For", "X-Forwarded-Proto"])
        fields = self.FIELDS + [("Forwarded", "for=6.6.6.6;proto=http"), ("X-Forwarded-User", "root"), ("X-Other", "1")]
        environ = self.environ(worker, fields)
        self.assertEqual(
            tuple(environ.get(key) for key in self.KEYS if key != "SERVER_NAME"),
            ("1.1.1.1", None, "https", "443", "test", "", "/x"))
        left = sorted(key for key in environ if "FORWARDED" in key or "OTHER" in key)
        self.assertEqual(left, ["HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_OTHER"])

    def test_a_contradiction_is_refused(self):
        worker = self.serve()
        with Client(worker.connect()) as client:
            fields = [("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=6.6.6.6")]
            self.assertEqual(client.ask("/x", fields=fields).status, "400 Bad Request")
        # What to do about it.
        self.assertIn("forwarded_fields = [", worker.read_log())
