"""An application that starts processes in all the ways that Python has. Each child tells what it has inherited."""

import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

STARTED = []


def inheritance():
    """Which signals are not as in any Python program, and which descriptors are sockets, pipes of the server and the like."""
    odd = {}
    for name, usual in (("TERM", signal.SIG_DFL), ("INT", signal.default_int_handler), ("HUP", signal.SIG_DFL), ("CHLD", signal.SIG_DFL)):
        handler = signal.getsignal(getattr(signal, "SIG" + name))
        if handler != usual:
            odd[name] = repr(handler)
    with open("/proc/self/status") as status:
        status = dict(line.split(":", 1) for line in status)
    if int(status["SigBlk"], 16) & (1 << 14 | 1 << 1):
        odd["blocked"] = status["SigBlk"].strip()
    if int(status["SigCgt"], 16) & 1 << 14:
        odd["caught"] = status["SigCgt"].strip()
    for name in ("HUP", "USR1", "USR2", "TTIN", "TTOU"):
        bit = 1 << getattr(signal, "SIG" + name) - 1
        if int(status["SigCgt"], 16) & bit or int(status["SigIgn"], 16) & bit:
            odd[name] = "not the default"
    for fd in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            continue
        if name.startswith(("socket:", "anon_inode:[event")) or name.endswith(" (deleted)"):
            odd[fd] = name
    if signal.set_wakeup_fd(-1) != -1:
        odd["wakeup"] = True
    return odd


def report(pipe):
    os.write(pipe, json.dumps(inheritance()).encode() + b"\n")


def stay(pipe):
    report(pipe)
    time.sleep(1000)


def start(how, reader, writer):
    """A child that stays after its report; how to end it and learn its status."""
    if how in ("fork", "libc"):
        # A library may fork without Python's hooks.
        pid = os.fork() if how == "fork" else ctypes.PyDLL(None).fork()
        if pid == 0:
            if how == "libc":
                os.write(writer, b"{}\n")
                time.sleep(1000)
            stay(writer)
        return lambda: os.kill(pid, signal.SIGTERM), lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if how == "subprocess":
        code = "import os, offspring; offspring.stay(%d)" % writer
        child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[writer])
        return child.terminate, child.wait
    if how == "preexec":
        child = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: report(writer))
        return child.terminate, child.wait
    raise ValueError(how)


def stay_connected(connection):
    connection.send(inheritance())
    time.sleep(1000)


def process(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=stay_connected, args=(theirs,), daemon=True)
    child.start()
    STARTED.append(child)
    return child, ours


def application(environ, start_response):
    how = environ["PATH_INFO"][1:]
    if how == "large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x" * (20 << 20)]
    if how.startswith("process-"):
        child, ours = process(how[8:])
        odd = ours.recv()
        if environ["QUERY_STRING"] != "stays":
            child.terminate()
            child.join()
        answer = [odd, child.exitcode, child.pid]
    elif how == "returns":
        # A child that forgets to leave.
        pid = os.fork()
        if pid:
            answer = [{}, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), pid]
        elif environ["QUERY_STRING"] == "exit":
            sys.exit(7)
        else:
            answer = "from the child"
    elif how == "raced":
        # The signal comes at once.
        ends = set()
        for _ in range(300):
            pid = os.fork()
            if pid == 0:
                time.sleep(1000)
            os.kill(pid, signal.SIGTERM)
            ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        answer = [{}, list(ends), 0]
    elif how == "own-handler":
        # As in any program, a child keeps the handlers that the application has set.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"x")
            while True:
                time.sleep(1000)
        os.read(reader, 1)
        os.kill(pid, signal.SIGTERM)
        answer = [{}, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), pid]
    elif how == "leaves":
        # A grandchild whose files have the numbers that were the server's.
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.closerange(3, writer)
            fds = [os.open("/dev/zero", os.O_RDONLY) for _ in range(3, writer)]
            if os.fork() == 0:
                same = all(os.readlink("/proc/self/fd/%d" % fd) == "/dev/zero" for fd in fds)
                os.write(writer, b"%d %d" % (same, len(fds)))
                os._exit(0)
            os._exit(0)
        os.waitpid(pid, 0)
        answer = [{}, os.read(reader, 100).decode(), pid]
    else:
        reader, writer = os.pipe()
        end, wait = start(how, reader, writer)
        with open(reader) as reports:
            odd = json.loads(reports.readline())
        end()
        answer = [odd, wait(), 0]
        os.close(writer)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
