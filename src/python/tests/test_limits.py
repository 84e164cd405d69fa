"""What a worker holds for its clients, and how many they may be."""

import select

from case import Case
from manager import GUARD

HALF = b"x" * (600 << 10)


class Limits(Case):
    def test_an_application_that_keeps_its_input_does_not_keep_the_room_that_the_body_takes(self):
        for settings in ({}, {"threads": 2}, {"body_in_memory": 1 << 20}):
            worker = self.worker(max_buffered=1 << 20, **settings)
            client = self.client(worker)
            for _ in range(4):
                self.assertEqual(client.ask("/keep", method="POST", body=HALF).body, b"%d" % len(HALF))

    def test_where_no_file_can_be_used_bodies_are_kept_in_memory_up_to_max_buffered_and_one_line_says_so(self):
        for folder, reason in (("/no/such/folder", "No such file or directory"), (self.full_folder(), "No space left on device")):
            worker = self.worker(env={"TMPDIR": folder}, body_in_memory=1000, max_buffered=1 << 20)
            for size in (1001, 2000, 1 << 20):
                for chunked in (False, True):
                    client = self.client(worker)
                    self.begin(client, size, chunked)
                    client.send(b"x" * size + (b"\r\n0\r\n\r\n" if chunked else b""))
                    self.assertEqual(client.receive().body, b"%d" % size, worker.read_log())
            # Of two that have not room together, one is refused, and the other one goes on.
            clients = {client.sock: client for client in (self.client(worker), self.client(worker))}
            for client in clients.values():
                self.begin(client, len(HALF), True)
                client.send(HALF)
            answered, _, _ = select.select(list(clients), [], [], GUARD)
            refused = clients.pop(*answered).receive()
            self.assertEqual((refused.status, refused["Connection"]), ("503 Service Unavailable", "close"))
            self.assertIsNotNone(refused["Retry-After"])
            (other,) = clients.values()
            other.send(b"\r\n0\r\n\r\n")
            self.assertEqual(other.receive().body, b"%d" % len(HALF))
            lines = [line for line in worker.read_log().splitlines() if "temporary file" in line]
            self.assertEqual(len(lines), 1, lines)
            self.assertRegex(lines[0], "in %s: .*%s.*kept in memory, up to max_buffered$" % (folder, reason))

    def begin(self, client, size, chunked):
        framing = "Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size if chunked else "Content-Length: %d\r\n\r\n" % size
        client.send(b"POST /keep HTTP/1.1\r\nHost: a\r\n" + framing.encode())
