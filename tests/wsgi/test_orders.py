"""Signals that are meant for the master and reach all processes of the service, as `systemctl kill -s HUP` sends them."""
import contextlib
import os
import re
import select
import signal
import sys
import threading
import unittest

import test_life
from test_life import Life, both_kinds, descendants

ORDERS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH]


class Flood:
    """All of them, again and again, to these processes, or to each one below the master from its first instruction on."""

    def __init__(self, master, pids=()):
        self.master, self.ends, self.seen, self.pids = master, threading.Event(), set(), pids
        self.threads = [threading.Thread(target=self.run) for _ in range(2)]

    def run(self):
        while not self.ends.is_set():
            for pid in self.pids or descendants(self.master):
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

    def test_they_do_not_keep_a_template_from_seeing_that_the_master_has_died(self):
        """It then takes along the worker that hangs at its fork."""
        for _ in range(5):
            server, held = test_life.Stillborn.hangs_at(self, "1")
            with Flood(server.process.pid, descendants(server.process.pid)):
                server.process.kill()
                # A template that takes its master for alive ends itself 12 s later.
                self.assertEqual(select.select([held], [], [], 8)[0], [held], "it has not ended")
            self.assertEqual(held.read(), "")


if __name__ == "__main__":
    unittest.main()
