"""Sites: p99 of the proxied page at half the peak rate, beside nginx."""
import shutil
import statistics

from . import latency, prepare
from .findings import at_most, told
from .front import CASES, NGINX, OWN, PLAIN, Setup, check, load, turn
from .front import prepare as prepare_front
from .throughput import note

CASE = CASES[0]
SHARE = 0.5


def run(options):
    """Requests at one rate for both, which the slower of them can bear twice; latency counts from when each was due."""
    if not shutil.which("nginx"):
        print("bench: without p99 of sites: no nginx to compare with (apt-get install nginx-light)")
        return []
    if not prepare.load_generator():
        return []
    prepare_front()
    names = OWN, NGINX
    peaks = {name: once(name, lambda setup: load(setup, CASE, options))[0] for name in names}
    rate = int(SHARE * min(peaks.values()))
    runs = {name: [] for name in names}
    for number in range(options.rounds):
        for name in turn(names, number):
            note(f"round {number + 1} of {options.rounds}: p99 of {name}")
            runs[name].append(once(name, lambda setup: late(setup, rate, options)))
    note("")
    middle, last = ({name: statistics.median(run[n] for run in runs[name]) for name in names} for n in (1, 2))
    title = f"{CASE.title}: {{}} at {rate:,}/s, half the peak, {latency.CONNECTIONS} connections, ms, {OWN} and nginx"
    return [
        told(title.format("p50"), f"{middle[OWN]:.2f}, {middle[NGINX]:.2f}"),
        at_most(title.format("p99").replace(" and ", " beside "), last[OWN], last[NGINX] * latency.LEVEL),
    ]


def once(name, measure):
    """What is measured of a server that has just been started."""
    setup = Setup(name)
    try:
        check(setup, CASE)
        return measure(setup)
    finally:
        setup.close()


def late(setup, rate, options):
    """Answers per second, p50 and p99 in milliseconds."""
    url = f"http://127.0.0.1:{setup.ports[PLAIN]}{CASE.path}"
    latency.warm(url)
    return latency.oha(url, rate, options)
