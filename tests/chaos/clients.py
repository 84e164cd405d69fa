"""Clients that count: every request is sent once, carries an id of its own, and gets exactly one verdict."""
import random
import threading
import time
from collections import Counter
from typing import NamedTuple

from service import GUARD
from strict import Closed, Connection, Loss

# What can become of a request. `twice` comes from the notes of the application: it was called again for the same id.
VERDICTS = ("ok", "refused", "reset", "truncated", "5xx", "wrong", "lost", "twice")
PATIENCE = 10  # seconds until a request without an answer is lost
PAUSE = 0.01  # seconds at most between two requests of one client: a small load, and connections that are idle


class Probe(Connection):
    """A strict connection that knows whether anything of the present answer has come."""

    def __init__(self, port, patience):
        self.received = 0
        super().__init__(port, patience)

    def begin(self):
        """What comes before the first request: nothing."""

    def fill(self):
        """More bytes, counted."""
        before = len(self.buffer)
        super().fill()
        self.received += len(self.buffer) - before


class Result(NamedTuple):
    """One request: its id, when it was sent and over (time.monotonic), its verdict, the worker as far as known; its method, and the
    port of its client's end with the time since when that was connected."""

    ident: str
    start: float
    end: float
    verdict: str
    pid: int | None
    detail: str
    method: str = "GET"
    port: tuple | None = None


class Client:
    """Sends requests one after the other: on one connection while that lasts, or each on one of its own.

    `connect` makes a connection. With `posts`, every third request is one that must not be repeated.
    """

    def __init__(self, port, name, keep=True, patience=PATIENCE, connect=Probe, posts=False):
        self.port = port
        self.connect = connect
        self.posts = posts
        self.connected = []  # for each connection the port of its near end, and when it was made
        self.name = name
        self.keep = keep
        self.patience = patience
        self.connection = None
        self.pid = None  # the worker at the other end, known from its last answer on this connection
        self.count = 0
        self.results = []

    def ask(self, path="/echo", **query):
        """One request; its result, and the body of the answer if there is one."""
        self.count += 1
        ident = f"{self.name}-{self.count}"
        words = "&".join(f"{key}={value}" for key, value in {"id": ident, **query}.items())
        start, body, detail = time.monotonic(), b"", ""
        method = "POST" if self.posts and self.count % 3 == 0 else "GET"
        try:
            if self.connection is None:
                self.pid = None
                self.connection = self.connect(self.port, self.patience)
                self.connected.append((self.connection.socket.getsockname()[1], start))
                self.connection.begin()
            self.connection.received = 0
            answer = self.connection.request(f"{path}?{words}", close=not self.keep, method=method)
            body = answer.body
            verdict = verdict_of(answer, ident, path)
            self.pid = int(answer.headers.get("x-pid", 0)) or self.pid
            if verdict != "ok":
                detail = f"{answer.status} {body[:60]!r}"
        except (Loss, ValueError) as error:
            verdict = verdict_of_loss(error, self.connection)
            detail = f"{type(error).__name__}: {error}"
            if self.connection:
                self.connection.open = False
        port = self.connected[-1] if self.connection else None
        result = Result(ident, start, time.monotonic(), verdict, self.pid, detail, method, port)
        self.results.append(result)
        if self.connection and not self.connection.open:
            self.close()
        return result, body

    def close(self):
        """Hang up."""
        if self.connection:
            self.connection.socket.close()
            self.connection = None


def verdict_of(answer, ident, path):
    """Of a whole answer: /echo and /rows must repeat the id and nothing else, the other pages have bodies of their own."""
    if 500 <= answer.status <= 599:
        return "5xx"
    right = answer.status == 200 and (path not in ("/echo", "/rows") or set(answer.body.split()) == {ident.encode()})
    return "ok" if right else "wrong"


def verdict_of_loss(error, connection):
    """Of anything else: an answer of which something has come is truncated, else the connection was reset."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return "lost"
    if connection is None:
        return "refused" if isinstance(cause, ConnectionRefusedError) else "reset"
    if isinstance(cause, OSError) or isinstance(error, Closed):
        return "truncated" if connection.received else "reset"
    return "wrong"


class Load:
    """Some clients that ask all the time, half of them on connections that they keep; what became of the requests."""

    def __init__(self, port, kept=4, closed=4, patience=PATIENCE, clients=None, pause=PAUSE):
        self.stopping = threading.Event()
        self.pause = pause
        own = [Client(port, f"c{number}", number < kept, patience) for number in range(kept + closed)]
        self.clients = own if clients is None else clients
        self.threads = [threading.Thread(target=self._run, args=[client], daemon=True) for client in self.clients]
        self.begin = self.end = None

    def _run(self, client):
        chance = random.Random(client.name)
        while not self.stopping.is_set():
            # Every fourth answer streams, so that it can be cut.
            query = {} if client.count % 4 else {"pieces": 3}
            client.ask(**query)
            time.sleep(chance.uniform(0, self.pause))
        client.close()

    def __enter__(self):
        self.begin = time.monotonic()
        for thread in self.threads:
            thread.start()
        self.wait_round()
        return self

    def __exit__(self, *_):
        self.end = time.monotonic()
        self.stopping.set()
        for thread in self.threads:
            thread.join(GUARD)

    def wait_round(self, limit=5):
        """Wait until each client has had two more results, so one of a request that was sent after this call."""
        marks = [client.count + 2 for client in self.clients]
        deadline = time.monotonic() + limit
        while any(client.count < mark for client, mark in zip(self.clients, marks)) and time.monotonic() < deadline:
            time.sleep(0.002)

    @property
    def results(self):
        """Every request that is over, in the order of their ends."""
        found = [result for client in self.clients for result in list(client.results)]
        return sorted(found, key=lambda result: result.end)

    @property
    def bad(self):
        """The results that are not as they must be."""
        return [result for result in self.results if result.verdict != "ok"]

    def pids(self, since):
        """The workers that have answered requests sent after that."""
        return {result.pid for result in self.results if result.verdict == "ok" and result.start > since}

    def count(self):
        """How many of each verdict."""
        return Counter(result.verdict for result in self.results)

    def gap(self):
        """The longest time without a good answer, in seconds, while the load lasted."""
        good = [result.end for result in self.results if result.verdict == "ok" and result.end <= self.end]
        times = [self.begin, *good, self.end]
        return max(after - before for before, after in zip(times, times[1:]))
