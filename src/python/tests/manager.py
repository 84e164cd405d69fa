"""Plays the manager's part of the worker contract: binds a socket, starts workers, takes their datagrams."""

import array
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BOOTSTRAP = os.path.join(os.path.dirname(HERE), "bootstrap.py")
GUARD = 30  # seconds after which a wait is a failure
CONTRACT = "7"  # the version of the worker contract
F_ADD_SEALS, SEALS = 1033, 1 | 2 | 4  # fcntl.F_ADD_SEALS of Python 3.13; F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW

SETTINGS = {
    "hooks": None,
    "threads": 1,
    "prefix": "",
    "static": {},
    "django_static": False,
    "interpreter": "that of the test",
    "max_requests": None,
    "max_requests_jitter": 0,
}
HTTP = {
    "request_id": False,
    "access_format": "combined",
    "trusted_proxies": [],
    "forwarded_fields": None,
    "proxy_protocol": False,
    "max_body": 64 << 20,
    "max_head": 32768,
    "max_headers": 100,
    "body_in_memory": 256 << 10,
    "response_in_memory": 256 << 10,
    "response_in_file": 64 << 20,
    "max_buffered": 1 << 30,
    "header_timeout": 10.0,
    "body_timeout": 10.0,
    "write_timeout": 10.0,
    "keepalive_timeout": 60.0,
    "graceful_timeout": 20.0,
    "max_connections": 1000,
}

# Lowers its own descriptors to the numbers of the contract, ignores what is meant for the manager, then becomes the program, as a manager's
# child does between fork and exec.
LAUNCH = """
import _signal, ctypes, fcntl, os, sys
moves = [int(n) for n in sys.argv[1].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in moves]
os.closerange(3, 100)
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n, True)
    os.close(fd)
ctypes.CDLL(None).prctl(1, 15)
for name in ("HUP", "USR1", "USR2", "TTIN", "TTOU"):
    _signal.signal(getattr(_signal, "SIG" + name), _signal.SIG_IGN)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Failure(Exception):
    pass


class Worker:
    """One worker, perhaps with a template in front of it; use it as a context manager. `dual`: a listener for IPv6 and IPv4.
    `env`: more variables, or others, or with None fewer than the contract's."""

    def __init__(self, extension, application, python=sys.executable, chdir=HERE, unix=False, dual=False, env=None, stderr=None, preload=False, seals=SEALS, bootstrap=None, journal=False, **settings):
        http = {name: settings.pop(name, value) for name, value in HTTP.items()}
        self.settings = dict(SETTINGS, application=application, http=http, **settings)
        self.preload = preload
        self.bootstrap = bootstrap  # another text than the manager's
        self.python = python
        self.extension = os.path.abspath(extension)
        self.chdir = chdir
        self.env = env or {}
        self.journal = journal  # the log passes for that of systemd
        self.stderr = stderr  # a descriptor to go over to
        self.folder = tempfile.TemporaryDirectory(prefix="preforkd-")
        if unix:
            self.listener = socket.socket(socket.AF_UNIX)
            self.path = os.path.join(self.folder.name, "sock")
            self.listener.bind(self.path)
        elif dual:
            self.listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            self.path = None
        else:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", 0))
            self.path = None
        self.listener.listen(512)
        self.address = self.path or ("127.0.0.1", self.listener.getsockname()[1])
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind("\0preforkd-test-%d-%s" % (os.getpid(), os.path.basename(self.folder.name)))
        self.notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.board = os.memfd_create("scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.board, 64 * 512)
        fcntl.fcntl(self.board, F_ADD_SEALS, seals)
        self.log = open(os.path.join(self.folder.name, "log"), "w+b")
        self.template = None
        self.orders = None
        self.pid = None
        self.process = None
        self.start()

    def start(self):
        preload = self.preload
        fds = [self.listener.fileno(), self.board]
        stop, self.orders = os.pipe()
        env = dict(os.environ)
        env.update(
            PREFORKD_CONTRACT=CONTRACT,
            PREFORKD_KIND="template" if preload else "wsgi",
            LISTEN_FDS="1",
            LISTEN_FDNAMES="web",
            NOTIFY_SOCKET=self.notify.getsockname().replace(b"\0", b"@", 1).decode(),
            PREFORKD_APP="web",
            PREFORKD_GENERATION="2",
            PREFORKD_SCOREBOARD_FD="4",
            PREFORKD_EXTENSION=self.extension,
            PREFORKD_WSGI=json.dumps(self.settings),
        )
        child = None
        if preload:
            # Grandchildren come to whoever is subreaper.
            import ctypes

            ctypes.CDLL(None).prctl(36, 1)
            self.template, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.template.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            fds.append(child.fileno())
            env["PREFORKD_TEMPLATE"] = "5"
            if self.stderr is not None:
                fds.append(self.stderr)
                env["PREFORKD_STDERR_FD"] = "6"
        else:
            fds.append(stop)
            env["PREFORKD_STOP_FD"] = "5"
            env["PREFORKD_SLOT"] = "3"
            env["PREFORKD_SCOREBOARD_RECORD"] = "9"
        if self.journal:
            status = os.fstat(self.log.fileno())
            env["JOURNAL_STREAM"] = "%d:%d" % (status.st_dev, status.st_ino)
        for name, value in self.env.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        bootstrap = self.bootstrap
        if bootstrap is None:
            with open(BOOTSTRAP) as source:
                bootstrap = source.read()
        numbers = ",".join(map(str, fds))
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", LAUNCH, numbers, self.python, "-c", bootstrap],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env=env,
            cwd=self.chdir,
            pass_fds=fds,
            start_new_session=True,
        )
        if preload:
            child.close()
            if self.receive(self.template)[0] != "READY":
                self.fail("the template is not ready")
            self.pid = self.fork(1, 3, 9, stop)
        os.close(stop)
        message, pid = self.receive(self.notify)
        if message != "READY=1":
            self.fail("expected READY=1, not %r" % message)
        if self.pid is None:
            self.pid = self.process.pid
        if pid != self.pid:
            self.fail("READY=1 of process %d and not of %d" % (pid, self.pid))

    def fork(self, ticket, slot, record, stop=None, own=None):
        """Has the template fork a worker, which stops at the end of the pipe `stop` and has the listener `own`; its process id."""
        self.order(ticket, slot, record, stop, own)
        message, pid = self.receive(self.template)
        if message != "FORKED %d" % ticket:
            self.fail("expected FORKED %d, not %r" % (ticket, message))
        return pid

    def order(self, ticket, slot, record, stop=None, own=None):
        """Asks the template for a worker."""
        along = [(name, fd) for name, fd in ((b"stop", stop), (b"own", own)) if fd is not None]
        names = b",".join(name for name, _ in along) or b"-"
        socket.send_fds(self.template, [b"FORK %d %d %d %s" % (ticket, slot, record, names)], [fd for _, fd in along])

    def freeze(self):
        """Stops the process that was started, worker or template, until SIGCONT."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def receive(self, sock):
        """A message and the process id that the kernel vouches for."""
        if not select.select([sock], [], [], GUARD)[0]:
            self.fail("no message came")
        data, ancillary, _, _ = sock.recvmsg(256, socket.CMSG_SPACE(12))
        pid = 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid = array.array("i", value[:12])[0]
        return data.decode(), pid

    def fail(self, message):
        log = self.read_log()
        self.kill()
        raise Failure(message + "\n" + log)

    def read_log(self):
        self.log.flush()
        with open(self.log.name, errors="replace") as log:
            return log.read()

    def record(self, index=9):
        """A record of the scoreboard as a list of its 64 words."""
        return list(array.array("Q", os.pread(self.board, 512, index * 512)))

    def sleeps(self):
        """The main thread waits in the kernel."""
        with open("/proc/%d/stat" % self.pid) as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"

    def succeed(self, index=9):
        """Notes that other workers accept what waits."""
        os.pwrite(self.board, (1).to_bytes(8, "little"), index * 512 + 432)

    def connect(self):
        sock = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        sock.settimeout(GUARD)
        sock.connect(self.address)
        return sock

    def wait(self):
        """Waits for the worker to end; its exit status, negative for a signal."""
        if self.template is None:
            return self.process.wait(GUARD)
        descriptor = os.pidfd_open(self.pid)
        try:
            if not select.select([descriptor], [], [], GUARD)[0]:
                self.fail("the worker does not end")
        finally:
            os.close(descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def files(self):
        """What the descriptors of the worker are of."""
        folder = "/proc/%d/fd/" % self.pid
        for fd in os.listdir(folder):
            try:
                yield os.readlink(folder + fd)
            except FileNotFoundError:
                pass

    def end_orders(self):
        """Tells the worker to stop, by no signal."""
        if self.orders is not None:
            os.close(self.orders)
            self.orders = None

    def stop(self):
        """Asks the worker to stop and gives its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def kill(self):
        for pid in {self.pid, self.process.pid} - {None}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end_orders()
        self.kill()
        if self.template is not None:
            self.template.close()
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass
        self.process.wait()
        self.listener.close()
        self.notify.close()
        self.log.close()
        os.close(self.board)
        self.folder.cleanup()
