"""Start, stop, limits and static files of a worker."""

import json
import os
import resource
import select
import signal
import socket
import tempfile
import unittest

from case import Case
from client import Client
from manager import GUARD


def mapping(path, **keys):
    """A mapping of static files as the manager writes it."""
    return {"path": path, "max_age": None, "immutable": False, "headers": {}, "index": "index.html", "fallthrough": False,
            "precompressed": [], "behind": [], **keys}


class Life(Case):
    def test_term_ends_an_idle_worker_with_its_exit_handlers(self):
        for settings in ({}, {"threads": 4}, {"preload": True}):
            worker = self.worker(**settings)
            self.assertStops(worker)
            self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
            self.assertIn("atexit ran", worker.read_log())
            self.assertEqual(worker.record()[1], 4)

    def test_term_finishes_requests_in_flight(self):
        worker = self.worker(threads=4)
        waiting, other = self.client(worker), self.client(worker)
        waiting.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        waiting.until(b"waiting\n")
        os.kill(worker.pid, signal.SIGTERM)
        self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
        response = other.ask("/open")
        self.assertEqual((response.status, response["Connection"]), ("200 OK", "close"))
        waiting.until(b"open\n")
        waiting.until(b"0\r\n\r\n")
        self.assertEqual(worker.wait(), 0)

    def test_term_answers_what_waits_in_the_accept_queue(self):
        for threads in (1, 4):
            worker = self.worker(threads=threads)
            os.kill(worker.pid, signal.SIGSTOP)
            clients = [self.client(worker) for _ in range(50)]
            for client in clients:
                client.send(b"GET /several HTTP/1.1\r\nHost: a\r\n\r\n")
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGCONT)
            responses = [client.receive() for client in clients]
            self.assertEqual({response.body for response in responses}, {b"one two"})
            # One turn of the loop may come before the signal is seen. It accepts one connection, and 16 more where that took long.
            self.assertEqual({response["Connection"] for response in responses[17:]}, {"close"})
            self.assertEqual(worker.wait(), 0)

    def test_an_idle_connection_may_ask_once_more(self):
        worker = self.worker()
        client = self.client(worker)
        client.ask("/several")
        os.kill(worker.pid, signal.SIGTERM)
        self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
        response = client.ask("/several")
        self.assertEqual((response.body, response["Connection"]), (b"one two", "close"))
        self.assertEqual(worker.wait(), 0)

    def test_a_connection_ends_though_a_child_of_the_application_holds_it(self):
        worker = self.worker()
        client = self.client(worker)
        client.send(b"GET /offspring HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        child = int(client.receive().body)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        self.assertEqual(client.to_end(), b"")

    def test_a_stuck_worker_ends_itself(self):
        worker = self.worker(graceful_timeout=0.1)
        self.client(worker).send(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
        while worker.record()[6] == 0:
            pass
        # Python runs no handler for a signal that comes just before it begins to wait for a lock, until that wait ends.
        while not worker.sleeps():
            pass
        self.assertEqual(worker.stop(), -signal.SIGALRM)

    def test_abrt_shows_the_stacks(self):
        worker = self.worker(threads=2)
        self.client(worker).send(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
        while "blocking" not in self.client(worker).ask("/seen").body.decode():
            pass
        record = worker.record()
        self.assertEqual((record[7] > 0, record[6] > 0, record[1]), (True, True, 3))
        line = b"".join(word.to_bytes(8, "little") for word in record[9:29])[: record[8]]
        self.assertEqual(line, b"GET /block")
        os.kill(worker.pid, signal.SIGABRT)
        self.assertEqual(worker.wait(), -signal.SIGABRT)
        self.assertIn("in block", worker.read_log())

    def test_an_import_error_is_shown_once(self):
        for preload in (False, True):
            for application, error in [
                ("nothing_of_that_name:application", "there is no module nothing_of_that_name"),
                ("apps:nothing", "has no attribute nothing"),
                ("apps:answer", "is not callable"),
                (":", "does not name an application"),
            ]:
                log = self.failed_start(application, preload=preload)
                self.assertEqual(log.count(error), 1, log)
                self.assertEqual(log.count("Traceback") <= 1, True, log)

    def test_int_stops_like_term(self):
        worker = self.worker()
        os.kill(worker.pid, signal.SIGINT)
        self.assertEqual(worker.wait(), 0)

    def test_connections_are_spread_over_idle_workers(self):
        worker, second = self.pair()
        for _ in range(100):
            self.client(worker).ask("/several")
        # Half each on a quiet machine; a worker that has to wait for a CPU leaves more to the other. With one that is always
        # woken last first, one of them would have none.
        for index in (9, 4):
            self.assertGreater(worker.record(index)[5], 4)

    def test_a_busy_worker_takes_no_connection_while_another_is_idle(self):
        for threads in (1, 2):
            worker, second = self.pair(threads=threads)
            blocked = [self.client(worker) for _ in range(threads)]
            # Keep-alive connections of one and the same worker, so that all of its threads are busy.
            first = json.loads(blocked[0].ask("/process").body)["pid"]
            while len(blocked) > 1 and json.loads(blocked[1].ask("/process").body)["pid"] != first:
                blocked[1] = self.client(worker)
            for client in blocked:
                client.send(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            record = worker.record(9 if first == worker.pid else 4)
            while record[7] < threads:
                record = worker.record(9 if first == worker.pid else 4)
            for _ in range(50):
                state = json.loads(self.client(worker).ask("/process").body)
                self.assertNotEqual(state["pid"], first)

    def test_unix_socket(self):
        worker = self.worker(unix=True)
        environ = json.loads(self.client(worker).ask("/environ").body)
        self.assertEqual((environ["REMOTE_ADDR"], environ["SERVER_NAME"], environ["SERVER_PORT"]), ("", "localhost", "80"))
        self.assertNotIn("REMOTE_PORT", environ)

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "no socket takes both families here")
    def test_a_client_of_ipv4_has_its_own_address_at_a_listener_for_both_families(self):
        worker = self.worker(dual=True)
        for host, remote in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
            with Client(socket.create_connection((host, worker.address[1]), GUARD)) as client:
                self.assertEqual(json.loads(client.ask("/environ").body)["REMOTE_ADDR"], remote)

    def test_timeouts(self):
        worker = self.worker(header_timeout=0.2, body_timeout=0.3, keepalive_timeout=0.4)
        silent, slow, head, body, idle = (self.client(worker) for _ in range(5))
        slow.send(b"GET / HTTP/1.1\r\nHost:")
        head.send(b"HEAD / HTTP/1.1\r\nHost:")
        body.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        idle.ask("/several")
        self.assertTrue(silent.is_closed())
        self.assertEqual(slow.receive().status, "408 Request Timeout")
        self.assertTrue(head.to_end().endswith(b"\r\n\r\n"), "no body where the method was HEAD")
        self.assertEqual(body.receive().status, "408 Request Timeout")
        self.assertTrue(idle.is_closed())

    def test_a_client_that_does_not_read_is_dropped(self):
        worker = self.worker(write_timeout=0.3)
        client = self.client(worker)
        client.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        while "closed endless" not in self.client(worker).ask("/seen").body.decode():
            pass

    def test_streams_without_an_end_are_closed_before_the_time_of_a_stop_is_over(self):
        for threads in (1, 4):
            for path in ("/forever", "/forever?much"):
                worker = self.worker(threads=threads, graceful_timeout=1)
                client = self.client(worker)
                client.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
                client.until(b"begun\n")
                os.kill(worker.pid, signal.SIGTERM)
                self.assertEqual(worker.wait(), 0)
                log = worker.read_log()
                self.assertIn("the stream was closed", log)
                self.assertIn("atexit ran", log)

    def test_a_response_that_was_not_taken_resets_the_connection_in_http_1_0(self):
        """Its orderly end would be the end of the body."""
        worker = self.worker(write_timeout=0.3)
        client = self.client(worker)
        client.send(b"GET /endless HTTP/1.0\r\n\r\n")
        while "closed endless" not in self.client(worker).ask("/seen").body.decode():
            pass
        with self.assertRaises(ConnectionResetError):
            client.to_end()

    def test_a_worker_that_is_killed_in_a_response_resets_the_connection_in_http_1_0(self):
        for threads in (1, 4):
            worker = self.worker(threads=threads)
            client = self.client(worker)
            client.send(b"GET /wait HTTP/1.0\r\n\r\n")
            client.until(b"waiting\n")
            os.kill(worker.pid, signal.SIGKILL)
            with self.assertRaises(ConnectionResetError):
                client.to_end()

    def test_a_worker_that_is_killed_while_it_sends_resets_the_connection_in_http_1_0(self):
        worker = self.worker()
        client = self.client(worker)
        client.send(b"GET /write_large HTTP/1.0\r\n\r\n")
        client.until(b"xxx")
        # The worker sees it only after it has found the client slow.
        self.client(worker).ask("/several")
        os.kill(worker.pid, signal.SIGKILL)
        with self.assertRaises(ConnectionResetError):
            client.to_end()

    def test_many_slow_clients_do_not_stop_the_others(self):
        worker = self.worker()
        slow = [self.client(worker) for _ in range(200)]
        for client in slow:
            client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        self.assertEqual(self.client(worker).ask("/several").body, b"one two")
        for client in slow:
            client.send(b"cde")
        for client in slow:
            self.assertEqual(client.receive().body, b"5 abcde")

    def test_no_more_connections_than_the_limit(self):
        worker = self.worker(max_connections=4)
        clients = [self.client(worker) for _ in range(4)]
        for client in clients:
            client.ask("/several")
        fifth = self.client(worker)
        fifth.send(b"GET /several HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients * 5:
            client.ask("/several")
        self.assertEqual(select.select([fifth.sock], [], [], 0)[0], [])
        self.assertEqual(worker.record()[5], 4)
        clients[0].sock.close()
        self.assertEqual(fifth.receive().body, b"one two")

    def test_static_files(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        content = os.urandom(3_000_000)
        with open(os.path.join(folder.name, "large.bin"), "wb") as file:
            file.write(content)
        with open(os.path.join(folder.name, "small.css"), "w") as file:
            file.write("body {}")
        for threads in (1, 4):
            worker = self.worker(threads=threads, static={"/static/": mapping(folder.name)})
            client = self.client(worker)
            response = client.ask("/static/large.bin")
            self.assertEqual((response.body == content, response["Content-Type"]), (True, "application/octet-stream"))
            response = client.ask("/static/large.bin", fields=[("Range", "bytes=1000000-2000000")])
            self.assertEqual((response.status, response.body == content[1000000:2000001]), ("206 Partial Content", True))
            response = client.ask("/static/small.css")
            self.assertEqual((response.body, response["Content-Type"]), (b"body {}", "text/css; charset=utf-8"))
            self.assertEqual(client.ask("/static/small.css", fields=[("If-None-Match", response["ETag"])]).status, "304 Not Modified")
            self.assertEqual(client.ask("/static/../apps.py").status[:3], "404")
            for name, body in (("large.bin", content), ("small.css", b"body {}")):
                last = len(body) - 1
                response = client.ask(f"/static/{name}", fields=[("Range", f"bytes={last}-,0-2")])
                boundary = response["Content-Type"].partition("boundary=")[2].encode()
                parts = [part.partition(b"\r\n\r\n")[2] for part in response.body.split(b"\r\n--" + boundary)]
                self.assertEqual((response.status, parts), ("206 Partial Content", [b"", body[last:], body[:3], b""]))
            self.assertEqual(client.ask("/several").body, b"one two")

    def test_the_application_gets_what_falls_through(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        with open(os.path.join(folder.name, "index.html"), "w") as file:
            file.write("index")
        for threads in (1, 4):
            worker = self.worker(threads=threads, static={"/": mapping(folder.name, fallthrough=True)})
            client = self.client(worker)
            for path, body in (("/", b"index"), ("/several", b"one two"), ("/index.html", b"index"), ("/several", b"one two")):
                self.assertEqual(client.ask(path).body, body)

    def test_a_folder_that_is_not_there_is_named(self):
        log = self.failed_start(static={"/static/": mapping("/nothing/here")})
        self.assertIn("could not enter a folder of static files as user ", log)
        self.assertIn("/nothing/here: No such file or directory", log)

    def test_without_descriptors_the_worker_waits_and_recovers(self):
        worker = self.worker()
        first = self.client(worker)
        used = json.loads(first.ask("/process").body)["fds"]
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (used + 2, 1024))
        clients = [self.client(worker) for _ in range(8)]
        for client in clients:
            client.send(b"GET /several HTTP/1.1\r\nHost: a\r\n\r\n")
        while "could not accept a connection" not in worker.read_log():
            self.assertEqual(first.ask("/several").body, b"one two")
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        for client in clients:
            self.assertEqual(client.receive().body, b"one two")
        self.assertEqual(worker.read_log().count("could not accept a connection"), 1)

    def test_descriptors_do_not_leak(self):
        worker = self.worker()
        first = json.loads(self.client(worker).ask("/process").body)["fds"]
        for _ in range(100):
            with Client(worker.connect()) as client:
                client.ask("/file", fields=[("Connection", "close")])
        while worker.record()[5] > 1:
            self.client(worker).ask("/several", fields=[("Connection", "close")])
        with Client(worker.connect()) as client:
            self.assertLessEqual(json.loads(client.ask("/process").body)["fds"], first + 2)
