"""An application that does with its scoreboard what it can."""
import array
import fcntl
import json
import os
import threading

RECORD = 512
F_ADD_SEALS, F_SEAL_WRITE = 1033, 8


def scoreboards():
    """Descriptor and name of each scoreboard that this process holds."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # that of the folder itself
        if "preforkd scoreboard" in name:
            found.append((int(fd), name))
    return found


def outcome(action, *arguments):
    """The number of the error, or None if there was none."""
    try:
        action(*arguments)
    except OSError as error:
        return error.errno
    return None


def own_record(fd):
    """Where the record of this process begins."""
    number = 0
    while array.array("Q", os.pread(fd, 8, number * RECORD))[0] != os.getpid():
        number += 1
    return number * RECORD


def forge(fd, since):
    """Write nonsense as soon as the worker has noted that it is idle."""
    place = own_record(fd)
    while any(os.pread(fd, 8, place + 6 * 8)):
        os.sched_yield()
    words = array.array("Q", os.pread(fd, RECORD, place))
    most = 2**64 - 1
    words[2:9] = array.array("Q", [most, most, most, most, since, most, most])
    line = b"\x1b[2J\nERROR app=other is lost\r\xff\xe2\x80\xae".ljust(160, b"\x00")
    words[9:29] = array.array("Q", line)
    os.pwrite(fd, words[2:29].tobytes(), place + 16)


def application(environ, start_response):
    boards = scoreboards()
    fd = boards[0][0]
    size = os.fstat(fd).st_size
    if environ["QUERY_STRING"]:
        threading.Thread(target=forge, args=(fd, int(environ["QUERY_STRING"]))).start()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({
        "names": [name for _, name in boards],
        "inodes": [os.fstat(fd).st_ino for fd, _ in boards],
        "refused": [
            outcome(os.ftruncate, fd, 0),
            outcome(os.ftruncate, fd, size + 1),
            outcome(os.pwrite, fd, b"x", size),
            outcome(fcntl.fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE),
        ],
    }).encode()]
