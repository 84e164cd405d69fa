"""Signals that are meant for the master and reach all processes of the service, as `systemctl kill -s HUP` sends them."""
import contextlib
import os
import re
import signal
import sys
import threading
import unittest

from test_life import Life, both_kinds, descendants

ORDERS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH]


class Flood:
    """All of them, again and again, to each process below the master, from its first instruction on."""

    def __init__(self, master):
        self.master, self.ends, self.seen = master, threading.Event(), set()
        self.threads = [threading.Thread(target=self.run) for _ in range(2)]

    def run(self):
        while not self.ends.is_set():
            for pid in descendants(self.master):
                self.seen.add(pid)
                for number in ORDERS:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()


class Orders(Life):
    """Launchers, configuration checks, scripts in front of Python, log writers, probes, templates and workers."""

    @both_kinds
    def test_a_flood_of_them_ends_no_process_and_no_reload_fails(self, preload):
        logs = {name: str(self.folder / f"{name}-{preload}") for name in ("stdout", "access_log")}
        # The configuration check executes a script to see what it stands for.
        python = self.folder / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        server = self.launch(preload=preload, workers=2, python=str(python), reload={"check": {"path": "/"}}, **logs).ready()
        with Flood(server.process.pid) as flood:
            for _ in range(8):
                server.reload()
            self.assertEqual(self.ask(server)["generation"], "9", server.log)
        # Each reload needs a configuration check, a probe and two workers.
        self.assertGreater(len(flood.seen), 8 * 2)
        ends = [line for line in server.log if re.search(r"killed by|stopped by|SIG(USR|TT)", line)]
        self.assertEqual(ends, [])
        server.finish()


if __name__ == "__main__":
    unittest.main()
