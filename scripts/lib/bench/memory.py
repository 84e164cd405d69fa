"""Memory of Django workers and of the master."""
import subprocess

from .findings import at_most, told
from .master import Master, private, smaps
from .places import on_core
from .throughput import note

WORKERS, MORE = 8, 64
REQUESTS = {False: 10_000, True: 300}


def run(options):
    """Proportional shares (PSS) of all processes that run Python: workers and template."""
    with Master("workers = 1", app="django") as master:
        master.ready()
        ready, alone, pages = shares(master), first_requests(master, 1), options.quick
        served = shares_after(master, 1, REQUESTS[pages])
    found = [told("one worker, not preloaded, PSS, MB", f"{ready / 1024:.1f}"),
             told("the same when it has answered", f"{alone / 1024:.1f}"),
             told(f"the same after {REQUESTS[pages]:,} requests", f"{served / 1024:.1f}")]
    with Master(f"workers = {WORKERS}", "preload = true", app="django") as master:
        master.ready()
        start = shares(master)
        touched = first_requests(master, WORKERS)
        note(f"{REQUESTS[pages]:,} requests to each of {WORKERS} workers")
        after = shares_after(master, WORKERS, REQUESTS[pages])
        own = private(master.process.pid)
        found += [
            told(f"{WORKERS} preloaded workers and their template, PSS, MB", f"{start / 1024:.1f}"),
            told("the same when each has answered", f"{touched / 1024:.1f}"),
            at_most(f"{WORKERS} preloaded workers with template / one worker, all ready", start / ready, 1.6),
            told("the same when each has answered some requests", f"{touched / alone:.2f}"),
            at_most(f"the same after {REQUESTS[pages]:,} requests each", after / served, 2.2),
            at_most(f"master's private memory with {WORKERS} workers, kB", own, 4096, "{:,}"),
        ]
        master.tell("scale", f"bench={MORE}")
        master.wait_ready(MORE)
        more = (private(master.process.pid) - own) / (MORE - WORKERS)
        found.append(at_most(f"for each further worker up to {MORE}, kB", more, 10, "{:.1f}"))
    note("")
    return found


def shares(master):
    """kB of all workers and of what they were forked from."""
    return sum(smaps(pid)["Pss"] for pid in {worker["pid"] for worker in master.workers()} | set(master.others()))


def first_requests(master, workers):
    """The same when each worker has answered some."""
    return shares_after(master, workers, 20)


def shares_after(master, workers, requests):
    """The same when each worker has answered so many."""
    url = f"http://127.0.0.1:{master.port}/plain"
    command = on_core(1, ["wrk", "-t1", f"-c{4 * workers}", "-d1s", url])
    while min(worker["requests"] for worker in master.workers()) < requests:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return shares(master)
