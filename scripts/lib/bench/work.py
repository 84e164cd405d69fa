"""What the master's own work costs for each worker."""
from pathlib import Path

from .findings import at_most
from .master import Master
from .throughput import note

NUMBERS = {False: (500, 2000, 8000), True: (200,)}
# Milliseconds of CPU time for each worker.
MOST = 0.2


def run(options):
    """CPU time of the master alone, for each of many workers that do nothing."""
    found = []
    for number in NUMBERS[options.quick]:
        note(f"the master's work for {number:,} workers")
        for what, milliseconds in steps(number).items():
            found.append(at_most(f"{number:,} command workers: {what}, ms of the master's CPU time each", milliseconds, MOST, "{:.3f}"))
    note("")
    return found


def steps(number):
    """Milliseconds for each worker, by what is done."""
    half = number // 2
    took = {}
    with Master(f"workers = {number}", 'ready = "exec"', 'graceful_timeout = "30s"',
                command=["/bin/sleep", "100000"]) as master:
        cpu = Clock(master.process.pid)
        master.ready()
        took["started"] = cpu.lap() / number
        master.tell("status")
        took["shown by status"] = cpu.lap() / number
        master.tell("reload")
        master.wait_alone(number)
        took["replaced by a reload"] = cpu.lap() / number
        master.tell("scale", f"bench={half}")
        master.wait_alone(half)
        took["fewer by scaling"] = cpu.lap() / (number - half)
        master.tell("scale", f"bench={number}")
        master.wait_alone(number)
        took["more by scaling"] = cpu.lap() / (number - half)
        # The last look comes before the master has ended, so that all but the last few ends are counted.
        master.process.terminate()
        while master.process.poll() is None:
            cpu.look()
        took["stopped"] = cpu.lap() / number
    return took


class Clock:
    """CPU time of a process with one thread: /proc/PID/schedstat, in nanoseconds."""

    def __init__(self, pid):
        self.file = Path(f"/proc/{pid}/schedstat")
        self.last = 0
        self.now = 0

    def look(self):
        """Take the time, as long as there is one."""
        try:
            self.now = max(self.now, int(self.file.read_text().split()[0]))
        except (OSError, IndexError):
            pass

    def lap(self):
        """Milliseconds since the last lap."""
        self.look()
        took, self.last = self.now - self.last, self.now
        return took / 1e6
