"""p99 at a fixed rate, which does not fall when the server is slow (oha)."""
import json
import statistics
import subprocess

from . import servers
from .findings import Finding, at_most, told
from .places import OHA, on_core
from .rows import ROWS
from .throughput import check, measure, medians, note

ROW = next(row for row in ROWS if row.key == "plain")
CONNECTIONS = 64
SHARE = 0.8
# Requests before it is measured: near the peak, what the first ones take would be behind all others.
WARM = 3000
# Their peaks set the rate: 80 % of the slowest's is a load that each of them can bear.
SERIOUS = ("preforkd", "bjoern", "granian", "uWSGI", "mod_wsgi")
LEVEL = 1.05  # what two runs differ by anyway


def run(names, options, results):
    """p50 and p99 of each server at a rate for all, and of the fast ones at a higher one too."""
    names = [name for name in names if ROW.takes(name) and name != servers.BARE]
    peaks = medians(results)
    if any((ROW.key, name) not in peaks for name in names):
        once = type(options)(**{**vars(options), "rounds": 1, "wants": lambda key: True})
        peaks = medians(measure(names, once, [ROW])[0])
    rate = int(SHARE * min(peaks[ROW.key, name] for name in names if name in SERIOUS and (ROW.key, name) in peaks))
    # And a rate that few can bear: 80 % of preforkd's peak, or of the best peer's if that is lower.
    best = max((peaks[ROW.key, name] for name in names if name != "preforkd"), default=float("inf"))
    own = int(SHARE * min(peaks[ROW.key, "preforkd"], best))
    found = {}
    for number in range(1, options.rounds + 1):
        for name in names:
            note(f"round {number} of {options.rounds}: latency of {name}")
            try:
                server = servers.Running(name, ROW.app)
            except AssertionError as error:
                print(f"\nWithout {name}: {str(error).splitlines()[0]}")
                continue
            try:
                check(server, ROW)
                url = f"http://127.0.0.1:{server.port}{ROW.path}"
                warm(url)
                for at in sorted({rate, own}):
                    if at < peaks[ROW.key, name]:
                        found.setdefault((name, at), []).append(oha(url, at, options))
            except (AssertionError, subprocess.CalledProcessError) as error:
                print(f"\nWithout {name} in round {number}: {str(error).splitlines()[0]}")
            finally:
                server.close()
    note("")
    table = {key: [statistics.median(run[n] for run in runs) for n in range(3)] for key, runs in found.items()}
    show(table)
    return [verdict(table, at) for at in sorted({rate, own})]


def warm(url):
    """Sends requests as quickly as the server answers them."""
    command = [OHA, "--no-tui", f"-n{WARM}", f"-c{CONNECTIONS}", url]
    subprocess.run(on_core(1, command), check=True, stdout=subprocess.DEVNULL)


def oha(url, rate, options):
    """Answers per second, p50 and p99 in milliseconds; time that a request waits for a free connection counts."""
    command = [OHA, "--no-tui", "--output-format=json", f"-q{rate}", f"-c{CONNECTIONS}", f"-z{options.seconds}s",
               "--latency-correction", "-w", url]
    report = json.loads(subprocess.run(on_core(1, command), check=True, capture_output=True, text=True).stdout)
    assert set(report["statusCodeDistribution"]) == {"200"}, report["statusCodeDistribution"]
    percentiles = report["latencyPercentiles"]
    return report["summary"]["requestsPerSec"], percentiles["p50"] * 1000, percentiles["p99"] * 1000


def show(table):
    """The servers, the quickest first."""
    print(f"\n## Latency\n\n{ROW.title}, {CONNECTIONS} connections, requests sent at a fixed rate\n")
    print("| server | sent/s | answered/s | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|")
    for (name, rate), (answered, middle, late) in sorted(table.items(), key=lambda entry: (entry[0][1], entry[1][2])):
        print(f"| {name} | {rate} | {answered:.0f} | {middle:.2f} | {late:.2f} |")


def verdict(table, rate):
    """The p99 must not be above that of the best peer."""
    peers = {name: late for (name, at), (_, _, late) in table.items() if at == rate and name != "preforkd"}
    title = f"{ROW.title}: p99 at {rate}/s, {CONNECTIONS} connections, ms"
    if ("preforkd", rate) not in table:
        return Finding(title, "not measured", "", False)
    late = table["preforkd", rate][2]
    if not peers:
        return told(title, f"{late:.2f}")
    best = min(peers, key=peers.get)
    return at_most(f"{title}, beside {best}", late, peers[best] * LEVEL)
