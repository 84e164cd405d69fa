"""PEP 3333, sentence by sentence, for each way to run a worker."""

import io
import json
import os
import socket
import unittest
import urllib.parse

from client import Client, Closed
from heads import REFUSED
from manager import Worker
from readers import READERS, expected

OPTIONS = {}


class Wsgi:
    """The cases; subclasses say how the worker runs, and what its clients reach it through."""

    settings = {}
    # App, slot and generation of the worker.
    names = "web", 3, 2
    # What an application is told of the protocol of a client with HTTP/1.0.
    http_1_0 = "HTTP/1.0"
    # What comes of a `Connection: close` of the application.
    closing = "close"

    @classmethod
    def launch(cls, **settings):
        """What serves the application, with a worker that is ready."""
        return Worker(OPTIONS["extension"], "apps:application", python=OPTIONS["python"], **settings)

    @classmethod
    def setUpClass(cls):
        cls.worker = cls.launch(**cls.settings)

    @classmethod
    def tearDownClass(cls):
        cls.worker.__exit__()

    def client(self):
        client = Client(self.worker.connect())
        self.addCleanup(client.sock.close)
        return client

    def get(self, path, **arguments):
        return self.client().ask(path, **arguments)

    def environ(self, path="/environ", **arguments):
        return json.loads(self.get(path, **arguments).body)

    def seen(self):
        return self.get("/seen").body.decode().splitlines()

    def assertCloses(self, name, before):
        """close() was called once more. With threads the response may arrive a moment before that."""
        for _ in range(10000):
            if self.seen().count("closed " + name) > before:
                break
        self.assertEqual(self.seen().count("closed " + name), before + 1)

    def logged(self, text):
        self.assertIn(text, self.worker.read_log())

    def server(self):
        """Name and port of the server in the environ."""
        name, port = self.worker.address
        return name, str(port)

    def peer(self, client):
        """Address and port of a client in the environ."""
        host, port = client.sock.getsockname()
        return host, str(port)

    def target(self, sent):
        """The target in the environ of a request that was sent with this one."""
        return sent

    # environ

    def test_environ_has_what_the_pep_requires(self):
        environ = self.environ("/environ?a=b&c=%20")
        name, port = self.server()
        expected = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/environ",
            "QUERY_STRING": "a=b&c=%20",
            "RAW_URI": "/environ?a=b&c=%20",
            "REQUEST_URI": "/environ?a=b&c=%20",
            "SERVER_NAME": name,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "test",
            "wsgi.version": [1, 0],
            "wsgi.url_scheme": "http",
            "wsgi.multithread": self.settings["threads"] > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        self.assertEqual({key: environ.get(key) for key in expected}, expected)
        self.assertNotIn("CONTENT_LENGTH", environ)
        self.assertNotIn("CONTENT_TYPE", environ)

    def assertPeer(self, clients):
        """Each of them is told its own address and port, in turns, as they keep their connections."""
        for _ in range(3):
            for client in clients:
                environ = json.loads(client.ask("/environ").body)
                self.assertEqual((environ["REMOTE_ADDR"], environ.get("REMOTE_PORT")), self.peer(client))

    def test_remote_port_is_that_of_each_of_many_clients(self):
        self.assertPeer([self.client() for _ in range(300)])

    def test_remote_port_is_that_of_each_client_that_comes_and_goes(self):
        for _ in range(300):
            with self.client() as client:
                self.assertPeer([client])

    def test_remote_port_of_clients_whose_ports_are_kept_in_one_place(self):
        # Ports are kept by their number modulo 128; one number at two addresses is another client too.
        for _ in range(20):
            clients = [self.client()]
            number = clients[0].sock.getsockname()[1]
            try:
                for host, port in [("127.0.0.1", number - 128), ("127.0.0.2", number), ("127.0.0.2", number - 256), ("127.0.0.1", number - 1)]:
                    sock = socket.create_connection(self.worker.address, 30, (host, port))
                    self.addCleanup(sock.close)
                    clients.append(Client(sock))
            except OSError:
                continue  # somebody else has one of these ports
            return self.assertPeer(clients)
        self.fail("no free ports")

    def test_the_path_is_decoded_once_to_latin_1(self):
        self.assertEqual(self.environ("/a%20b%2Fc%2541/%C3%A9")["PATH_INFO"], "/a b/c%41/\xc3\xa9")

    def test_the_target_is_there_as_it_was_sent(self):
        for target, path in [
            ("/a%2Fb/c?d=%20", "/a/b/c"), ("/simple", "/simple"), ("/?", "/"), ("/%", "/%"), ("//a/../b", "//a/../b"),
            ("http://other:81/a%2fb?q", "/a/b"), ("http://other", "/"),
        ]:
            environ = self.environ(target)
            raw = self.target(target)
            self.assertEqual((environ["RAW_URI"], environ["REQUEST_URI"], environ["PATH_INFO"]), (raw, raw, path))

    def test_a_path_keeps_its_double_slash(self):
        self.assertEqual(self.environ("//a//b/")["PATH_INFO"], "//a//b/")

    def test_header_values_are_latin_1(self):
        self.assertEqual(self.environ(fields=[("X-Name", "\xe9\xff")])["HTTP_X_NAME"], "\xe9\xff")

    def test_repeated_headers_are_joined(self):
        fields = [("X-A", "1"), ("Cookie", "a=1"), ("x-a", "2"), ("cookie", "b=2"), ("X-A", "3")]
        environ = self.environ(fields=fields)
        self.assertEqual((environ["HTTP_X_A"], environ["HTTP_COOKIE"]), ("1,2,3", "a=1; b=2"))

    def test_headers_of_one_request_do_not_reach_the_next(self):
        with self.client() as client:
            client.ask("/environ", fields=[("X-Secret", "1"), ("Authorization", "Basic x")])
            environ = json.loads(client.ask("/environ").body)
        self.assertNotIn("HTTP_X_SECRET", environ)
        self.assertNotIn("HTTP_AUTHORIZATION", environ)

    def test_names_with_underscores_and_proxy_are_dropped(self):
        environ = self.environ(fields=[("X_Admin", "1"), ("Proxy", "http://evil"), ("X-Fine", "1")])
        self.assertEqual([key for key in environ if key in ("HTTP_X_ADMIN", "HTTP_PROXY", "HTTP_X_FINE")], ["HTTP_X_FINE"])

    def test_many_invented_names_work(self):
        for n in range(15):
            fields = [("X-%d-%d" % (n, i), str(i)) for i in range(90)] + [("X-%d-0" % n, "again")]
            environ = self.environ(fields=fields)
            self.assertEqual((environ["HTTP_X_%d_89" % n], environ["HTTP_X_%d_0" % n]), ("89", "0,again"))
        # No more names are kept now, but a field is one whatever its spelling.
        environ = self.environ(fields=[("x-0-0", "1"), ("X-0-0", "2"), ("x-0-0", "3")])
        self.assertEqual(environ["HTTP_X_0_0"], "1,2,3")
        name = "X-" + "long-" * 20
        self.assertEqual(self.environ(fields=[(name, "1"), (name.lower(), "2")])["HTTP_" + name.upper().replace("-", "_")], "1,2")

    def test_content_type_and_length(self):
        environ = self.environ(method="POST", body=b"abc", fields=[("Content-Type", "text/x")])
        self.assertEqual((environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]), ("text/x", "3"))
        self.assertFalse([key for key in environ if key.startswith("HTTP_CONTENT")])

    def test_the_host_of_an_absolute_target_wins(self):
        environ = self.environ("http://other:81/environ?q")
        self.assertEqual((environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"]), ("other:81", "/environ", "q"))

    def test_options_of_the_whole_server(self):
        self.assertEqual(self.environ("*", method="OPTIONS")["PATH_INFO"], "*")

    def test_unusual_methods_arrive(self):
        self.assertEqual(self.environ(method="BREW")["REQUEST_METHOD"], "BREW")

    def test_http_1_0(self):
        with self.client() as client:
            response = client.ask("/environ", version="1.0")
            self.assertEqual(json.loads(response.body)["SERVER_PROTOCOL"], self.http_1_0)
            self.assertEqual(response["Connection"], "close")
            self.assertTrue(client.is_closed())

    def test_http_1_0_keeps_the_connection_on_request(self):
        with self.client() as client:
            for _ in range(2):
                response = client.ask("/several", version="1.0", fields=[("Connection", "keep-alive")])
                self.assertEqual((response.body, response["Connection"]), (b"one two", "keep-alive"))

    def test_validator(self):
        for method, body in [("GET", None), ("POST", b"abc"), ("HEAD", None)]:
            response = self.get("/valid", method=method, body=body)
            self.assertEqual((response.status, response.body), ("200 OK", b"" if method == "HEAD" else b"valid"))

    # wsgi.input

    def post(self, expressions, body=b"one\ntwo\nthree"):
        return eval(self.get("/inputs?" + urllib.parse.quote(";".join(expressions)), method="POST", body=body).body)

    def test_read(self):
        self.assertEqual(self.post(["i.read(2)", "i.read(0)", "i.read()", "i.read()", "i.read(5)"]), [b"on", b"", b"e\ntwo\nthree", b"", b""])
        self.assertEqual(self.post(["i.read(-1)"]), [b"one\ntwo\nthree"])
        self.assertEqual(self.post(["i.read(None)"]), [b"one\ntwo\nthree"])

    def test_readline(self):
        self.assertEqual(self.post(["i.readline()", "i.readline(2)", "i.readline(-1)", "i.readline()", "i.readline()"]), [b"one\n", b"tw", b"o\n", b"three", b""])

    def test_readlines(self):
        self.assertEqual(self.post(["i.readlines()", "i.readlines()"]), [[b"one\n", b"two\n", b"three"], []])
        self.assertEqual(self.post(["i.readlines(5)"]), [[b"one\n", b"two\n"]])

    def test_iteration(self):
        self.assertEqual(self.post(["list(i)", "list(i)"]), [[b"one\n", b"two\n", b"three"], []])

    def test_empty_input(self):
        self.assertEqual(eval(self.get("/inputs?i.read();i.read(5);i.readline();i.readlines();list(i)").body), [b"", b"", b"", [], []])

    def test_input_is_a_buffered_reader(self):
        """As an `io.BufferedReader` over the same bytes, from memory and from a file."""
        expressions = [
            "[i.readable(),i.writable(),i.seekable(),i.isatty(),i.closed,i.flush()]",
            "[i.read1(2),i.read1(0),i.peek()[:1]]",
            "(lambda b:[i.readinto(b),bytes(b)])(bytearray(3))",
            "(lambda b:[i.readinto1(b),bytes(b)])(memoryview(bytearray(4))[1:3])",
            "(lambda b:[i.readinto(b),b.tolist()])(__import__('array').array('H',[0,0]))",
            "i.readinto(bytearray())",
            "isinstance(i,__import__('io').BufferedIOBase)",
            "len(i.read1())>0",
            "i.read()[-5:]",
            "[i.read(),i.read1(),i.peek(),i.readinto(bytearray(3))]",
            "[i.close(),i.close(),i.closed]",
        ]
        for body in (b"one\ntwo\nthree and more lines", b"line\n" * 200000):
            reader = io.BufferedReader(io.BytesIO(body))
            self.assertEqual(self.post(expressions, body), [eval(part, {"i": reader}) if "seekable" not in part else [True, False, False, False, False, None] for part in expressions])

    def test_input_in_the_wrappers_of_the_io_module(self):
        for wrapped, expected in (
            ("__import__('io').TextIOWrapper(i,'utf-8').read()", "hällo\nwörld"),
            ("list(__import__('io').TextIOWrapper(i,'utf-8'))", ["hällo\n", "wörld"]),
            ("__import__('io').BufferedReader(i,4).read(8)", "hällo\nw".encode()),
            ("__import__('codecs').getreader('utf-8')(i).read()", "hällo\nwörld"),
            ("[w.read()for(w)in[i.__enter__()]]", ["hällo\nwörld".encode()]),
        ):
            self.assertEqual(self.post([wrapped], "hällo\nwörld".encode()), [expected])

    def test_input_refuses_what_a_reader_refuses(self):
        failures = self.get("/refusals", method="POST", body=b"abc").body.decode().split()
        self.assertEqual(failures, ["UnsupportedOperation"] * 7 + ["TypeError"] * 2 + ["ValueError"] * 8)

    def test_a_closed_input_is_that_of_its_request_only(self):
        with self.client() as client:
            for _ in range(2):
                self.assertEqual(eval(client.ask("/inputs?[i.closed,i.read(),i.close(),i.closed]").body), [[False, b"", None, True]])

    def test_a_chunked_body_has_a_length(self):
        with self.client() as client:
            client.send(b"POST /environ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            environ = json.loads(client.receive().body)
            self.assertEqual(environ["CONTENT_LENGTH"], "5")
            self.assertNotIn("HTTP_TRANSFER_ENCODING", environ)
            client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            self.assertEqual(client.receive().body, b"5 abcde")

    def test_a_large_body_is_whole(self):
        body = os.urandom(1 << 16) * 48
        response = self.get("/read", method="POST", body=body)
        self.assertEqual(response.body, b"%d %s" % (len(body), body[:1000]))
        self.assertEqual(self.post(["len(i.readline())", "i.read(2)", "len(i.read())"], b"x" * 999999 + b"\n" + b"y" * 1000), [1000000, b"yy", 998])

    def test_a_body_cut_short_never_reaches_the_application(self):
        with self.client() as client:
            client.send(b"POST /closes HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            before = self.seen().count("closed closes")
            client.sock.shutdown(1)
            self.assertTrue(client.is_closed())
        self.assertEqual(self.seen().count("closed closes"), before)

    def test_a_body_that_is_too_large_is_refused(self):
        with self.client() as client:
            client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
            self.assertEqual(client.receive().status, "413 Content Too Large")

    def test_expect_100_continue(self):
        with self.client() as client:
            client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            self.assertEqual(client.receive().status, "100 Continue")
            client.send(b"abc")
            self.assertEqual(client.receive().body, b"3 abc")

    # bodies

    def test_a_list_gets_a_content_length(self):
        for path, body in [("/several", b"one two"), ("/tuple", b"one two"), ("/empty", b"")]:
            response = self.get(path)
            self.assertEqual((response.body, response["Content-Length"], response["Transfer-Encoding"]), (body, str(len(body)), None))

    def test_a_generator_is_chunked(self):
        response = self.get("/generator")
        self.assertEqual((response.body, response["Transfer-Encoding"], response["Content-Length"]), (b"one two", "chunked", None))

    def test_a_generator_ends_the_connection_in_http_1_0(self):
        response = self.get("/generator", version="1.0", fields=[("Connection", "keep-alive")])
        self.assertEqual((response.body, response["Transfer-Encoding"], response["Connection"]), (b"one two", None, "close"))

    def test_start_response_may_come_with_the_first_piece(self):
        response = self.get("/late")
        self.assertEqual((response.status, response.body), ("201 Created", b"late"))

    def test_a_piece_is_sent_before_the_next_is_made(self):
        with self.launch(**dict(self.settings, threads=4)) as worker:
            with Client(worker.connect()) as client, Client(worker.connect()) as other:
                client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertIn(b"waiting\n", client.until(b"waiting\n") + b"waiting\n")
                other.ask("/open")
                client.until(b"open\n")
                client.until(b"0\r\n\r\n")

    def test_write(self):
        self.assertEqual(self.get("/write").body, b"one two three")
        response = self.get("/write_sized")
        self.assertEqual((response.body, response["Content-Length"]), (b"one", "3"))

    def test_write_takes_bytes_only(self):
        self.assertEqual(self.get("/write_text").status[:3], "500")

    def test_close_is_called(self):
        for path in ("/closes", "/sized"):
            before = self.seen().count("closed " + path[1:])
            self.get(path)
            self.assertCloses(path[1:], before)

    def test_close_is_called_for_head(self):
        before = self.seen().count("closed closes")
        self.assertEqual(self.get("/closes", method="HEAD").body, b"")
        self.assertCloses("closes", before)

    def test_close_is_called_when_the_body_raises(self):
        before = self.seen().count("closed raises_in_body")
        with self.assertRaises(Closed):
            self.get("/raises_in_body")
        self.assertCloses("raises_in_body", before)

    def test_close_is_called_when_the_client_goes_away(self):
        before = self.seen().count("closed endless")
        with self.client() as client:
            client.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            client.until(b"xxx")
        self.assertCloses("endless", before)

    def test_an_error_in_close_does_not_spoil_the_response(self):
        with self.client() as client:
            self.assertEqual(client.ask("/raises_in_close").body, b"ok")
            self.assertEqual(client.ask("/several").body, b"one two")
        self.logged("close() of the response to GET /raises_in_close raised")

    def test_a_slow_reader_does_not_hold_others(self):
        slow = [self.client() for _ in range(8)]
        for client in slow:
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in slow:
            client.until(b"xxx")
        for _ in range(20):
            self.assertEqual(self.get("/several").body, b"one two")

    def test_a_large_response_is_whole(self):
        self.assertEqual(self.get("/large").body, b"x" * 5_000_000)

    def test_head_has_no_body(self):
        with self.client() as client:
            response = client.ask("/sized", method="HEAD")
            self.assertEqual(response["Content-Length"], "7")
            self.assertIsNone(client.ask("/generator", method="HEAD")["Content-Length"])
            self.assertEqual(client.ask("/several").body, b"one two")

    def test_204_205_and_304_have_no_body(self):
        with self.client() as client:
            response = client.ask("/reset_content")
            self.assertEqual((response.status, response["Content-Length"], response["Transfer-Encoding"]), ("205 Reset Content", "0", None))
            response = client.ask("/no_content")
            self.assertEqual((response.status, response["Content-Length"], response["Transfer-Encoding"]), ("204 No Content", None, None))
            response = client.ask("/not_modified")
            self.assertEqual((response["ETag"], response["Transfer-Encoding"]), ('"a"', None))
            self.assertEqual(client.ask("/several").body, b"one two")

    def test_a_body_shorter_than_its_length_is_cut_visibly(self):
        with self.client() as client:
            with self.assertRaises(Closed) as closed:
                client.ask("/too_short")
            self.assertEqual(closed.exception.args[0], b"short")

    def test_a_body_longer_than_its_length_is_cut(self):
        with self.client() as client:
            self.assertEqual(client.ask("/too_long").body, b"four")
            self.assertEqual(client.ask("/several").body, b"one two")

    # wsgi.file_wrapper

    def test_a_file_is_sent_from_its_position(self):
        response = self.get("/file")
        self.assertEqual(response["Content-Length"], "299990")
        self.assertEqual(response.body, b"0123456789" * 29999)

    def test_a_file_does_not_exceed_the_content_length(self):
        with self.client() as client:
            self.assertEqual(client.ask("/file_sized").body, b"0123")
            self.assertEqual(client.ask("/file_sized", method="HEAD")["Content-Length"], "4")
            self.assertEqual(client.ask("/several").body, b"one two")

    def test_something_like_a_file_is_read(self):
        before = self.seen().count("closed file_like")
        self.assertEqual(self.get("/file_like").body, b"like a file")
        self.assertCloses("file_like", before)

    def test_of_anything_that_can_be_read_what_read_gives_is_sent(self):
        with self.client() as client:
            for name in READERS:
                with self.subTest(name):
                    self.assertEqual(client.ask("/reader?" + name).body, expected(name))

    # errors

    def test_an_application_that_raises(self):
        for path in ("/raises", "/exits", "/interrupts", "/raises_after_start", "/none", "/not_iterable"):
            with self.subTest(path), self.client() as client:
                self.assertEqual(client.ask(path).status, "500 Internal Server Error")
                self.assertEqual(client.ask("/several").body, b"one two")
                self.logged("ERROR app=%s worker=%d gen=%d pid=%d: the application failed in GET %s: answering 500" % (*self.names, self.worker.pid, path))
        self.logged("ValueError: a deliberate error")
        self.logged("Traceback (most recent call last)")

    def test_a_body_that_raises_is_cut_visibly(self):
        with self.client() as client, self.assertRaises(Closed) as closed:
            client.ask("/raises_in_body")
        self.assertEqual(closed.exception.args[0], b"")
        with self.client() as client, self.assertRaises(Closed) as closed:
            client.ask("/raises_in_sized_body")
        self.assertEqual(closed.exception.args[0], b"begun")
        self.logged("in the middle of its response to GET /raises_in_sized_body")

    def test_a_body_that_raises_resets_the_connection_in_http_1_0(self):
        """Its orderly end would be the end of the body."""
        with self.client() as client:
            client.send(b"GET /raises_in_body HTTP/1.0\r\n\r\n")
            with self.assertRaises(ConnectionResetError):
                client.to_end()
        self.assertIn(b"begun", client.buffer)

    def test_exc_info_replaces_a_head_that_was_not_sent(self):
        response = self.get("/exc_info_before")
        self.assertEqual((response.status, response.body, response["X-First"]), ("503 Sorry", b"sorry", None))

    def test_exc_info_raises_again_when_the_head_was_sent(self):
        with self.client() as client, self.assertRaises(Closed):
            client.ask("/exc_info_after")
        self.logged("ValueError: raised again")

    def test_start_response_twice_is_an_error(self):
        self.assertEqual(self.get("/twice").status[:3], "500")

    def test_start_response_is_required(self):
        self.assertEqual(self.get("/never_starts").status[:3], "500")
        self.assertEqual(self.get("/never_starts_generator").status[:3], "500")

    def test_bodies_must_be_bytes(self):
        self.assertEqual(self.get("/text_body").status[:3], "500")
        self.assertEqual(self.get("/text_in_generator").status[:3], "500")
        self.logged("the application's body yields str, not bytes")

    def start(self, expression):
        from urllib.parse import quote

        return self.get("/start?" + quote(expression))

    def test_heads_that_are_fine(self):
        response = self.start("('299 Fine indeed', [('X-Latin', '\\xe9'), ('X-A', '1'), ('X-A', '2'), ('X-Empty', '')])")
        self.assertEqual((response.status, response.body, response["X-Latin"], response["X-Empty"]), ("299 Fine indeed", b"body", "\xe9", ""))
        self.assertEqual([value for name, value in response.fields if name == "X-A"], ["1", "2"])
        names = [name for name, _ in response.fields]
        self.assertEqual((names.count("Date"), names.count("Server"), response["Server"]), (1, 1, "preforkd"))
        self.assertEqual(self.start("('200', [])").status, "200 ")
        response = self.start("('200 OK', [('Date', 'x'), ('Server', 'y'), ('Connection', 'close')])")
        self.assertEqual((response["Date"], response["Server"], response["Connection"]), ("x", "y", self.closing))

    def test_fields_that_concern_one_connection_are_left_out(self):
        response = self.start(
            "('200 OK', [('transfer-encoding', 'chunked'), ('Upgrade', 'h2c'), ('TE', 'trailers'), ('Trailer', 'A'), ('Keep-Alive', '5'), ('X-A', '1')])")
        self.assertEqual((response.status, response.body, response["X-A"]), ("200 OK", b"body", "1"))
        left = {name.lower() for name, _ in response.fields} & {"transfer-encoding", "upgrade", "te", "trailer", "keep-alive"}
        self.assertEqual(left, set())
        self.logged("left the field transfer-encoding out of a response")

    # connections

    def test_pipelined_requests_are_answered_in_order(self):
        with self.client() as client:
            client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(200)))
            self.assertEqual([json.loads(client.receive().body)["PATH_INFO"] for _ in range(200)], ["/%d" % n for n in range(200)])

    def test_a_half_closed_connection_gets_its_answers(self):
        with self.client() as client:
            client.send(b"GET /several HTTP/1.1\r\nHost: a\r\n\r\nGET /generator HTTP/1.1\r\nHost: a\r\n\r\n")
            client.sock.shutdown(1)
            self.assertEqual((client.receive().body, client.receive().body), (b"one two", b"one two"))
            self.assertTrue(client.is_closed())

    def test_nothing_is_parsed_after_a_rejected_request(self):
        with self.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /several HTTP/1.1\r\nHost: a\r\n\r\n")
            response = client.receive()
            self.assertEqual((response.status, response["Connection"]), ("400 Bad Request", "close"))
            self.assertTrue(client.is_closed())

    def test_a_request_byte_by_byte(self):
        with self.client() as client:
            for byte in b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n":
                client.send(bytes([byte]))
            self.assertEqual(client.receive().body, b"2 ab")

    def test_threads_are_known_to_python(self):
        name, alive, main = json.loads(self.get("/process").body)["thread"]
        self.assertTrue(alive)
        self.assertEqual(main, self.settings["threads"] == 1)

    def test_the_process_is_as_the_contract_says(self):
        process = json.loads(self.get("/process").body)
        self.assertEqual(process["slot"], "3")
        self.assertEqual(sorted(process["environ"]), ["PREFORKD_APP", "PREFORKD_GENERATION", "PREFORKD_SLOT"])
        self.assertEqual(process["path"], self.worker.chdir)
        self.assertEqual(process["inheritable"], [])
        with open("/proc/%d/cmdline" % self.worker.pid) as cmdline, open("/proc/%d/comm" % self.worker.pid) as comm:
            self.assertEqual((cmdline.read().rstrip("\0"), comm.read()), ("preforkd: web/3 gen 2", "web/3\n"))

    def test_the_scoreboard_is_kept(self):
        before = self.worker.record()
        with self.client() as client:
            client.ask("/raises")
            client.ask("/several")
            client.ask("/seen")
        after = self.worker.record()
        self.assertEqual(after[0], self.worker.pid)
        self.assertEqual((after[2] - before[2] >= 2, after[3] - before[3], after[6]), (True, 1, 0))
        self.assertGreater(after[4], before[4])


def refusal(arguments):
    """A test that start_response does not take these."""

    def test(self):
        self.assertEqual(self.start(arguments).status, "500 Internal Server Error")

    return test


for wrong, arguments in REFUSED.items():
    setattr(Wsgi, "test_start_response_refuses_" + wrong, refusal(arguments))


class Inline(Wsgi, unittest.TestCase):
    settings = {"threads": 1, "preload": False}


class InlinePreloaded(Wsgi, unittest.TestCase):
    settings = {"threads": 1, "preload": True}


class Threads(Wsgi, unittest.TestCase):
    settings = {"threads": 4, "preload": False}


class ThreadsPreloaded(Wsgi, unittest.TestCase):
    settings = {"threads": 4, "preload": True}
