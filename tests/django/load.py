"""Clients that send requests without pause and count every one that is not answered as it must be."""
import threading

from service import GUARD
from strict import Connection, Loss


class Client(threading.Thread):
    """One client: keeps its connection while the server lets it, or closes it after each request."""

    def __init__(self, load, number, keep):
        super().__init__(daemon=True)
        self.load = load
        self.number = number
        self.keep = keep
        self.answered = 0
        self.lost = []  # (worker's pid as far as known, reason)

    def run(self):
        """Requests without pause, until told to stop."""
        connection, pid = None, None
        count = 0
        while not self.load.stopping.is_set():
            count += 1
            wanted = f"{self.number}-{count}"
            try:
                if connection is None:
                    pid = None
                    connection = Connection(self.load.port)
                answer = connection.request(f"/echo?id={wanted}", close=not self.keep)
                if (answer.status, answer.body) != (200, wanted.encode()):
                    raise Loss(f"{wanted} was answered with {answer.status} {answer.body[:80]!r}")
                pid = int(answer.headers["x-pid"])
                self.load.note(self, answer.headers)
            except (Loss, ValueError, KeyError) as error:
                self.lost.append((pid, f"{type(error).__name__}: {error}"))
                if connection:
                    connection.open = False
            if connection and not connection.open:
                connection.socket.close()
                connection = None
        if connection:
            connection.socket.close()


class Load:
    """All clients; what they saw, and when."""

    def __init__(self, port, kept=4, closed=4):
        self.port = port
        self.stopping = threading.Event()
        self.seen = set()  # (slot, generation, pid)
        self.progress = threading.Condition()
        self.clients = [Client(self, number, number < kept) for number in range(kept + closed)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        self.wait_round()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for client in self.clients:
            client.join(GUARD)
            assert not client.is_alive(), f"client {client.number} hangs"

    def note(self, client, headers):
        """A request was answered."""
        with self.progress:
            client.answered += 1
            self.seen.add((headers["x-slot"], int(headers["x-generation"]), int(headers["x-pid"])))
            self.progress.notify_all()

    def wait_until(self, fact, what):
        """Wait for a fact about what was answered."""
        with self.progress:
            assert self.progress.wait_for(fact, GUARD), f"never: {what}; seen {sorted(self.seen)}, lost {self.lost}"

    @property
    def workers(self):
        """Who has answered so far: slot, generation, pid; the newest generation last."""
        with self.progress:
            return sorted(self.seen, key=lambda worker: worker[1])

    def wait_worker(self, fact, what):
        """Wait for an answer of a worker of whom `fact(slot, generation, pid)` is true."""
        self.wait_until(lambda: any(fact(*worker) for worker in self.seen), what)

    def wait_generation(self, number):
        """Wait for an answer of this generation."""
        self.wait_worker(lambda slot, generation, pid: generation == number, f"generation {number}")

    def wait_round(self):
        """Wait until each client has had one more answer to a request sent after this call."""
        # The answer that is on its way now belongs to an earlier request.
        marks = {client: client.answered + 2 for client in self.clients}
        self.wait_until(lambda: all(client.answered >= mark for client, mark in marks.items()), "a round of answers")

    @property
    def lost(self):
        """Every loss of every client."""
        return [(client.number, *loss) for client in self.clients for loss in client.lost]

    @property
    def answered(self):
        """How many requests were answered rightly."""
        return sum(client.answered for client in self.clients)
