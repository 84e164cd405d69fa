"""The barest loop around an application, on the socket given as fd 3: run_bare.py MODULE:NAME.

No server: it takes what one read brings for one request, and looks at nothing of it but the path. What it is slower than the limit
is the price of two system calls for each request, and of caches that the kernel has used meanwhile.
"""
import gc
import importlib
import os
import select
import socket
import sys

from limit import environ

sys.path.insert(0, os.getcwd())
module, _, name = sys.argv[1].partition(":")
application = getattr(importlib.import_module(module), name)


def start_response(status, headers, exc_info=None):
    """Nobody looks at it."""


def answer(request, ready={}):
    """What is sent for a request."""
    path = request.split(b" ", 2)[1].decode()
    if path not in ready:
        ready[path] = environ(path)
    result = application(ready[path].copy(), start_response)
    body = b"".join(result)
    if (close := getattr(result, "close", None)) is not None:
        close()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


listener, poll, clients = socket.socket(fileno=3), select.epoll(), {}
poll.register(listener, select.EPOLLIN)
gc.collect()
gc.freeze()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
while True:
    for number, _ in poll.poll():
        if number == listener.fileno():
            client, _ = listener.accept()
            poll.register(client, select.EPOLLIN)
            clients[client.fileno()] = client
            continue
        client = clients[number]
        try:
            request = client.recv(65536)
            if request:
                client.sendall(answer(request))
        except ConnectionError:
            request = b""
        if not request:
            poll.unregister(client)
            clients.pop(number).close()
