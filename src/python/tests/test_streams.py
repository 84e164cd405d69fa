"""One request owns its thread from the call to the end of close(); slow clients hold no thread."""

import os
import signal
import socket
import tempfile
import threading

from case import Case
from client import Client, Closed

MEGABYTE = b"0123456789abcdef" * 65536


class Streams:
    """The cases; subclasses say how the worker runs."""

    way = {}

    def start(self, **settings):
        worker = self.worker("streams:application", **self.way, **settings)
        self.addCleanup(lambda: self.assertNotIn("AssertionError", worker.read_log()))
        return worker

    def receive_all(self, clients):
        """What they receive, all at the same time."""
        bodies = {}
        threads = [threading.Thread(target=lambda c=client: bodies.update({c: c.receive().body})) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [bodies.get(client) for client in clients]

    def ask(self, worker, path):
        return self.client(worker).ask(path)

    def begin(self, worker, path, mark=b"\r\n\r\n"):
        """A client that has seen the beginning of a response."""
        client = self.client(worker)
        client.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        client.until(mark)
        return client

    def fifo(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-")
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "fifo")
        os.mkfifo(path)
        return path

    def saves(self, worker, number=100):
        for _ in range(number):
            with Client(worker.connect()) as client:
                self.assertEqual(client.ask("/save").status, "200 OK", worker.read_log())

    def noted(self, worker, note, number=1):
        """Waits until the application has noted that."""
        client = self.client(worker)
        while client.ask("/notes").body.decode().splitlines().count(note) < number:
            pass

    def test_rows_of_streams_that_pause_belong_to_those_who_asked(self):
        worker = self.start()
        users = [b"user%d" % n for n in range(8)]
        clients = [self.client(worker) for _ in users]
        for client, user in zip(clients, users):
            client.send(b"GET /rows?%s HTTP/1.1\r\nHost: a\r\n\r\n" % user)
        for body, user in zip(self.receive_all(clients), users):
            self.assertEqual(body, b"row of %s\n" % user * 200)
        self.assertEqual(self.ask(worker, "/notes").body.count(b"rows closed on 1 thread"), 8)

    def test_every_kind_of_response_stays_on_its_thread_up_to_close(self):
        worker = self.start()
        with open(os.path.join(os.path.dirname(__file__), "streams.py"), "rb") as source:
            text = source.read()
        bodies = {"pieces": b"one two", "wrapped": b"one two", "written": b"one " * 20, "file": text}
        for _ in range(5):
            clients = {path: self.client(worker) for path in bodies}
            for path, client in clients.items():
                client.send(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
            self.saves(worker, 10)
            for path, client in clients.items():
                self.assertEqual(client.receive().body, bodies[path], path)
        for path in ("pieces", "wrapped", "written"):
            self.noted(worker, "%s closed on 1 thread" % path, 5)
        self.noted(worker, "file closed in file", 5)

    def test_a_response_that_raises_is_closed_before_the_next_request(self):
        worker = self.start()
        client = self.client(worker)
        client.send(b"GET /raises HTTP/1.1\r\nHost: a\r\n\r\n")
        self.saves(worker)
        with self.assertRaises(Closed):
            client.receive()
        self.noted(worker, "raises closed on 1 thread")

    def test_a_client_that_leaves_ends_the_response_and_harms_nobody(self):
        worker = self.start()
        for path in ("export", "silent"):
            self.begin(worker, "/" + path).sock.close()
            self.saves(worker)
            self.noted(worker, path + " closed on 1 thread")

    def test_a_client_that_resets_ends_a_stream_that_has_nothing_to_send(self):
        worker = self.start()
        client = self.begin(worker, "/silent")
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sock.close()
        self.saves(worker)
        self.noted(worker, "silent closed on 1 thread")

    def test_a_client_that_has_ended_its_side_gets_its_response(self):
        worker = self.start()
        client = self.client(worker)
        client.send(b"GET /rows?x HTTP/1.1\r\nHost: a\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(client.receive().body, b"row of x\n" * 200)

    def test_write_sends_while_the_application_goes_on(self):
        fifo = self.fifo()
        worker = self.start(env={"FIFO": fifo})
        client = self.begin(worker, "/gate", b"before ")
        with open(fifo, "w"):
            pass
        client.until(b"after")

    def test_write_raises_when_the_client_has_left(self):
        worker = self.start()
        self.begin(worker, "/writes").sock.close()
        self.saves(worker)
        self.noted(worker, "writes ended: the client has left")
        self.assertNotIn("Traceback", worker.read_log())

    def test_a_stream_is_finished_at_a_drain(self):
        for stop in (lambda worker: os.kill(worker.pid, signal.SIGTERM), lambda worker: worker.end_orders()):
            fifo = self.fifo()
            worker = self.start(env={"FIFO": fifo})
            client = self.begin(worker, "/stream_gate", b"before ")
            stop(worker)
            with open(fifo, "w"):
                pass
            client.until(b"after\r\n0\r\n\r\n")
            # A worker gives its clients a second to end their side.
            self.assertEqual(client.to_end(), b"")
            client.sock.close()
            self.assertEqual(worker.wait(), 0, worker.read_log())

    def test_a_worker_with_successors_says_in_the_middle_of_a_stream_that_it_stops(self):
        for stop in (lambda worker: os.kill(worker.pid, signal.SIGTERM), lambda worker: worker.end_orders()):
            worker = self.start()
            client = self.begin(worker, "/silent", b"one")
            worker.succeed()
            stop(worker)
            self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
            client.sock.close()
            self.assertEqual(worker.wait(), 0, worker.read_log())

    def test_a_child_that_is_forked_in_a_response_ends_where_it_comes_back(self):
        worker = self.start()
        for how, body, status in (("piece", b"one two", 0), ("close", b"one two", 0), ("write", b"zero one two", 4)):
            client = self.client(worker)
            for number in (1, 2):
                self.assertEqual(client.ask("/forks?" + how).body, body, how)
                self.noted(worker, "%s left with %d" % (how, status), number)
        self.assertEqual(worker.read_log().count("returned to the server"), 4, worker.read_log())

    def test_clients_that_do_not_read_hold_no_thread(self):
        worker = self.start()
        slow = [self.client(worker) for _ in range(8)]
        for number, client in enumerate(slow):
            path = b"large" if number % 2 else b"streamed"
            client.send(b"GET /%s?20 HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        self.saves(worker)
        self.noted(worker, "streamed closed on 1 thread", 4)
        for client in slow:
            self.assertTrue(client.receive().body == MEGABYTE * 20)

    def test_memory_is_bounded_and_beyond_the_file_the_thread_waits(self):
        worker = self.start(response_in_memory=65536, response_in_file=1 << 20)
        before = int(self.ask(worker, "/memory").body)
        client = self.begin(worker, "/streamed?60")
        end = b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            client.more()
            end = end[-20:] + client.take(len(client.buffer))
        self.noted(worker, "streamed closed on 1 thread")
        self.assertLess(int(self.ask(worker, "/memory").body) - before, 20000)

    def test_where_no_file_can_be_used_clients_that_do_not_read_hold_no_thread_either_and_one_warning_says_so(self):
        for folder in ("/nonexistent", self.full_folder()):
            worker = self.start(env={"TMPDIR": folder})
            slow = [self.client(worker) for _ in range(2)]
            for client in slow:
                client.send(b"GET /streamed?20 HTTP/1.1\r\nHost: a\r\n\r\n")
            self.saves(worker, 1)
            self.noted(worker, "streamed closed on 1 thread", 2)
            for client in slow:
                self.assertTrue(client.receive().body == MEGABYTE * 20)
            self.assertEqual(worker.read_log().count("could not write a temporary file in %s: " % folder), 1, worker.read_log())

    def test_all_responses_together_have_a_limit(self):
        worker = self.start(max_buffered=1 << 20)
        slow = [self.client(worker) for _ in range(6)]
        for client in slow:
            client.send(b"GET /large?12 HTTP/1.1\r\nHost: a\r\n\r\n")
        for body in self.receive_all(slow):
            self.assertTrue(body == MEGABYTE * 12)

    def test_a_request_that_waits_for_its_client_is_not_old(self):
        """The scoreboard says so: the master would take it for hanging."""
        worker = self.start(response_in_memory=65536, response_in_file=0)
        client = self.begin(worker, "/streamed?60")
        while worker.record()[6] != (1 << 63) - 1:
            self.assertNotEqual(worker.record()[7], 0)
        self.assertEqual(client.sock.close(), None)
        self.saves(worker, 1)


class Inline(Streams, Case):
    way = {"threads": 1}


class Pool(Streams, Case):
    way = {"threads": 4}


class Preloaded(Streams, Case):
    way = {"threads": 1, "preload": True}


class PreloadedPool(Streams, Case):
    way = {"threads": 4, "preload": True}
