"""Plays all scenarios with all servers, see scripts/chaos."""
import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "django"))
sys.setswitchinterval(0.0005)  # what is measured must not wait for a thread that is busy

# The order of these is that of the table: each registers its scenarios.
import reloads  # noqa: E402, F401
import deploys  # noqa: E402, F401
import crashes  # noqa: E402, F401
import limits  # noqa: E402, F401
import hangs  # noqa: E402, F401
import endings  # noqa: E402, F401
import logs  # noqa: E402, F401
import streams  # noqa: E402, F401
import upkeep  # noqa: E402, F401
import fronts  # noqa: E402, F401
import slow  # noqa: E402, F401
import table  # noqa: E402
from servers import PREFORKD, PYTHON, SERVERS  # noqa: E402
from stage import SCENARIOS, play  # noqa: E402


def chosen(options):
    """Which scenario with which server, in the order of the table."""
    for item in SCENARIOS:
        if options.only and not any(word.lower() in item.name.lower() for word in options.only):
            continue
        if options.quick and not item.quick and not options.only:
            continue
        for name in item.servers:
            if any(name.startswith(wanted) for wanted in options.server or SERVERS):
                yield item, name


def about():
    """What was measured, on what."""
    version = subprocess.run([PREFORKD, "--version"], capture_output=True, text=True, check=True).stdout.partition("\n")[0]
    other = subprocess.run([PYTHON, "-m", "gunicorn", "--version"], capture_output=True, text=True, check=True).stdout
    name = other.split("version ")[-1].strip(" )\n")
    cores = len(os.sched_getaffinity(0))
    return f"{version}, gunicorn {name}, Python {sys.version.split()[0]}, {cores} cores."


def main():
    """Play, print, tell."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Torments preforkd and gunicorn alike.")
    parser.add_argument("--quick", action="store_true", help="some scenarios only, and fewer times: a smoke run")
    parser.add_argument("--only", action="append", metavar="NAME", help="scenarios whose name has this in it")
    parser.add_argument("--server", action="append", metavar="NAME", help="preforkd or gunicorn, or one kind of it")
    parser.add_argument("--output", metavar="FILE", help="write the tables there as Markdown too")
    parser.add_argument("--list", action="store_true", help="show the scenarios and their targets")
    parser.add_argument("--log", action="store_true", help="show the log of a server that missed a target, and the requests that were lost")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and nothing stays
    if options.list:
        for item in SCENARIOS:
            print(f"{item.name:40}{item.target}")
        return 0
    print(about(), table.head(), sep="\n", flush=True)
    results = []
    for item, name in chosen(options):
        stage = play(item, name, options.quick)
        results.append((item, stage))
        print(table.line(item, stage), flush=True)
        if options.log and stage.misses:
            print(*(f"    {line}" for line in [*stage.server.log, *stage.bad]), sep="\n")
    if not results:
        parser.error("no such scenario")
    if options.output:
        Path(options.output).write_text(table.markdown(results, about()))
    missed = [stage for _, stage in results if stage.kind == "preforkd" and stage.misses]
    print(f"\npreforkd missed {len(missed)} of {sum(stage.kind == 'preforkd' for _, stage in results)} targets")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
