"""An HTTP client that forgives nothing: whatever is not a whole, right answer is a loss."""
import socket
from typing import NamedTuple

from service import GUARD


class Loss(Exception):
    """A request that was sent and not answered as it must be."""


class Closed(Loss):
    """The connection ended before the answer did."""


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict
    body: bytes


class Connection:
    """One connection; `open` tells whether it can take another request."""

    def __init__(self, port, timeout=GUARD):
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        except OSError as error:
            raise Loss(f"connect: {error}") from error
        self.open = True
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def request(self, target, close=False, method="GET"):
        """The answer, after which the server has closed exactly if one of the two said so."""
        wish = "Connection: close\r\n" if close else ""
        length = "" if method == "GET" else "Content-Length: 0\r\n"
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}{wish}\r\n"
        try:
            self.socket.sendall(head.encode("ascii"))
            answer = self.read_answer()
            told = answer.headers.get("connection", "").lower() == "close"
            if close and not told:
                raise Loss("asked to close, but the answer does not say so")
            if told:
                self.open = False
                if self.buffer or self.socket.recv(1):
                    raise Loss("bytes after the last answer")
            elif self.buffer:
                raise Loss("bytes that nobody asked for")
        except OSError as error:
            raise Loss(f"{type(error).__name__}: {error}") from error
        return answer

    def read_answer(self):
        """Head and body."""
        status, *lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, code, _ = status.split(" ", 2)
        if version != "HTTP/1.1":
            raise Loss(f"status line {status!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() in headers and name.lower() in ("content-length", "transfer-encoding", "connection"):
                raise Loss(f"two of {name}")
            headers[name.lower()] = value.strip()
        return Answer(int(code), headers, self.read_body(headers))

    def read_body(self, headers):
        """By length or in chunks; a body that ends where the connection does could be cut, so it is none."""
        if headers.get("transfer-encoding") == "chunked" and "content-length" not in headers:
            body = b""
            while size := int(self.read_until(b"\r\n"), 16):
                body += self.read_exactly(size)
                if self.read_exactly(2) != b"\r\n":
                    raise Loss("a chunk of another length")
            if self.read_exactly(2) != b"\r\n":
                raise Loss("no end after the last chunk")
            return body
        if "content-length" in headers and "transfer-encoding" not in headers:
            return self.read_exactly(int(headers["content-length"]))
        raise Loss(f"no length, or two: {headers}")

    def read_until(self, end):
        """Up to `end`, which is not given back."""
        while end not in self.buffer:
            self.fill()
        found, self.buffer = self.buffer.split(end, 1)
        return found

    def read_exactly(self, size):
        """So many bytes."""
        while len(self.buffer) < size:
            self.fill()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def fill(self):
        """More bytes."""
        more = self.socket.recv(65536)
        if not more:
            raise Closed(f"closed after {len(self.buffer)} bytes of an answer")
        self.buffer += more
