"""Signals: the stop order comes by none of them, and handlers of the application run at once."""

import os
import signal
import tempfile

from case import Case

MODES = ({}, {"threads": 4}, {"preload": True}, {"preload": True, "threads": 4})


class Signals(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-")
        self.addCleanup(folder.cleanup)
        self.seen = os.path.join(folder.name, "seen")
        self.hold = os.path.join(folder.name, "hold")
        os.mkfifo(self.seen)
        os.mkfifo(self.hold)

    def signalling(self, env=(), **settings):
        return self.worker("signalling:application", env={"SEEN": self.seen, "HOLD": self.hold, **dict(env)}, **settings)

    def heard(self):
        """What a handler says; waits for it."""
        with open(self.seen) as seen:
            return seen.read().strip()

    def test_the_end_of_the_pipe_stops_a_worker(self):
        for settings in MODES:
            worker = self.signalling(**settings)
            worker.end_orders()
            self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
            self.assertEqual(worker.wait(), 0, worker.read_log())

    def test_a_drain_is_out_of_the_reach_of_the_application(self):
        """On one thread, as handlers can be set on the main thread only."""
        for settings in ({}, {"preload": True}):
            for way in ("/restore", "/replace", "/ignore", "/leaves"):
                worker = self.signalling(**settings)
                self.once(worker, way)
                running, other = self.client(worker), self.client(worker)
                running.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
                with open(self.hold, "w"):
                    other.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    worker.end_orders()
                for client in (running, other):
                    self.assertEqual(client.receive().body, b"main")
                    client.sock.close()
                self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
                self.assertEqual(worker.wait(), 0, worker.read_log())

    def test_term_from_outside_still_stops_a_worker_whose_application_has_restored_its_handlers(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            worker = self.signalling()
            self.once(worker, "/restore")
            os.kill(worker.pid, number)
            self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
            self.assertEqual(worker.wait(), 0)

    def test_what_is_meant_for_the_master_does_nothing_to_a_worker(self):
        """`systemctl kill -s HUP` reaches all processes of the service."""
        for settings in MODES:
            worker = self.signalling(**settings)
            for name in ("HUP", "USR1", "WINCH", "TTIN", "TTOU"):
                os.kill(worker.pid, getattr(signal, "SIG" + name))
                os.kill(worker.process.pid, getattr(signal, "SIG" + name))
                expected = b"other" if "threads" in settings else b"main"
                self.assertEqual(self.once(worker, "/").body, expected, name)
            self.assertStops(worker)

    def test_the_application_does_not_learn_that_they_were_ignored(self):
        """As under nohup(1), where programs leave a signal ignored that they would handle."""
        for settings in MODES:
            worker = self.signalling(**settings)
            self.assertEqual(self.once(worker, "/ignored").body, b"[]")
            self.assertStops(worker)

    def test_a_handler_of_the_application_runs_while_the_worker_is_idle(self):
        for settings in MODES:
            worker = self.signalling(**settings)
            for _ in range(2):
                os.kill(worker.pid, signal.SIGUSR2)
                self.assertEqual(self.heard(), "SIGUSR2")
            self.once(worker, "/")
            os.kill(worker.pid, signal.SIGUSR2)
            self.assertEqual(self.heard(), "SIGUSR2")
            self.assertStops(worker)

    def wait_for_client(self, worker):
        """A client that keeps a request of the worker waiting, as nothing of its response is held."""
        slow = self.client(worker)
        slow.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        while worker.record()[6] != (1 << 63) - 1:
            pass
        return slow

    def test_a_handler_runs_while_a_request_waits_for_its_client(self):
        for settings in MODES:
            worker = self.signalling(response_in_memory=65536, response_in_file=0, **settings)
            slow = self.wait_for_client(worker)
            for _ in range(2):
                os.kill(worker.pid, signal.SIGUSR2)
                self.assertEqual(self.heard(), "SIGUSR2")
            self.assertEqual(len(slow.receive().body), 20 << 20)
            self.assertStops(worker)

    def test_a_handler_that_exits_while_a_request_waits_stops_the_worker_after_it(self):
        worker = self.signalling(response_in_memory=65536, response_in_file=0)
        self.once(worker, "/leaves")
        slow = self.wait_for_client(worker)
        os.kill(worker.pid, signal.SIGTERM)
        while "raised" not in worker.read_log():
            pass
        self.assertEqual(len(slow.receive().body), 20 << 20)
        self.assertEqual(worker.wait(), 0, worker.read_log())

    def test_a_handler_that_was_set_at_import_stays(self):
        for settings in MODES:
            worker = self.signalling(env={"AT_IMPORT": "1"}, **settings)
            os.kill(worker.pid, signal.SIGTERM)
            self.assertEqual(self.heard(), "SIGTERM")
            self.once(worker, "/")
            worker.end_orders()
            self.assertEqual(worker.wait(), 0, worker.read_log())

    def test_handlers_run_also_after_asyncio_has_used_the_place_where_python_tells_of_signals(self):
        worker = self.signalling()
        self.once(worker, "/asyncio")
        # Without that place a signal in the microsecond before the wait is seen after it only; one that comes later interrupts the wait.
        while b"S" not in open(f"/proc/{worker.pid}/stat", "rb").read().rpartition(b")")[2].split()[0]:
            pass
        os.kill(worker.pid, signal.SIGUSR2)
        self.assertEqual(self.heard(), "SIGUSR2")

    def test_a_handler_that_exits_stops_the_worker_in_good_order(self):
        worker = self.signalling()
        self.once(worker, "/leaves")
        os.kill(worker.pid, signal.SIGTERM)
        self.assertEqual(worker.receive(worker.notify)[0], "STOPPING=1")
        self.assertEqual(worker.wait(), 0)
        self.assertIn("raised", worker.read_log())

    def test_a_handler_that_fails_is_shown_and_costs_nothing(self):
        worker = self.signalling()
        client = self.client(worker)
        client.ask("/fails")
        os.kill(worker.pid, signal.SIGTERM)
        while "a handler that fails" not in worker.read_log():
            client.ask("/")
        self.assertEqual(client.ask("/").body, b"main")
        worker.end_orders()
        self.assertEqual(worker.wait(), 0)
