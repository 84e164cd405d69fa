"""Reload and crash under load: no request may be lost that the server could have kept."""
import hashlib
import os
import signal
import unittest

from browser import Browser
from harness import SiteCase, data, environ, site
from load import Load
from strict import Connection


class Reload:
    """The cases, for each kind of worker below."""

    reloads = 10

    def test_reloads_lose_no_request(self):
        with Load(self.site.port) as load:
            first = load.workers[-1][1]
            for number in range(1, self.reloads + 1):
                self.site.reload()
                # The new generation serves, and nobody was left behind.
                load.wait_generation(first + number)
                load.wait_round()
        self.assertFalse(load.lost, f"{len(load.lost)} lost, {load.answered} answered")
        slots = {slot for slot, _, _ in load.workers}
        self.assertEqual(len(slots), 2, "a slot is kept by its replacement")

    def test_what_is_being_served_is_finished_by_the_old_workers(self):
        streamed = Browser(self.site.port)
        self.addCleanup(streamed.connection.close)
        stream = streamed.open("GET", "/gated")
        self.assertEqual(stream.readline(), b"before the gate\n")
        body = os.urandom(2_000_000)
        upload = Connection(self.site.port)
        self.addCleanup(upload.socket.close)
        head = f"POST /digest HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        upload.socket.sendall(head.encode() + body[:1_000_000])
        with Load(self.site.port) as load:
            first = load.workers[-1][1]
            self.site.send(signal.SIGHUP)
            self.site.wait_notify("RELOADING=1")
            load.wait_generation(first + 1)
            with open(data() / "gate", "w") as gate:
                gate.write("after the gate\n")
            self.assertEqual(stream.read(), b"after the gate\n")
            upload.socket.sendall(body[1_000_000:])
            answer = upload.read_answer()
            self.assertEqual((answer.status, answer.body.decode()), (200, hashlib.sha256(body).hexdigest()))
            self.assertEqual(answer.headers["x-generation"], str(first))
            self.site.wait_notify("READY=1")
        self.assertFalse(load.lost, f"{len(load.lost)} lost, {load.answered} answered")

    def test_idle_connections_are_closed_in_order(self):
        connection = Connection(self.site.port)
        self.addCleanup(connection.socket.close)
        self.assertEqual(connection.request("/echo?id=1").body, b"1")
        self.site.reload()
        self.assertEqual(connection.socket.recv(1), b"", "an end, neither a reset nor a hang")

    def test_killed_worker_is_replaced_and_takes_only_its_own_requests_along(self):
        with Load(self.site.port) as load:
            victim = load.workers[-1]
            slot, _, killed = victim
            self.site.expect(rf"\bpid={killed}\b")
            start = len(self.site.log)
            os.kill(killed, signal.SIGKILL)
            load.wait_worker(
                lambda *worker: worker[:2] == victim[:2] and worker != victim, f"a replacement of worker {slot}"
            )
            load.wait_round()
        self.site.wait_log(rf"\bpid={killed}\b", start)
        for client in load.clients:
            # A client has one connection: only one can have been the dead worker's.
            self.assertLessEqual(len(client.lost), 1, client.lost)
            for pid, reason in client.lost:
                self.assertIn(pid, (killed, None), reason)
                # Never refused, never a wrong answer: the listener and the other worker live on.
                self.assertRegex(reason, "closed after|ConnectionResetError|BrokenPipeError")


class Broken(unittest.TestCase):
    """A site whose views cannot be imported."""

    def test_a_mistake_in_the_addresses_refuses_the_start(self):
        settings = {"DJANGO_SETTINGS_MODULE": "e2e.broken"}
        variables = {key: value for key, value in environ(data()).items() if os.environ.get(key) != value}
        with self.assertRaisesRegex(AssertionError, r"(?s)ended instead of.*imports e2e\.nowhere, which is missing \(looked in "):
            site(env={**variables, **settings})


class InlineWorkers(Reload, SiteCase):
    """The usual form: one thread, forked from a template."""

    options = {"threads": 1, "preload": True}


class ThreadedWorkers(Reload, SiteCase):
    """A pool of threads, and each worker loads the application itself."""

    options = {"threads": 4, "preload": False}
    reloads = 3  # each imports Django twice, under load


if __name__ == "__main__":
    unittest.main()
