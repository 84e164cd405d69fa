"""How long starting and scaling take."""
import http.client
import os
import statistics
import subprocess
import time

from .findings import at_most, told
from .master import Master
from .places import APPS, PYTHON
from .throughput import note

TIMES = {False: 7, True: 1}
PROGRAMS = {False: 1000, True: 100}


def run(options):
    """Beside the time of `python -c "import the application"`."""
    times = TIMES[options.quick]
    found = []
    for app, path in (("hello", "/"), ("django", "/plain")):
        note(f"start of {app}")
        # In turns, as everything here.
        both = [(imported(app), first_answer(app, path), imported(app, path)) for _ in range(times)]
        importing, answering, calling = (statistics.median(column) for column in zip(*both))
        found += [
            told(f"{app}: python -c \"import the application\", ms", f"{importing:.0f}"),
            at_most(f"{app}: first 200 after that, ms", answering - importing, 30, "{:.0f}"),
        ]
        if app == "django":
            # The first call imports the views and compiles regular expressions, whoever calls.
            found.append(told("django: the application's own first call takes, ms", f"{calling - importing:.0f}"))
    note("32 preloaded workers")
    both = [(imported("django"), all_ready("django", 32)) for _ in range(times)]
    importing, readying = (statistics.median(column) for column in zip(*both))
    title = "django: 32 preloaded workers ready after the import, ms"
    found.append(at_most(title, readying - importing, 150, "{:.0f}"))
    note("scaling")
    found.append(at_most("django: scaling 8 -> 64 preloaded workers, ms",
                         statistics.median(scaling(8, 64) for _ in range(min(times, 5))), 200, "{:.0f}"))
    number = PROGRAMS[options.quick]
    note(f"{number} command workers")
    found.append(at_most(f"{number:,} command workers started and ready (two cores), s",
                         statistics.median(programs(number) for _ in range(min(times, 3))), 3 * number / 1000))
    note("")
    return found


def imported(app, path=None):
    """Milliseconds of a Python that imports the application, and perhaps calls it once."""
    application, folder = APPS[app]
    module, _, name = application.partition(":")
    code = f"import {module}"
    if path:
        code += f"; from limit import environ; list({module}.{name}(environ({path!r}), lambda *_: None))"
    start = time.monotonic()
    subprocess.run([PYTHON, "-c", code], cwd=folder, check=True,
                   env={**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{os.path.dirname(__file__)}"})
    return (time.monotonic() - start) * 1000


def first_answer(app, path):
    """Milliseconds until a client that has been waiting in the queue has its answer."""
    with Master("workers = 1", "preload = true", app=app) as master:
        client = http.client.HTTPConnection("127.0.0.1", master.port, timeout=30)
        client.request("GET", path)
        status = client.getresponse().status
        took = (time.monotonic() - master.began) * 1000 - master.launching()
        assert status == 200, f"{path}: {status}\n{master.report()}"
        client.close()
        return took


def all_ready(app, workers):
    """Milliseconds until so many preloaded workers are ready."""
    with Master(f"workers = {workers}", "preload = true", app=app) as master:
        return master.ready() * 1000 - master.launching()


def scaling(before, after):
    """Milliseconds from the command until the last worker is ready."""
    with Master(f"workers = {before}", "preload = true", app="django") as master:
        master.ready()
        start = time.monotonic()
        master.tell("scale", f"bench={after}")
        master.wait_ready(after)
        return (time.monotonic() - start) * 1000


def programs(number):
    """Seconds until so many workers with a trivial program run."""
    with Master(f"workers = {number}", 'ready = "exec"', command=["/bin/sleep", "1000"]) as master:
        return master.ready() - master.launching() / 1000
