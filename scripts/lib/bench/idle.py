"""Wake-ups of an app that nobody uses."""
import time

from .findings import at_most
from .master import Master, switches
from .throughput import note

SECONDS = {False: 10, True: 3}
WORKERS = 4


def run(options):
    """How often the processes were woken, from /proc."""
    found = []
    for threads in (1, 4):
        with Master(f"workers = {WORKERS}", f"threads = {threads}", "preload = true", app="django") as master:
            master.ready()
            workers = [worker["pid"] for worker in master.workers()]
            # What a start leaves to do is done.
            time.sleep(1)
            pids = [master.process.pid, *workers, *master.others()]
            time.sleep(0.5)
            before = [switches(pid) for pid in pids]
            note(f"{SECONDS[options.quick]} s of idleness")
            time.sleep(SECONDS[options.quick])
            woken = [switches(pid) - count for pid, count in zip(pids, before)]
        seconds = SECONDS[options.quick]
        most = max(woken[1:1 + WORKERS])
        found += [at_most(f"threads={threads}: wake-ups of the master in {seconds} s", woken[0], 0, "{}"),
                  at_most(f"threads={threads}: most wake-ups of one worker in {seconds} s", most, 1, "{}")]
    note("")
    return found
