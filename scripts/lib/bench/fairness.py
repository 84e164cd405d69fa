"""How connections are distributed over the workers."""
import http.client
import threading
import time

from .findings import Finding, at_most, told
from .master import Master, switches
from .throughput import note

CONNECTIONS = {False: 4000, True: 400}
KEPT = 128
CLIENTS = 16
BUSY = 2
TURN = 0.05  # seconds for each of those requests to have found its worker
BURSTS = {False: 10, True: 7}
SPREAD = "least / median / most"


def run(options):
    """With 2, 8 and 64 workers on all cores."""
    found = []
    for workers in (2, 8, 64):
        note(f"fairness with {workers} workers")
        with Master(f"workers = {workers}", "preload = true", app="pages") as master:
            master.ready()
            found += [*short(master, workers, CONNECTIONS[options.quick]), *kept(master, workers)]
    found += [*map(busy, (2, 8, 64)), burst(8, BURSTS[options.quick]), asleep()]
    note("")
    return found


def ask(port, path="/pid"):
    """Sends a request on a connection of its own; the process id of the worker that answers."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", path, headers={"Connection": "close"})
    answer = int(client.getresponse().read())
    client.close()
    return answer


def short(master, workers, connections):
    """One request on each connection."""
    pids = [worker["pid"] for worker in master.workers()]
    before = sum(map(switches, pids))

    def some():
        for _ in range(connections // CLIENTS):
            ask(master.port)

    threads = [threading.Thread(target=some) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    woken = (sum(map(switches, pids)) - before) / connections
    requests = sorted(worker["requests"] for worker in master.workers())
    return [
        told(f"{workers} workers: requests per worker, {connections} connections of {CLIENTS} clients, {SPREAD}",
             f"{requests[0]} / {requests[len(requests) // 2]} / {requests[-1]}"),
        told(f"{workers} workers: wake-ups of all workers per connection", f"{woken:.2f}"),
    ]


def kept(master, workers):
    """Connections that stay open."""
    clients = []
    for _ in range(KEPT):
        client = http.client.HTTPConnection("127.0.0.1", master.port, timeout=30)
        client.request("GET", "/pid")
        client.getresponse().read()
        clients.append(client)
    held = sorted(worker["connections"] for worker in master.workers())
    for client in clients:
        client.close()
    return [told(f"{workers} workers: connections per worker, {KEPT} kept open, {SPREAD}",
                 f"{held[0]} / {held[len(held) // 2]} / {held[-1]}")]


def busy(workers):
    """While all but one worker are busy for two seconds, the last one serves every new connection."""
    held = BUSY + TURN * workers
    with Master(f"workers = {workers}", "preload = true", app="pages") as master:
        master.ready()
        taken, threads = [], []
        first = time.monotonic()
        for number in range(1, workers):
            threads.append(threading.Thread(target=lambda: taken.append(ask(master.port, f"/pid?{held}"))))
            threads[-1].start()
            wait_busy(master, number)
        begin, slowest, answered = time.monotonic(), 0.0, []
        while time.monotonic() - begin < BUSY / 2:
            start = time.monotonic()
            answered.append(ask(master.port))
            slowest = max(slowest, time.monotonic() - start)
        assert time.monotonic() - first < held, f"{workers - 1} workers were not busy at the same time"
        for thread in threads:
            thread.join()
    wrong = sum(pid in taken for pid in answered)
    return Finding(f"{workers - 1} of {workers} workers busy for {BUSY} s: new connections that they took",
                   f"{wrong} of {len(answered)}, slowest answer {slowest * 1000:.0f} ms", "0", wrong == 0)


def wait_busy(master, number):
    """Waits until so many workers are in a request."""
    deadline = time.monotonic() + BUSY
    while sum(worker["busy"] is not None for worker in master.workers()) < number:
        assert time.monotonic() < deadline, f"{number} requests did not keep {number} workers busy\n{master.report()}"
        time.sleep(0.005)


def burst(workers, times):
    """Sends as many slow requests at once as there are idle workers, several times; the share that waited for another one."""
    with Master(f"workers = {workers}", "preload = true", app="pages") as master:
        master.ready()
        took = []

        def one(gate):
            gate.wait()
            start = time.monotonic()
            ask(master.port, "/pid?0.5")
            took.append(time.monotonic() - start)

        for _ in range(times):
            gate = threading.Barrier(workers)
            threads = [threading.Thread(target=one, args=(gate,)) for _ in range(workers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    waited = sum(seconds > 0.9 for seconds in took)
    title = f"{workers} requests of 0.5 s at one instant to {workers} idle workers, {times} times: % that waited for another one"
    return at_most(title, 100 * waited / len(took), 2, "{:.1f}")


def asleep():
    """With threads, no request waits while another one sleeps."""
    with Master("workers = 1", "threads = 4", "preload = true", app="pages") as master:
        master.ready()
        sleeper = threading.Thread(target=ask, args=(master.port, "/pid?1"))
        sleeper.start()
        wait_busy(master, 1)
        slowest = 0.0
        for _ in range(50):
            start = time.monotonic()
            ask(master.port)
            slowest = max(slowest, time.monotonic() - start)
        sleeper.join()
    return at_most("threads=4, one request sleeps: slowest of 50 others, ms", slowest * 1000, 100, "{:.0f}")
