"""PEP 3333 through a site: the cases of src/python/tests once more, with the front between client and worker.

    python3 -m unittest discover -s tests/wsgi
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import test_life  # noqa: F401  It finds the modules beside Django's tests.
from harness import Sited
from service import GUARD, descendants

WORKERS = Path(__file__).resolve().parents[2] / "src" / "python" / "tests"
# At the end, as there are other modules of the same names here.
sys.path.append(str(WORKERS))
from client import Client  # noqa: E402
import test_wsgi  # noqa: E402


class Site(Sited):
    """preforkd with the application, which only a site reaches; it can do what the cases want of a worker."""

    def __init__(self, route="", **app):
        self.route = route
        self.files = Path(tempfile.mkdtemp(prefix="preforkd-wsgi-"))
        super().__init__(self.files, wsgi="apps:application", chdir=str(WORKERS), python=sys.executable, workers=1, **app)
        self.address = "127.0.0.1", self.port
        self.chdir = str(WORKERS)

    def connect(self):
        return socket.create_connection(self.address, GUARD)

    def front(self):
        """The process id of the front's worker."""
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/exe").endswith("/preforkd-front"):
                    return pid
        raise AssertionError(f"the front is not there\n{self.report()}")

    def close(self):
        super().close()
        shutil.rmtree(self.files, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            status = self.stop()
            if status:
                raise AssertionError(f"exit status {status}\n{self.report()}")
        finally:
            self.close()


class ThroughSite(test_wsgi.Wsgi):
    """The cases, and the reason for all that differs."""

    names = "demo", 0, 1
    route = ""
    # The front speaks HTTP/1.1 with its workers, whatever its clients speak.
    http_1_0 = "HTTP/1.1"
    # That speaks of the connection between front and worker.
    closing = None

    @classmethod
    def launch(cls, **settings):
        site = Site(cls.route, **settings).ready()
        with Client(site.connect()) as client:
            site.pid = json.loads(client.ask("/process").body)["pid"]
        return site

    def logged(self, text):
        """The log comes through a pipe."""
        self.worker.wait_log(re.escape(text))

    def server(self):
        """The worker has no address of its own, so it is called as the client has called the site."""
        return "test", "80"

    def peer(self, client):
        """The front says no port: to applications it would be one behind a proxy of others."""
        return client.sock.getsockname()[0], None

    def target(self, sent):
        """The host of an absolute target goes into the field Host (RFC 9112 section 3.2.2)."""
        return re.sub("^http://[^/]+", "", sent) or "/"

    def test_a_half_closed_connection_gets_its_answers(self):
        """If it was closed before they were read. A client that closes its side while its request runs is taken for gone."""
        client, front = self.client(), self.worker.front()
        client.ask("/several")
        os.kill(front, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + GUARD
            while Path(f"/proc/{front}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                self.assertLess(time.monotonic(), deadline, "the front does not stop")
            client.send(b"GET /several HTTP/1.1\r\nHost: a\r\n\r\nGET /generator HTTP/1.1\r\nHost: a\r\n\r\n")
            client.sock.shutdown(socket.SHUT_WR)
        finally:
            os.kill(front, signal.SIGCONT)
        self.assertEqual((client.receive().body, client.receive().body), (b"one two", b"one two"))
        self.assertTrue(client.is_closed())

    # This is about ports.
    test_remote_port_of_clients_whose_ports_are_kept_in_one_place = None
    # These are about a worker and its master, for whom a site makes no difference.
    test_the_process_is_as_the_contract_says = test_the_scoreboard_is_kept = None


class Inline(ThroughSite, test_wsgi.Inline):
    pass


class InlinePreloaded(ThroughSite, test_wsgi.InlinePreloaded):
    pass


class Threads(ThroughSite, test_wsgi.Threads):
    pass


class ThreadsPreloaded(ThroughSite, test_wsgi.ThreadsPreloaded):
    pass


class Streamed(ThroughSite, test_wsgi.InlinePreloaded):
    """Bodies of requests are passed on while they arrive."""

    route = ", stream = true"
