"""Clients that are slow on purpose (slowhttptest), while others ask as ever."""
import contextlib
import shutil
import statistics
import subprocess
import time

import processes
from clients import Client
from fronts import FRONT, need_kept
from stage import scenario

MANY = 500  # connections of each kind
ROUND = 1.5  # seconds
# What each attack sends, and how often: see slowhttptest(1).
HEADS = ["-H", "-i", "10", "-x", "24"]
BODIES = ["-B", "-i", "10", "-x", "10", "-s", "8192"]
READERS = ["-X", "-w", "1", "-y", "512", "-n", "5", "-z", "32"]
RANGES = ["-R", "-a", "5", "-b", "2000"]


def attack(port, kind, path):
    """One of them, on its way."""
    url = f"http://127.0.0.1:{port}{path}"
    command = ["slowhttptest", "-c", str(MANY), "-r", str(MANY), "-l", "120", "-p", "5", "-v", "0", "-u", url, *kind]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def attacks(server, *kinds):
    """All of these, when their connections are there."""
    running = [attack(server.port, kind, "/big?id=slow" if kind is READERS else "/echo?id=slow") for kind in kinds]
    try:
        wanted = 0.9 * MANY * len(kinds)
        if server.wait(lambda: established(server.port) >= wanted, 20, 0.1) is None:
            raise AssertionError(f"only {established(server.port)} slow connections")
        time.sleep(0.5)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
        server.wait(lambda: established(server.port) < MANY / 10, 20, 0.1)


def established(port):
    """How many connections to this port the server has."""
    with open("/proc/net/tcp") as table:
        fields = [line.split() for line in table.readlines()[1:]]
    return sum(each[1].endswith(f":{port:04X}") and each[3] == "01" for each in fields)


def used(server):
    """Nanoseconds of CPU that the workers have used so far."""
    return sum(int(processes.read(pid, "schedstat").split()[0]) for pid in [*server.fronts(), *server.workers()])


def measure(server, client):
    """CPU of a request, its usual time, and the rate."""
    times, cpu, since = [], used(server), time.monotonic()
    while time.monotonic() < since + ROUND:
        result, _ = client.ask()
        times.append(result.end - result.start)
    return (used(server) - cpu) / len(times), statistics.median(times), len(times) / (time.monotonic() - since)


@scenario("0 lost, a request costs less than 5 % more", FRONT)
def slow_heads_bodies_and_readers(stage):
    """500 of each at the same time; rounds with them and without them take turns."""
    if not shutil.which("slowhttptest"):
        stage.skipped = "slowhttptest is not installed"
        return
    quiet, busy = [], []
    with stage.serve() as server:
        client = Client(server.port, "normal")
        measure(server, client)
        for _ in range(3 if stage.quick else 7):
            quiet.append(measure(server, client))
            with attacks(server, HEADS, BODIES, READERS):
                busy.append(measure(server, client))
        stage.take(client.results, server)
        need_kept_one(stage, client)
    (cpu, usual, rate), (more, longer, slower) = (map(statistics.median, zip(*rounds)) for rounds in (quiet, busy))
    stage.note(
        f"CPU of a request {cpu / 1000:.0f} and {more / 1000:.0f} us, its median time {usual * 1e6:.0f} and {longer * 1e6:.0f} us, "
        f"{rate:.0f} and {slower:.0f} requests/s"
    )
    stage.need(more <= 1.05 * cpu, f"a request costs {100 * (more / cpu - 1):.0f} % more")
    stage.need_none_lost()


def need_kept_one(stage, client):
    """The part of the target that the normal client has kept its connection."""
    stage.need(len(client.connected) == 1, "the normal client lost its connection")


@scenario("0 lost, no connection closed, no gap over 300 ms", FRONT)
def range_attack(stage):
    """500 requests with a thousand ranges each."""
    if not shutil.which("slowhttptest"):
        stage.skipped = "slowhttptest is not installed"
        return
    with stage.serve() as server, stage.load(server, kept=4, closed=2) as load:
        process = attack(server.port, RANGES, "/echo?id=range")
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        load.wait_round()
        need_kept(stage, load)
    stage.need_none_lost()
    stage.need(stage.gap <= 0.3, f"a gap of {stage.gap * 1000:.0f} ms")
