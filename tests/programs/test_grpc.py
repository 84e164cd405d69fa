"""A server of gRPC behind a site, and clients of gRPC."""
import queue
import sys
import threading
import unittest

from stand import GUARD, HERE, Behind, ProgramCase, needs_module

try:
    import grpc
except ImportError:
    grpc = None


class Calls:
    """A client with a connection of its own to the site."""

    def __init__(self, port):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])
        self.one = self.channel.unary_unary("/t.Talk/One")
        self.fail = self.channel.unary_unary("/t.Talk/Fail")
        self.count = self.channel.unary_stream("/t.Talk/Count")
        self.join = self.channel.stream_unary("/t.Talk/Join")
        self.echo = self.channel.stream_stream("/t.Talk/Echo")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


class Conversation:
    """A call in which both sides speak in turn."""

    def __init__(self, calls):
        self.said = queue.Queue()
        self.answers = calls.echo(iter(self.said.get, None), timeout=GUARD)

    def say(self, text):
        """What is answered."""
        self.said.put(text)
        return next(self.answers)

    def end(self):
        """What follows the last message."""
        self.said.put(None)
        return list(self.answers), self.answers.code()


class Talk(ProgramCase):
    """Two workers behind a site."""

    kind = Behind

    def setUp(self):
        needs_module("grpc")
        super().setUp()

    def started(self):
        command = [sys.executable, f"{HERE}/grpc_code.py", "{address}"]
        return self.launch(listen=[], workers=2, protocol="h2c", command=command).ready()

    def test_calls_of_all_four_kinds_pass_through(self):
        server = self.started()
        with Calls(server.port) as calls:
            answer, call = calls.one.with_call(b"hello", timeout=GUARD, metadata=[("x-tell", "this")])
            self.assertEqual(answer, b"v1 hello")
            self.assertEqual(dict(call.trailing_metadata())["x-told"], "this")
            large = bytes(range(256)) * 10_000
            self.assertEqual(calls.one(large, timeout=GUARD), b"v1 " + large)
            with self.assertRaises(grpc.RpcError) as failed:
                calls.fail(b"", timeout=GUARD)
            self.assertEqual(failed.exception.code(), grpc.StatusCode.NOT_FOUND)
            self.assertEqual(failed.exception.details(), "there is no such thing: ä")
            self.assertEqual(list(calls.count(b"1000", timeout=GUARD)), [str(number).encode() for number in range(1000)])
            self.assertEqual(list(calls.count(b"0", timeout=GUARD)), [])
            self.assertEqual(calls.join(iter([b"a", b"", b"c"]), timeout=GUARD), b"a,,c")
            talk = Conversation(calls)
            for text in (b"a", b"", b"x" * 100_000):
                self.assertEqual(talk.say(text), b"v1 " + text)
            self.assertEqual(talk.end(), ([], grpc.StatusCode.OK))
            # There is no such method.
            with self.assertRaises(grpc.RpcError) as failed:
                calls.channel.unary_unary("/t.Talk/None")(b"", timeout=GUARD)
            self.assertEqual(failed.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.finish(server)

    def test_a_reload_loses_no_call_and_ends_none(self):
        server = self.started()
        answers, losses, over = [], [], threading.Event()

        def ask():
            with Calls(server.port) as calls:
                while not over.is_set():
                    try:
                        answers.append(calls.one(b"x", timeout=GUARD))
                    except grpc.RpcError as error:
                        losses.append(error)

        clients = [threading.Thread(target=ask) for _ in range(4)]
        with Calls(server.port) as calls:
            talk = Conversation(calls)
            self.assertEqual(talk.say(b"a"), b"v1 a")
            for client in clients:
                client.start()
            try:
                for version in ("v2", "v3"):
                    self.configure(server, env={"VERSION": version})
                    server.reload()
                    self.assertEqual(calls.one(b"x", timeout=GUARD), version.encode() + b" x")
                    # The one that is open is answered by the worker that began it.
                    self.assertEqual(talk.say(b"b"), b"v1 b")
                self.assertEqual(talk.end(), ([], grpc.StatusCode.OK))
            finally:
                over.set()
                for client in clients:
                    client.join()
        self.assertEqual(losses, [], server.report())
        self.assertEqual({answers[0], answers[-1]}, {b"v1 x", b"v3 x"})
        self.wait_left(server)
        self.finish(server)


if __name__ == "__main__":
    unittest.main()
