"""What /proc tells about processes, and limits put on processes that run."""
import os
import resource
import signal
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def read(pid, name):
    """A file of a process; empty when there is none any more."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def stat(pid):
    """The fields of /proc/PID/stat from the state on, or nothing."""
    return read(pid, "stat").rpartition(b")")[2].split()


def alive(pid):
    """Whether it runs, or could: a zombie does not."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X")


def children(pid):
    """The children of a process of one thread, zombies too."""
    return [int(child) for child in read(pid, f"task/{pid}/children").split()]


def cpu(pid, reaped=True):
    """Seconds of CPU that it has used, and its children that it has waited for."""
    fields = stat(pid)
    return sum(int(field) for field in fields[11:15 if reaped else 13]) / TICK


def descriptors(pid):
    """Its open descriptors and where they lead."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    except OSError:
        pass
    return found


def memory(pid):
    """Bytes of memory that are its own, shared ones by their part (PSS)."""
    for line in read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def title(pid):
    """How ps shows it."""
    return read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()


def kill(pid, number=signal.SIGKILL):
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Descriptors:
    """Processes that have few descriptors left, until `lift`."""

    def __init__(self, pids, left):
        self.before = {}
        for pid in pids:
            first = max(descriptors(pid)) + 1
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
            self.before[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE, (first + left, hard))

    def lift(self):
        """As before."""
        for pid, limits in self.before.items():
            if alive(pid):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


class Forks:
    """A process tree in which no fork succeeds, until `lift`; or OSError where neither way is open.

    Root is above RLIMIT_NPROC, so for root it takes a control group; for others the limit will do, as it
    counts all processes of the user, of which there are some.
    """

    def __init__(self, pid, family):
        self.group, self.limits = None, {}
        if os.geteuid() != 0:
            for member in (pid, *family):
                hard = resource.prlimit(member, resource.RLIMIT_NPROC)[1]
                self.limits[member] = resource.prlimit(member, resource.RLIMIT_NPROC, (1, hard))
            return
        root = Path("/sys/fs/cgroup/pids")  # of the first version; the second has one tree for everything
        self.home = own_group("pids") if root.is_dir() else own_group("")
        self.group = self.home / f"preforkd-chaos-{pid}"
        self.group.mkdir()
        try:
            (self.group / "pids.max").write_text("0")
            for member in (pid, *family):
                (self.group / "cgroup.procs").write_text(str(member))
        except OSError:
            self.close()
            raise

    def lift(self):
        """As before; the group itself is removed by `close`."""
        for member, limits in self.limits.items():
            if alive(member):
                resource.prlimit(member, resource.RLIMIT_NPROC, limits)
        if self.group:
            (self.group / "pids.max").write_text("max")

    def close(self):
        """Move who is left back to where the rest is, and leave nothing behind."""
        if self.group:
            for member in (self.group / "cgroup.procs").read_text().split():
                try:
                    (self.home / "cgroup.procs").write_text(member)
                except OSError:
                    pass  # it has ended
            self.group.rmdir()


def own_group(controller):
    """The folder of the control group that this process is in."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path("/sys/fs/cgroup") / controller / path.lstrip("/")
    raise FileNotFoundError(f"no control group of {controller or 'version 2'}")
