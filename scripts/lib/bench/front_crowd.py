"""Sites: what idle and slow clients cost the others."""
import os
import resource
import socket
import statistics
import time

from . import static
from .beside import Beside
from .findings import at_least, told
from .front import CASES, FIXED, OWN, PLAIN, Setup, check, load, prepare, until
from .throughput import note

CASE = CASES[0]
# Clients that only keep a connection, and those of each slow kind.
IDLE = {False: 10_000, True: 1000}
SLOW = {False: 500, True: 50}
LARGEST = max(static.SIZES, key=static.SIZES.get)
# What clients of each slow kind begin with. They go on with a byte each second, or take a piece of what they have asked for.
KINDS = {
    "heads": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "bodies": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
    "readers": f"GET /static/{LARGEST}.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
}
PIECE = 1000
# They go on in so many groups, one after the other.
GROUPS = 20
# None of them is to be closed for its slowness while the others are measured.
KEYS = "max_connections = 50000\n" + "".join(f'{what}_timeout = "10m"\n' for what in ("header", "body", "write", "keepalive"))


def run(options):
    """The rate with the crowd, as a part of that without it: the mean of one run before and one after."""
    prepare()
    idle, slow = IDLE[options.quick], SLOW[options.quick]
    allow(idle + len(KINDS) * slow)
    rates, spent = [], []
    setup = Setup(OWN, KEYS)
    try:
        check(setup, CASE)
        load(setup, CASE, options)
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}: {idle:,} idle connections, {slow} slow ones of each kind")
            runs = [load(setup, CASE, options)]
            with Crowd(setup, idle, slow):
                runs.append(load(setup, CASE, options))
            runs.append(load(setup, CASE, options))
            (before, during, after), times = zip(*runs)
            rates.append(2 * during / (before + after))
            spent.append((statistics.mean((times[0], times[2])), times[1]))
    finally:
        setup.close()
    note("")
    title = f"{CASE.title}, with {idle:,} idle connections and {slow} slow {', '.join(KINDS)} each"
    calm, crowded = (statistics.median(times) for times in zip(*spent))
    return [
        at_least(f"{title}: requests per second, with them / without them", statistics.median(rates), 0.95, "{:.3f}"),
        told(f"{title}: µs of processor time, without them and with them", f"{calm:.1f}, {crowded:.1f}"),
    ]


def allow(connections):
    """So many descriptors, and some more."""
    wanted = connections + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted, hard))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
        raise AssertionError(f"only {hard} descriptors are allowed, and {wanted} are needed (ulimit -n)")


class Crowd(Beside):
    """Clients that are there until the end of the block, which fails if the server has closed one of them."""

    def __init__(self, setup, idle, slow):
        super().__init__()
        self.setup = setup
        self.open = self.descriptors()
        self.idle = [begin(setup, b"GET /fixed HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(idle)]
        for client in self.idle:
            answer = b""
            while not answer.endswith(FIXED.encode()):
                data = client.recv(4096)
                assert data, f"a client got {answer!r}"
                answer += data
        self.slow = {kind: [begin(setup, start, kind == "readers") for _ in range(slow)] for kind, start in KINDS.items()}
        # At first the kernel takes what it has room for, which is work at one time for many.
        for client in self.slow["readers"]:
            client.recv(PIECE)

    def descriptors(self):
        """How many the workers of the front have open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.setup.fronts())

    def go_on(self):
        """Each slow client does its part once in a second."""
        group = 0
        due = time.monotonic()
        while not self.stopping.wait(max(0, due - time.monotonic())):
            for kind, clients in self.slow.items():
                for client in clients[group::GROUPS]:
                    assert client.recv(PIECE) if kind == "readers" else client.send(b"x"), f"one of the slow {kind} was closed"
            group = (group + 1) % GROUPS
            due += 1 / GROUPS

    def end(self):
        there = self.descriptors() - self.open
        clients = [*self.idle, *(client for kind in self.slow.values() for client in kind)]
        for client in clients:
            client.close()
        if self.fault or there < len(clients):
            raise AssertionError(f"{there} of {len(clients)} connections were there at the end: {self.fault}")
        until(lambda: self.descriptors() - self.open < 100, self.setup.services[0])


def begin(setup, data, little=False):
    """A client that has sent this; `little`: it takes little at a time."""
    client = socket.socket()
    if little:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * PIECE)
    client.settimeout(10)
    client.connect(("127.0.0.1", setup.ports[PLAIN]))
    client.sendall(data)
    return client
