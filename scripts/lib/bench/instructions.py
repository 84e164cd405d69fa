"""Instructions per request in user space, which do not depend on how busy the machine is (callgrind)."""
import http.client
import json
import os
import re
import shutil
import socket
import subprocess

from . import places
from .findings import Finding, at_least, told
from .master import Master
from .throughput import note

REPORT = places.BENCH / "callgrind.out"
CALLGRIND = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={REPORT}"]
RECORD = places.HERE / "instructions.json"
REQUESTS = 2000
TOLERANCE = 3  # per cent
# The header fields besides Host: of wrk, which sends none, and of a browser.
CLIENTS = {
    "as wrk asks": {},
    "as a browser asks": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Connection": "keep-alive",
        "Cookie": "sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef0123456789abcdef",
        "Upgrade-Insecure-Requests": "1",
        "Cache-Control": "max-age=0",
    },
}


def run(options):
    """Instructions per request, compared with the record."""
    if not shutil.which("valgrind"):
        print("bench: no instructions are counted without valgrind: apt-get install valgrind")
        return []
    warm("hello", "/")
    counted = {client: per_request(served, "hello", "/", REQUESTS, headers) for client, headers in CLIENTS.items()}
    now = {"rustc": places.compiler(), "CPython": places.python_version(), "hello world": counted}
    if options.record:
        RECORD.write_text(json.dumps(now, indent=2) + "\n")
        print(f"bench: recorded in {RECORD.relative_to(places.ROOT)}")
    before = json.loads(RECORD.read_text())
    found = [told("counted with", f"rustc {now['rustc']}, CPython {now['CPython']}"),
             told("recorded with", f"rustc {before['rustc']}, CPython {before['CPython']}")]
    for client, count in counted.items():
        most = before["hello world"][client] * (1 + TOLERANCE / 100)
        change = 100 * (count / before["hello world"][client] - 1)
        found.append(Finding(f"hello world {client}, instructions per request", f"{count:,} ({change:+.1f} %)",
                             f"at most {most:,.0f} (+{TOLERANCE} %)", count <= most))
    return found if options.counting else found + share_of_limit()


def share_of_limit():
    """What is left of a request of Django's plain view for the application, where no cache and no clock plays a part."""
    warm("django", "/plain")
    alone, behind = (per_request(count, "django", "/plain", REQUESTS // 5, {}) for count in (called, served))
    return [told("Django plain view without a server, instructions per request", f"{alone:,}"),
            told("Django plain view served by preforkd", f"{behind:,}"),
            at_least("the limit's share of these, %", 100 * alone / behind, 97, "{:.1f}")]


def warm(app, path):
    """Makes Python compile all modules first: a start that compiles them costs as much as a thousand requests."""
    served(app, path, 1, {})


def per_request(count, app, path, requests, headers):
    """The difference between twice as many requests and these, so that the start does not count."""
    once, twice = (count(app, path, number, headers) for number in (requests, 2 * requests))
    return round((twice - once) / requests)


def called(app, path, requests, _):
    """Instructions of an application that is called so often without a server."""
    note(f"counting the instructions of {requests} calls")
    application, folder = places.APPS[app]
    subprocess.run([*CALLGRIND, places.PYTHON, places.HERE / "limit.py", application, path, f"x{requests}"],
                   cwd=folder, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    return reported()


def reported():
    """What callgrind has counted."""
    return int(re.search(r"^(?:summary|totals): (\d+)", REPORT.read_text(), re.M)[1])


class Slow(Master):
    """Under callgrind everything takes fifty times as long."""

    guard = 300


def served(app, path, requests, headers):
    """Instructions of a worker in its whole life with so many requests."""
    note(f"counting the instructions of {requests} requests")
    REPORT.unlink(missing_ok=True)
    # The master asks an interpreter for its own name first, and starts what that says.
    wrapper = places.BENCH / "python-under-callgrind"
    wrapper.write_text(
        "#!/bin/sh\n"
        'if [ -z "$PREFORKD_EXTENSION" ]; then\n'
        f'    exec "{places.PYTHON}" -c \'import sys; sys.executable = sys.argv[1]; exec(sys.argv[2])\' "$0" "$2"\n'
        "fi\n"
        f'exec {" ".join(CALLGRIND)} "{places.PYTHON}" "$@"\n'
    )
    wrapper.chmod(0o755)
    keys = ['env = { PYTHONHASHSEED = "0" }', "timeout = '10m'", "graceful_timeout = '5m'", "start_timeout = '5m'"]
    with Slow(*keys, app=app, python=wrapper) as master:
        master.ready()
        # http.client would add fields of its own.
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{master.port}\r\n{fields}\r\n".encode()
        with socket.create_connection(("127.0.0.1", master.port), master.guard) as client:
            for _ in range(requests):
                client.sendall(request)
                answer = http.client.HTTPResponse(client)
                answer.begin()
                assert answer.status == 200 and answer.read().startswith(b"Hello"), answer.status
                answer.close()
        master.stop()
    note("")
    return reported()
