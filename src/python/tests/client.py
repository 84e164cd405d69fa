"""A strict little HTTP client over a socket: it shows exactly what came."""


class Closed(Exception):
    """The connection ended before the response did."""


class Response:
    def __init__(self, status, fields, body, raw):
        self.status = status
        self.fields = fields  # list of (name, value)
        self.body = body
        self.raw = raw  # body as framed

    def __getitem__(self, name):
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return values[0] if values else None


class Client:
    def __init__(self, sock):
        self.sock = sock
        # Grows in place: a body of megabytes comes in many pieces.
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Closed(bytes(self.buffer))
        self.buffer += data

    def take(self, number):
        """So many bytes of those that have come."""
        found = bytes(self.buffer[:number])
        del self.buffer[:number]
        return found

    def until(self, mark):
        seen = 0
        while (at := self.buffer.find(mark, seen)) < 0:
            seen = max(0, len(self.buffer) - len(mark))
            self.more()
        found = self.take(at)
        self.take(len(mark))
        return found

    def exactly(self, number):
        while len(self.buffer) < number:
            self.more()
        return self.take(number)

    def to_end(self):
        try:
            while True:
                self.more()
        except Closed:
            return self.take(len(self.buffer))

    def receive(self, head=False):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ", 1)
        assert version == "HTTP/1.1", lines[0]
        fields = [tuple(line.split(": ", 1)) for line in lines[1:]]
        response = Response(status, fields, b"", b"")
        code = int(status[:3])
        if head or code < 200 or code in (204, 304):
            return response
        if response["Transfer-Encoding"] == "chunked":
            chunks = []
            while True:
                size = int(self.until(b"\r\n"), 16)
                data = self.exactly(size)
                assert self.exactly(2) == b"\r\n"
                chunks.append(data)
                if size == 0:
                    break
            response.body = b"".join(chunks)
        elif response["Content-Length"] is not None:
            response.body = self.exactly(int(response["Content-Length"]))
        else:
            response.body = self.to_end()
        return response

    def ask(self, path, method="GET", body=None, fields=(), version="1.1"):
        head = "%s %s HTTP/%s\r\nHost: test\r\n" % (method, path, version)
        if body is not None:
            head += "Content-Length: %d\r\n" % len(body)
        head += "".join("%s: %s\r\n" % field for field in fields)
        self.send(head.encode("latin-1") + b"\r\n" + (body or b""))
        return self.receive(method == "HEAD")

    def is_closed(self):
        """Waits for the end of the connection; false when something else came."""
        try:
            return not self.buffer and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
