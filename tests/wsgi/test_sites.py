"""Applications behind a site: what they know of their clients, and what a deploy means to these.

    python3 -m unittest discover -s tests/wsgi
"""
import http.client
import json
import os
import pathlib
import select
import signal
import subprocess
import threading
import time
import unittest

from test_life import GUARD, Life
from harness import PREFORKD, Preforkd


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


    def ask_on(self, connection, method="GET", path="/", body=None):
        """The facts of the worker that answers on this connection."""
        connection.request(method, path, body)
        response = connection.getresponse()
        text = response.read()
        self.assertEqual(response.status, 200, text)
        return json.loads(text)

    def connect(self, server):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        return connection

    def test_no_request_waits_for_a_busy_worker_while_another_is_idle(self):
        for threads, preload, fronts in ((1, False, 1), (1, True, 1), (2, True, 1), (1, False, 2), (2, True, 2)):
            with self.subTest(threads=threads, preload=preload, fronts=fronts):
                server = self.launch(kind=Whole, fronts=fronts, threads=threads, preload=preload, workers=2).ready()
                # Both workers are known to the front, and connections to both are kept.
                kept, seen = [self.connect(server) for _ in range(4)], set()
                # A worker that does not begin its first request at once gets none for a moment, as the other one is idle.
                deadline = time.monotonic() + GUARD
                while len(seen) < 2:
                    self.assertLess(time.monotonic(), deadline, "one worker gets all requests")
                    seen.update(self.ask_on(connection)["pid"] for connection in kept)
                held = []
                for number in range(threads):
                    path = f"/held/{number}"
                    if not (self.folder / f"gate-{number}").exists():
                        os.mkfifo(self.folder / f"gate-{number}")
                    response = self.open(server, path)
                    held.append((response, json.loads(response.readline())["pid"]))
                if threads == 1:
                    others = seen - {held[0][1]}
                    for _ in range(50):
                        self.assertIn(self.ask_on(kept[0])["pid"], others)
                else:
                    # The request goes where fewest run.
                    self.assertEqual({pid for _, pid in held}, seen)
                for number, (response, _) in enumerate(held):
                    with open(self.folder / f"gate-{number}", "w") as gate:
                        gate.write("end")
                    self.assertEqual(response.read(), b"end")
                server.finish()

    def test_a_killed_master_leaves_no_client_without_an_answer(self):
        server = self.launch(kind=Whole, queue={"timeout": "1h"}).ready()
        connection = self.connect(server)
        worker = os.pidfd_open(self.ask_on(connection)["pid"])
        self.addCleanup(os.close, worker)
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", "6")
        connection.endheaders(b"abc")
        server.process.kill()
        # The front waits for the rest of the request; the worker of the application has nothing to wait for.
        self.assertEqual(select.select([worker], [], [], GUARD)[0], [worker])
        connection.send(b"def")
        response = connection.getresponse()
        self.assertEqual((response.status, response.getheader("Connection")), (503, "close"))
        server.close()

    def test_what_finds_no_room_in_the_queue_is_told_to_come_back(self):
        server = self.launch(kind=Whole, queue={"length": 1, "timeout": "60s"}).ready()
        held = self.open(server, "/held")
        held.readline()
        waiting = self.connect(server)
        waiting.request("GET", "/")
        refused, tries = None, 0
        while refused is None:
            # Until the other one waits, this one does, and gives its place up.
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1)
            connection.request("GET", "/")
            try:
                response = connection.getresponse()
                refused = response.status, response.getheader("Retry-After")
            except TimeoutError:
                tries += 1
                self.assertLess(tries, GUARD)
            connection.close()
        self.assertEqual(refused, (503, "1"))
        self.release("end")
        self.assertEqual(held.read(), b"end")
        self.assertEqual(waiting.getresponse().status, 200)
        server.expect("too many requests wait for it; answering 503")
        server.finish()

    def front_of(self, connection):
        """The worker of the front that has accepted a connection, by the socket that is its other end."""
        near, far = connection.sock.getpeername()[1], connection.sock.getsockname()[1]
        rows = [row.split() for row in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        socket = next(row[9] for row in rows if (row[1], row[2]) == (f"0100007F:{near:04X}", f"0100007F:{far:04X}"))
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if any(os.readlink(fd) == f"socket:[{socket}]" for fd in (process / "fd").iterdir()):
                    return int(process.name)
            except OSError:
                pass  # It has ended, is not ours, or has closed a descriptor.
        raise AssertionError("nobody has it")

    def refuse(self, server, connection):
        """When a request waits, there is no room for another one, which comes over this connection."""
        command = [PREFORKD, "-c", server.config, "metrics"]
        while b'preforkd_upstream_queue_length{upstream="demo"} 1\n' not in subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=GUARD).stdout:
            pass
        connection.request("POST", "/", b"x")
        response = connection.getresponse()
        response.read()
        self.assertEqual((response.status, response.getheader("Retry-After")), (503, "1"))

    def test_all_workers_of_the_front_have_one_queue_and_one_place_for_each_thread(self):
        server = self.launch(kind=Whole, fronts=2, queue={"length": 1, "timeout": "60s"}).ready()
        server.expect("too many requests wait for it; answering 503")
        by_front = {}
        while len(by_front) < 2 or min(map(len, by_front.values())) < 2:
            connection = self.connect(server)
            self.ask_on(connection)
            by_front.setdefault(self.front_of(connection), []).append(connection)
        ((_, (first, spare, *_)), (killed, (other, *_))) = by_front.items()
        first.request("GET", "/held")
        held = first.getresponse()
        held.readline()
        # It waits, as the other worker of the front has the only place, and the queue is full for that one too.
        left = self.folder / "gate-left"
        os.mkfifo(left)
        gate = os.open(left, os.O_RDWR)
        other.request("POST", "/held/left", b"x")
        self.refuse(server, spare)
        self.release("end")
        self.assertEqual(held.read(), b"end")
        files = pathlib.Path("/proc") / str(json.loads(other.getresponse().readline())["pid"]) / "fd"
        # The other way round; and the worker that has the place is killed.
        first.request("POST", "/held", b"x")
        self.refuse(server, spare)
        while not any(os.readlink(fd) == str(left) for fd in files.iterdir()):
            pass
        os.kill(killed, signal.SIGKILL)
        server.expect("killed by SIGKILL")
        os.close(gate)
        response = first.getresponse()
        response.readline()
        self.release("end")
        self.assertEqual(response.read(), b"end")
        server.finish()

    def test_a_deploy_under_load_loses_no_request(self):
        for fronts in (1, 2):
            with self.subTest(fronts=fronts):
                server = self.launch(kind=Whole, fronts=fronts, workers=2).ready()
                stop, failed, generations = threading.Event(), [], set()

                def load():
                    connection = self.connect(server)
                    while not stop.is_set():
                        try:
                            generations.add(self.ask_on(connection, "POST", body=b"x")["generation"])
                        except Exception as error:
                            failed.append(error)
                            return

                clients = [threading.Thread(target=load) for _ in range(4)]
                for client in clients:
                    client.start()
                try:
                    for _ in range(3):
                        server.reload()
                finally:
                    stop.set()
                    for client in clients:
                        client.join(GUARD)
                self.assertEqual(failed, [])
                self.assertLessEqual({"1", "2", "3"}, generations | {"3"})
                server.finish()

    def test_a_worker_that_dies_costs_no_request_that_may_be_repeated(self):
        for fronts in (1, 2):
            with self.subTest(fronts=fronts):
                server = self.launch(kind=Whole, fronts=fronts, wsgi="apps:mortal", workers=2).ready()
                server.expect("could not get a response")
                (self.folder / "times").unlink(missing_ok=True)
                (self.folder / "kill").write_text("once")
                connection = self.connect(server)
                # The first worker that gets it dies of it, and the other one answers.
                connection.request("GET", "/die-once")
                response = connection.getresponse()
                self.assertEqual((response.status, response.read()), (200, b"alive"))
                connection = self.connect(server)
                (self.folder / "kill").write_text("once")
                connection.request("POST", "/die-once", b"x")
                response = connection.getresponse()
                response.read()
                self.assertEqual(response.status, 502)
                times = (self.folder / "times").read_text().split()
                self.assertEqual(times, ["GET", "GET", "POST"], "it was not sent twice")
                server.expect("killed by SIGKILL")
                server.expect("worker=")
                server.finish()


class Whole(Preforkd):
    """preforkd with an application that only a site reaches, for all requests."""

    fronts = 1

    def __init__(self, folder, fronts=1, **app):
        self.fronts = fronts
        super().__init__(folder, **app)

    def configure(self, **app):
        app.pop("listen")
        super().configure(**app)
        site = f'[site.demo]\nlisten = "fd:web"\napp = "demo"\n[front]\nworkers = {self.fronts}\n[master]\ncontrol = "control"\n'
        self.config.write_text(self.config.read_text() + site)


if __name__ == "__main__":
    unittest.main()
