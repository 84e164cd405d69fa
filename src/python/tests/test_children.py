"""Processes that the application starts are like those of any Python program."""

import json
import os
import signal

from case import Case

MODES = ({}, {"threads": 4}, {"preload": True})


class Children(Case):
    def ask(self, worker, path):
        """What a child has inherited that it should not have, how it ended, and its process id."""
        return json.loads(self.once(worker, path).body)

    def offspring(self, **settings):
        return self.worker("offspring:application", **settings)

    def test_a_child_has_default_dispositions_and_nothing_of_the_server(self):
        for settings in MODES:
            worker = self.offspring(**settings)
            others = [self.client(worker) for _ in range(3)]
            for other in others:
                other.ask("/returns")
            for way in ("fork", "libc", "subprocess", "preexec"):
                self.assertEqual(self.ask(worker, "/" + way), [{}, -signal.SIGTERM, 0], way)
            self.assertStops(worker)

    def test_a_child_has_nothing_of_a_response_that_waits_for_its_client(self):
        for settings in MODES:
            worker = self.offspring(**settings)
            slow = self.client(worker)
            slow.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            while not any(name.endswith(" (deleted)") and not name.startswith("/memfd:") for name in worker.files()):
                pass
            self.assertEqual(self.ask(worker, "/fork"), [{}, -signal.SIGTERM, 0])
            self.assertEqual(len(slow.receive().body), 20 << 20)

    def test_processes_of_multiprocessing_end_when_they_are_told_to(self):
        for settings in MODES:
            worker = self.offspring(**settings)
            for method in ("fork", "spawn", "forkserver"):
                odd, status, _ = self.ask(worker, "/process-" + method)
                # A forkserver's children have its sockets.
                odd = {} if method == "forkserver" else odd
                self.assertEqual((odd, status), ({}, -signal.SIGTERM), method)
            self.assertStops(worker)

    def test_a_daemon_child_does_not_hold_up_a_stop(self):
        for settings, methods in zip(MODES, (("fork", "spawn", "forkserver"), ("fork",), ("fork",))):
            for method in methods:
                worker = self.offspring(**settings)
                _, _, child = self.ask(worker, "/process-%s?stays" % method)
                os.kill(child, 0)
                worker.end_orders()
                self.assertEqual(worker.wait(), 0, worker.read_log())

    def test_a_signal_that_comes_right_after_the_fork_ends_the_child(self):
        worker = self.offspring()
        self.assertEqual(self.ask(worker, "/raced")[1], [-signal.SIGTERM])
        self.assertStops(worker)

    def test_a_client_sees_the_end_of_its_connection_though_a_child_lives(self):
        for threads in (1, 4):
            worker = self.offspring(threads=threads)
            client = self.client(worker)
            client.send(b"GET /process-fork?stays HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.receive()
            self.assertEqual(client.to_end(), b"")
            self.assertStops(worker)

    def test_nobody_accepts_where_a_worker_has_ended_and_its_child_has_not(self):
        worker = self.offspring()
        _, _, child = self.ask(worker, "/process-fork?stays")
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        self.addCleanup(os.kill, child, signal.SIGKILL)
        worker.listener.close()
        with self.assertRaises(ConnectionRefusedError):
            worker.connect()

    def test_a_child_that_comes_back_to_the_server_ends_there(self):
        for threads in (1, 4):
            worker = self.offspring(threads=threads)
            client = self.client(worker)
            self.assertEqual(json.loads(client.ask("/returns").body)[1], 0)
            self.assertIn("returned to the server", worker.read_log())
            self.assertEqual(json.loads(client.ask("/returns?exit").body)[1], 7)
            self.assertStops(worker)
            self.assertEqual(worker.read_log().count("Traceback"), 0, worker.read_log())

    def test_a_child_keeps_the_handlers_of_the_application(self):
        worker = self.offspring()
        self.assertEqual(self.ask(worker, "/own-handler")[1], 9)

    def test_the_files_of_a_child_are_its_own(self):
        worker = self.offspring()
        same, number = self.ask(worker, "/leaves")[1].split()
        self.assertEqual(same, "1")
        self.assertGreater(int(number), 5)
        self.assertStops(worker)
