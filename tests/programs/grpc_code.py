"""A server of gRPC, without generated code: messages are bytes. `python3 grpc_code.py ADDRESS`"""
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

VERSION = os.environ.get("VERSION", "").encode()


def one(request, context):
    """A message for a message, and what the client asked to be told beside it."""
    context.set_trailing_metadata((("x-told", dict(context.invocation_metadata()).get("x-tell", "")),))
    return VERSION + b" " + request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "there is no such thing: ä")


def count(request, context):
    """So many messages."""
    for number in range(int(request)):
        yield str(number).encode()


def join(requests, context):
    return b",".join(requests)


def echo(requests, context):
    """Each message as it comes."""
    for request in requests:
        yield VERSION + b" " + request


def serve(address):
    handlers = {
        "One": grpc.unary_unary_rpc_method_handler(one),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Join": grpc.stream_unary_rpc_method_handler(join),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    # The master holds a socket that is bound to the address.
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.Talk", handlers)])
    server.add_insecure_port(address)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    server.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        notify.send(b"READY=1")
    signal.sigwait([signal.SIGTERM])
    # The library cancels calls that have arrived and were not begun, so those that are on their way come first.
    time.sleep(0.3)
    # No more calls; those that are open go on to their end.
    server.stop(grace=60).wait()


if __name__ == "__main__":
    serve(sys.argv[1])
