"""The arguments, and the parts in their order."""
import argparse
import shutil
import signal
import sys

from . import findings, places, prepare, static

# Parts beside the rows, in the order they are done in.
PARTS = ("p99", "instructions", "memory", "start", "work", "idle", "fairness", "front", "front-p99", "front-crowd", "front-reload")


def arguments(text):
    """Parses the command line."""
    from .rows import ROWS
    from .servers import SERVERS

    keys = [row.key for row in ROWS] + ["static"] + list(PARTS)
    parser = argparse.ArgumentParser(description=text.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short run that only shows that everything works")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds of each row")
    parser.add_argument("--seconds", type=positive, default=3, help="whole seconds of one run")
    parser.add_argument("--connections", type=positive, default=32, help="connections of the client")
    parser.add_argument("--only", metavar="ROW", action="append", choices=keys, help="one of: " + ", ".join(keys))
    parser.add_argument("--server", metavar="NAME", action="append", choices=SERVERS,
                        help="compare preforkd only with this server: " + ", ".join(SERVERS))
    parser.add_argument("--check", action="store_true",
                        help="only count instructions, and fail if there are 3 %% more than recorded")
    parser.add_argument("--record", action="store_true", help="only count instructions, and record them")
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.seconds = 1
    options.counting = options.check or options.record
    if options.counting:
        if options.server or set(options.only or ["instructions"]) != {"instructions"}:
            parser.error("--check and --record count preforkd's instructions, nothing else: without --only and --server")
        options.only = ["instructions"]
    options.wants = lambda key: not options.only or key in options.only or key.partition("-")[0] in options.only
    return options


def positive(text):
    """A whole number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def main(text):
    """Runs all parts, or those that were asked for."""
    options = arguments(text)
    # So that what was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    places.BENCH.mkdir(parents=True, exist_ok=True)
    places.set_environment()
    prepare.check(options)
    if options.counting:
        prepare.interpreter()
        names, with_load = [], False
    else:
        prepare.environment()
        prepare.site()
        static.prepare()
        names = servers_there(options)
        with_load = options.wants("p99") and prepare.load_generator()
    print("## Versions\n\n| what | version |\n|---|---|")
    for name, version in places.versions():
        print(f"| {name} | {version} |")
    if not options.counting:
        print(f"\nRounds: {options.rounds}, of {options.seconds} s; {options.connections} connections where nothing else "
              f"is said; one worker on core {places.CORES[0]}, the load on core {places.CORES[1]}.", flush=True)
    behind = rates(names, options, with_load) + parts(options)
    findings.show("## All targets", behind)
    missed = [found for found in behind if found.reached is False]
    print(f"\n{sum(found.reached is True for found in behind)} reached, {len(missed)} behind.")
    if options.check and missed:
        sys.exit(1)


def servers_there(options):
    """The names of the servers that take part."""
    from .servers import BARE, NEEDS, NGINX, SERVERS

    missing = {}
    if not shutil.which("nginx"):
        missing[NGINX] = "nginx-light"
        print("bench: without nginx, which static files are compared with (apt-get install nginx-light)")
    for package, system in prepare.lacking():
        missing[NEEDS[package]] = system
        print(f"bench: without {NEEDS[package]}, which did not build "
              f"(apt-get install {system}, then remove target/bench)")
    wanted = ["preforkd", "preforkd threads=4", BARE, *options.server] if options.server else SERVERS
    return [name for name in SERVERS if name in wanted and name.partition(" http11")[0] not in missing]


def rates(names, options, with_load):
    """The rows in requests per second, and the p99 at a rate that follows from them."""
    from . import latency, ratios, throughput
    from .rows import ROWS

    found = []
    results = {}
    if any(options.wants(row.key) for row in ROWS):
        results, failed = throughput.measure(names, options)
        print("\n## Requests per second")
        for (name, app), reason in failed.items():
            print(f"\nWithout {name} serving {app}: {reason.splitlines()[0]}")
            print(reason, file=sys.stderr)
        throughput.show(results, names)
        found += ratios.findings(results)
    if with_load:
        found += latency.run(names, options, results)
    return found


def parts(options):
    """The parts that do not measure rates."""
    from . import fairness, front, front_crowd, front_p99, front_reload, idle, instructions, memory, start, work

    found = []
    for part in (instructions, memory, start, work, idle, fairness, front, front_p99, front_crowd, front_reload):
        name = part.__name__.rpartition(".")[2].replace("_", "-")
        if options.wants(name):
            results = part.run(options)
            findings.show(part.__doc__.split("\n")[0].rstrip("."), results)
            found += results
    return found
