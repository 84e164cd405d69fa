"""Unix listeners whose file is lost while Python workers serve.

    python3 -m unittest discover -s tests/wsgi
"""
import socket
import textwrap

from test_life import GUARD, Life, both_kinds


class Sockets(Life):
    """A socket that a reload binds anew has a predecessor in whose accept queue connections wait."""

    def connect(self, path):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(GUARD)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client

    def body(self, client):
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        return answer.partition(b"\r\n\r\n")[2]

    @both_kinds
    def test_what_waits_in_the_old_socket_is_served_by_the_old_worker(self, preload):
        (self.folder / "held.py").write_text(textwrap.dedent("""
            import os

            def application(environ, start_response):
                with open(os.environ["E2E_GATE"]) as gate:
                    answer = gate.read()
                answer += os.environ["PREFORKD_GENERATION"]
                start_response("200 OK", [("Content-Length", str(len(answer)))])
                return [answer.encode()]
        """))
        path = self.folder / "web.sock"
        server = self.launch(
            wsgi="held:application", chdir=str(self.folder), preload=preload, listen=["fd:web", f"unix:{path}"],
        ).ready()
        running = self.connect(path)
        # Open when the application is reading, so that the next connection has to wait.
        gate = open(self.folder / "gate", "w")
        waiting = self.connect(path)
        path.unlink()
        server.reload()
        self.assertTrue(path.exists(), "it was made again")
        gate.write("first ")
        gate.close()
        self.assertEqual(self.body(running), b"first 1")
        self.release("second ")
        self.assertEqual(self.body(waiting), b"second 1")
        later = self.connect(path)
        self.release("third ")
        self.assertEqual(self.body(later), b"third 2")
        server.finish()
