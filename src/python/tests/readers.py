"""What an application may hand to wsgi.file_wrapper: anything that can be read."""

import gzip
import io
import os
import socket
import tempfile


def at(position, file):
    file.seek(position)
    return file


def pipe():
    source, sink = os.pipe()
    os.write(sink, b"through a pipe")
    os.close(sink)
    return open(source, "rb")


def connection():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"through a socket")
        return ours.makefile("rb")


def growing():
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"at first")
        file.flush()
        copy = open(file.name, "rb")
        file.write(b", and more")
        file.flush()
        return copy


def packed():
    file = io.BytesIO()
    with gzip.open(file, "wb") as packing:
        packing.write(b"unpacked " * 100)
    return gzip.GzipFile(fileobj=at(0, file))


def packed_on_disk():
    """Its descriptor has other bytes than its read()."""
    file = tempfile.TemporaryFile()
    with gzip.open(file, "wb") as packing:
        packing.write(b"unpacked from a file " * 100)
    return gzip.GzipFile(fileobj=at(0, file))


def spooled():
    file = tempfile.SpooledTemporaryFile()
    file.write(b"not yet in a file")
    return at(4, file)


# What each of them makes, and what must arrive; none: as it can be read here too.
READERS = {
    "bytes": (lambda: at(3, io.BytesIO(b"in memory")), b"memory"),
    "pipe": (pipe, b"through a pipe"),
    "connection": (connection, b"through a socket"),
    "growing": (growing, b"at first, and more"),
    "empty": (lambda: open(os.devnull, "rb"), b""),
    "process": (lambda: open("/proc/version", "rb"), None),
    "unbuffered": (lambda: open("/proc/version", "rb", buffering=0), None),
    # Its size is said to be that of a page.
    "system": (lambda: open("/sys/class/net/lo/mtu", "rb"), None),
    "packed": (packed, b"unpacked " * 100),
    "packed_on_disk": (packed_on_disk, b"unpacked from a file " * 100),
    "spooled": (spooled, b"yet in a file"),
}


def expected(name):
    make, content = READERS[name]
    if content is not None:
        return content
    with make() as file:
        return file.read()
