"""A worker that hangs is aborted: what becomes of its other clients."""

import os
import re
import signal

from case import Case

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Abort(Case):
    ways = [
        {"threads": 1},
        {"threads": 4},
        {"threads": 1, "preload": True},
        {"threads": 4, "preload": True},
    ]

    def hang(self, worker, path, threads):
        """Clients whose requests hang, one for each thread."""
        hung = [self.client(worker) for _ in range(threads)]
        for client in hung:
            client.ask("/seen")
        for n, client in enumerate(hung):
            client.send(GET % path)
            while (worker.record()[7], worker.record()[6] > 0) != (n + 1, True):
                self.assertNotEqual(worker.record()[1], 0)
        return hung

    def abort(self, worker):
        os.kill(worker.pid, signal.SIGABRT)

    def test_neighbours_get_an_answer_or_an_end_and_never_a_reset(self):
        for path in (b"block", b"spin"):
            for way in self.ways:
                with self.subTest(path=path, **way):
                    worker = self.worker(**way)
                    idle, asks, half, posts, pipelines = neighbours = [self.client(worker) for _ in range(5)]
                    for client in neighbours:
                        client.ask("/seen")
                    early = self.client(worker)
                    early.send(GET[:9])
                    # A spinning one keeps the other threads from going on.
                    threads = way["threads"] if path == b"block" else 1
                    hung = self.hang(worker, path, threads)
                    asks.send(GET % b"seen")
                    pipelines.send(GET % b"seen" * 2)
                    half.send(GET[:20])
                    posts.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 200000)
                    hung[0].send(GET % b"seen" * 2)
                    self.abort(worker)
                    for client in (half, posts, early, asks, pipelines):
                        answer = client.to_end()
                        if client in (asks, pipelines) and threads < way["threads"]:
                            # Another thread may have taken it, and answered it.
                            answer = re.sub(rb"(?s)^(HTTP/1.1 200 OK\r\n((?!\r\n\r\n).)*\r\n\r\n)+", b"", answer)
                            if not answer:
                                continue
                        self.assertRegex(answer, rb"(?s)^HTTP/1.1 503 Service Unavailable\r\n.*\r\nConnection: close\r\n\r\n$")
                        self.assertIn(b"\r\nRetry-After: 1\r\n", answer)
                    for client in hung + [idle]:
                        self.assertEqual(client.to_end(), b"")
                    if not way.get("preload"):
                        self.assertEqual(worker.wait(), -signal.SIGABRT)
                    self.assertIn("in " + path.decode(), worker.read_log())

    def test_the_thread_of_the_loop_leaves_the_signal_to_those_of_the_application(self):
        # It may have read a request and not noted it yet.
        for threads, loop, all_threads in ((1, False, 1), (4, True, 5)):
            with self.subTest(threads=threads):
                worker = self.worker(threads=threads)
                self.client(worker).ask("/seen")
                holds = {}
                for thread in os.listdir("/proc/%d/task" % worker.pid):
                    with open("/proc/%d/task/%s/status" % (worker.pid, thread)) as status:
                        blocked = next(line.split()[1] for line in status if line.startswith("SigBlk:"))
                    holds[int(thread)] = bool(int(blocked, 16) & 1 << signal.SIGABRT - 1)
                self.assertEqual(holds.pop(worker.pid), loop)
                self.assertEqual(list(holds.values()), [False] * (all_threads - 1))

    def test_an_application_may_handle_the_signal_itself(self):
        worker = self.worker("aborting:application")
        client = self.client(worker)
        for _ in range(2):
            self.assertEqual(client.ask("/").body, b"aborted, and goes on")
        self.assertStops(worker)
