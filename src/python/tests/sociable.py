"""An application that has all kinds of sockets when it is imported, but none that workers could not share: STREAM and DATAGRAM name
sockets to connect to."""

import os
import socket

from apps import application  # noqa: F401

PAIRS = [socket.socketpair(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM)]
LISTENER = socket.create_server(("127.0.0.1", 0))
UNCONNECTED = [socket.socket(family) for family in (socket.AF_INET, socket.AF_UNIX)]
# As logging to syslog or the journal does.
SYSLOG = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
SYSLOG.connect(os.environ["DATAGRAM"])
STATISTICS = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
STATISTICS.connect(("127.0.0.1", 8125))
socket.create_connection(LISTENER.getsockname()).close()
# What a standard stream leads to has a second number, as in capturing it.
STREAM = socket.socket(socket.AF_UNIX)
STREAM.connect(os.environ["STREAM"])
os.dup2(STREAM.fileno(), 0)
