"""Reload and crash under load: no request may be lost that the server could have kept."""
import os
import signal
import unittest

from harness import SiteCase
from load import Load


class Reload:
    """The cases, for each kind of worker below."""

    def test_ten_reloads_lose_no_request(self):
        with Load(self.site.port) as load:
            first = max(generation for _, generation, _ in load.seen)
            for number in range(1, 11):
                self.site.reload()
                # The new generation serves, and nobody was left behind.
                load.wait_until(
                    lambda: any(generation == first + number for _, generation, _ in load.seen), f"generation {first + number}"
                )
                load.wait_round()
        self.assertFalse(load.lost, f"{len(load.lost)} lost, {load.answered} answered")
        slots = {slot for slot, _, _ in load.seen}
        self.assertEqual(len(slots), 2, "a slot is kept by its replacement")

    def test_killed_worker_is_replaced_and_takes_only_its_own_requests_along(self):
        with Load(self.site.port) as load:
            slot, generation, killed = max(load.seen, key=lambda worker: worker[1])
            self.site.expect(rf"\bpid={killed}\b")
            start = len(self.site.log)
            os.kill(killed, signal.SIGKILL)
            load.wait_until(
                lambda: any(seen[0] == slot and seen[1] == generation and seen[2] != killed for seen in load.seen),
                f"another worker in slot {slot}",
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


class InlineWorkers(Reload, SiteCase):
    """The usual form: one thread, forked from a template."""

    options = {"threads": 1, "preload": True}


class ThreadedWorkers(Reload, SiteCase):
    """A pool of threads, and each worker loads the application itself."""

    options = {"threads": 4, "preload": False}


if __name__ == "__main__":
    unittest.main()
