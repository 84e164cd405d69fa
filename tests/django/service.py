"""The service manager's part: starts a server as systemd would, and hears what it says.

The server gets its listening socket as fd 3 (LISTEN_FDS) and a notify socket, so nothing here ever
guesses a free port, polls or sleeps.
"""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

GUARD = 30  # seconds: a hang becomes a failure, nothing else depends on it

# LISTEN_PID must be the server's own pid, which is known only after the fork. A small program that
# becomes the server, and not preexec_fn, which is unsafe once the test has threads.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Service:
    """A server process, its listening socket, its notify socket, its log."""

    # Where the server finds the notify socket: at a path, as with systemd, or at an abstract name ("@name").
    abstract = False
    # Seconds that anything may take.
    guard = GUARD

    def __init__(self, command, env=None, cwd=None):
        self.folder = tempfile.TemporaryDirectory(prefix="preforkd-service-")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind("" if self.abstract else f"{self.folder.name}/notify")  # "": the kernel chooses a name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.heard = []
        self.lines = []
        self.more_lines = threading.Condition()
        name = self.notify.getsockname()
        name = "@" + name[1:].decode("ascii") if self.abstract else name
        environ = {**os.environ, **(env or {}), "NOTIFY_SOCKET": name, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
        fd = self.listener.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", LAUNCHER, str(fd), *map(str, command)],
            env=environ, cwd=cwd, pass_fds=[fd], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        # The server alone holds the socket now: when it lets go, clients are refused.
        self.listener.close()
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        # A server that ends while a test waits for its word must fail the test at once, not after the guard.
        self.ender = threading.Thread(target=self._say_ended, daemon=True)
        self.ender.start()

    def _read_log(self):
        for line in self.process.stdout:
            with self.more_lines:
                self.lines.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                self.more_lines.notify_all()
        with self.more_lines:
            self.lines.append(None)  # the end: every process that held the log is gone
            self.more_lines.notify_all()

    @property
    def log(self):
        """What the server and its children have printed."""
        with self.more_lines:
            return [line for line in self.lines if line is not None]

    def wait_log(self, pattern, start=0):
        """Wait for a line that `pattern` is found in, from line `start` on; its match."""
        deadline = time.monotonic() + self.guard
        with self.more_lines:
            at = start
            while True:
                while at < len(self.lines):
                    if self.lines[at] is None:
                        raise AssertionError(f"the log ended without {pattern!r}\n{self.report()}")
                    if found := re.search(pattern, self.lines[at]):
                        return found
                    at += 1
                if not self.more_lines.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no {pattern!r} in the log\n{self.report()}")

    def wait_notify(self, *wanted):
        """Wait for a datagram that has all of the lines `wanted`; its lines as a dictionary."""
        deadline = time.monotonic() + self.guard
        while True:
            self.notify.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                lines = self.notify.recv(65536).decode().splitlines()
            except TimeoutError:
                raise AssertionError(f"no {wanted} on the notify socket\n{self.report()}") from None
            self.heard.append(lines)
            if lines[0].startswith("ENDED="):
                raise AssertionError(f"ended instead of {wanted}: {lines[0]}\n{self.report()}")
            if set(wanted) <= set(lines):
                return dict(line.split("=", 1) for line in lines if "=" in line)

    def _say_ended(self):
        status = self.process.wait()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(f"ENDED=exit status {status}".encode(), self.notify.getsockname())

    def send(self, number):
        """Send the server a signal."""
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        """Ask the server to stop; its exit status, once every child that held its log has ended too."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(self.guard)
        except subprocess.TimeoutExpired:
            name = signal.Signals(number).name
            raise AssertionError(f"still there {self.guard} s after {name}\n{self.report()}") from None
        self.reader.join(self.guard)
        if self.reader.is_alive():
            raise AssertionError(f"children outlived the server\n{self.report()}")
        return status

    def close(self):
        """Whatever happened: nothing of the server stays."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                if pid != self.process.pid or self.process.poll() is None:
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        # What nobody has read may leave no room for the end.
        self.notify.close()
        self.ender.join(self.guard)
        self.reader.join(self.guard)
        self.process.stdout.close()
        self.folder.cleanup()

    def report(self):
        """What a person wants to see when a test has failed."""
        heard = "\n".join("  " + " | ".join(lines) for lines in self.heard)
        log = "\n".join("  " + line for line in self.lines if line is not None)
        return f"notified:\n{heard}\nlog:\n{log}"


def descendants(pid):
    """The pids of all children, their children and so on, but for those that have ended and wait to be reaped."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split() if is_running(child)]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [below for child in children for below in descendants(child)]


def is_running(pid):
    """Whether a process has not ended yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
