"""A client of FastCGI that asks once (Specification 1.0, Open Market 1996)."""
import socket
import struct

from stand import GUARD, Loss

BEGIN, END, PARAMS, STDIN, STDOUT = 1, 3, 4, 5, 6
HEADER = struct.Struct(">BBHHBx")
REQUEST = 1


def record(kind, content=b""):
    """One record; version 1, without padding."""
    return HEADER.pack(1, kind, REQUEST, len(content), 0) + content


def send(address, script, **params):
    """Ask for a script at a port or at a path; the socket that answers."""
    told = {"SCRIPT_FILENAME": str(script), "REQUEST_METHOD": "GET", **params}
    pairs = b"".join(
        struct.pack(">II", len(name) | 1 << 31, len(value) | 1 << 31) + name.encode() + value.encode()
        for name, value in told.items()
    )
    is_port = isinstance(address, int)
    stream = socket.socket(socket.AF_INET if is_port else socket.AF_UNIX)
    stream.settimeout(GUARD)
    stream.connect(("127.0.0.1", address) if is_port else address)
    # The role of a responder; the connection is for one request.
    stream.sendall(record(BEGIN, struct.pack(">HB5x", 1, 0)) + record(PARAMS, pairs) + record(PARAMS) + record(STDIN))
    return stream


def receive(stream):
    """The body of the answer, which must be whole."""
    answer = b""
    with stream, stream.makefile("rb") as records:
        while True:
            head = records.read(HEADER.size)
            if len(head) < HEADER.size:
                raise Loss(f"closed after {answer!r}")
            _, kind, _, length, padding = HEADER.unpack(head)
            content = records.read(length + padding)[:length]
            if kind == END:
                break
            if kind == STDOUT:
                answer += content
    return answer.partition(b"\r\n\r\n")[2].decode()


def ask(address, script, **params):
    """The body of an answer."""
    return receive(send(address, script, **params))
