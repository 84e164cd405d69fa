"""What a worker holds for its clients, and how many they may be."""

from case import Case

HALF = b"x" * (600 << 10)


class Limits(Case):
    def test_an_application_that_keeps_its_input_does_not_keep_the_room_that_the_body_takes(self):
        for settings in ({}, {"threads": 2}, {"body_in_memory": 1 << 20}):
            worker = self.worker(max_buffered=1 << 20, **settings)
            client = self.client(worker)
            for _ in range(4):
                self.assertEqual(client.ask("/keep", method="POST", body=HALF).body, b"%d" % len(HALF))

    def test_without_a_folder_for_temporary_files_each_body_is_refused_and_one_line_says_why(self):
        worker = self.worker(env={"TMPDIR": "/no/such/folder"}, body_in_memory=1000)
        for body in (b"x" * 2000, b"x" * 1001):
            for head in ("Content-Length: %d\r\n\r\n" % len(body), "Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)):
                client = self.client(worker)
                client.send(b"POST /read HTTP/1.1\r\nHost: a\r\n" + head.encode() + body)
                response = client.receive()
                self.assertEqual((response.status, response["Connection"]), ("500 Internal Server Error", "close"))
        self.assertEqual(self.client(worker).ask("/read", method="POST", body=b"x" * 1000).status, "200 OK")
        lines = [line for line in worker.read_log().splitlines() if "could not store a request body" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r"in /no/such/folder: .*No such file or directory.*answering 500$")
