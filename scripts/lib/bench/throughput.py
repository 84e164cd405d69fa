"""Requests per second: rounds in which the servers take turns, and the tables."""
import re
import resource
import statistics
import subprocess
import sys
import time

from . import servers
from .places import APPS, HERE, PYTHON, on_core
from .rows import POSTED, ROWS

LIMIT = "the limit"


def note(text):
    """Shows what is being done, on one line that is overwritten."""
    print(f"\r{text[:78]:78}\r", end="", file=sys.stderr, flush=True)


def check(running, row):
    """Checks that the page is as it must be: errors are not throughput."""
    status, body = running.fetch("POST" if row.post else "GET", row.path, b"x" * POSTED if row.post else None)
    if status != 200 or row.holds not in body or (row.size and len(body) != row.size):
        raise AssertionError(
            f"{running.name} answered {row.path} with {status}, {len(body)} bytes\n{running.service.report()}"
        )


def wrk(running, row, options):
    """Requests per second in one run, how many connections broke, microseconds of the server's processor time per
    request, and the part of a core that wrk itself needed: near 100 % the rate is the client's."""
    connections = min(row.connections or options.connections, options.connections)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{options.seconds}s"]
    if row.post:
        command += ["-s", HERE / "post.lua"]
    command.append(f"http://127.0.0.1:{running.port}{row.path}")
    before, began, own = running.spent(), time.monotonic(), children()
    report = subprocess.run(on_core(1, command), check=True, capture_output=True, text=True).stdout
    spent, busy = (running.spent() - before) / 1000, (children() - own) / (time.monotonic() - began)
    if "Non-2xx" in report:
        raise AssertionError(f"errors are not throughput:\n{report}\n{running.service.report()}")
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", report)[1])
    requests = int(re.search(r"(\d+) requests in", report)[1])
    return rate, sum(map(int, broken.groups())) if broken else 0, spent / max(1, requests), 100 * busy


def children():
    """Seconds of processor time of the programs that have been run here."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def limit(row, options):
    """The same of the application alone, on the servers' core."""
    application, folder = APPS[row.app]
    command = on_core(0, [PYTHON, HERE / "limit.py", application, row.path, options.seconds])
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    rate, spent = map(float, done.stdout.split())
    return rate, 0, spent, 0


def measure(names, options, rows=ROWS):
    """Runs of each (row, server). A server that fails with an application is left out of that row, with a note."""
    rows = [row for row in rows if options.wants(row.key)]
    results, failed = {}, {}
    for number in range(1, options.rounds + 1):
        for app in APPS:
            pages = [row for row in rows if row.app == app]
            wanted = [name for name in names if (name, app) not in failed and any(row.takes(name) for row in pages)]
            # Another one begins in each round.
            turn = number % max(1, len(wanted))
            wanted = wanted[turn:] + wanted[:turn]
            started = []
            try:
                for name in wanted:
                    note(f"round {number} of {options.rounds}: starting {name} with {app}")
                    try:
                        started.append(servers.Running(name, app))
                        for row in pages:
                            if row.takes(name):
                                check(started[-1], row)
                    except AssertionError as error:
                        failed[name, app] = str(error)
                        if started and started[-1].name == name:
                            started.pop().close()
                for row in pages:
                    one_row(row, started, results, (number, options))
            finally:
                for running in started:
                    running.close()
    note("")
    return results, failed


def one_row(row, started, results, situation):
    """One run of each server."""
    number, options = situation
    for running in started:
        if row.takes(running.name):
            note(f"round {number} of {options.rounds}: {row.title}, {running.name}")
            results.setdefault((row.key, running.name), []).append(wrk(running, row, options))
    if row.limit:
        results.setdefault((row.key, LIMIT), []).append(limit(row, options))


def medians(results):
    """The median rate for each (row, server)."""
    return {key: statistics.median(rate for rate, *_ in runs) for key, runs in results.items()}


def show(results, names):
    """One table for each row."""
    rates = medians(results)
    for row in ROWS:
        there = [name for name in [LIMIT, *names] if (row.key, name) in results]
        if not there:
            continue
        print(f"\n{row.title} (`{row.path}`)\n")
        print("| server | median req/s | lowest | highest | preforkd is | of the limit | CPU µs | wrk busy | broken |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        for name in sorted(there, key=lambda name: -rates[row.key, name]):
            runs, own = results[row.key, name], rates.get((row.key, "preforkd"))
            rate = rates[row.key, name]
            cells = [f"{number:,.0f}" for number in (rate, *(pick(rate for rate, *_ in runs) for pick in (min, max)))]
            cells.append(f"{own / rate:.2f} x" if own and name != "preforkd" else "")
            above = rates.get((row.key, LIMIT))
            cells.append(f"{100 * rate / above:.1f} %" if above and name != LIMIT else "")
            cells.append(f"{statistics.median(run[2] for run in runs):,.1f}")
            cells.append(f"{statistics.median(run[3] for run in runs):.0f} %" if name != LIMIT else "")
            print(f"| {name} | {' | '.join(cells)} | {sum(run[1] for run in runs)} |")
