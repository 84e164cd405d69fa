"""Instructions per request in user space, which do not depend on how busy the machine is (callgrind)."""
import http.client
import json
import re
import shutil

from . import places
from .findings import Finding, told
from .master import Master
from .throughput import note

RECORD = places.HERE / "instructions.json"
REQUESTS = 2000
TOLERANCE = 3  # per cent
# The header fields of wrk, and those that a browser sends.
CLIENTS = {
    "as wrk asks": {},
    "as a browser asks": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-US,en;q=0.5",
        "Connection": "keep-alive",
        "Cookie": "sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef0123456789abcdef",
        "Upgrade-Insecure-Requests": "1",
        "Cache-Control": "max-age=0",
    },
}


def run(options):
    """Per request, beside the record."""
    if not shutil.which("valgrind"):
        print("bench: no instructions are counted without valgrind: apt-get install valgrind")
        failed = Finding("instructions per request", "no valgrind", "", False)
        return [failed] if options.check or options.record else []
    counted = {client: per_request(headers) for client, headers in CLIENTS.items()}
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
    return found


def per_request(headers):
    """What twice as many requests cost more, so that the start does not count."""
    once, twice = (total(number, headers) for number in (REQUESTS, 2 * REQUESTS))
    return round((twice - once) / REQUESTS)


def total(requests, headers):
    """Instructions of a worker in its whole life with so many requests."""
    note(f"counting the instructions of {requests} requests")
    report = places.BENCH / "callgrind.out"
    report.unlink(missing_ok=True)
    # The master asks an interpreter for its own name first, and starts what that says.
    wrapper = places.BENCH / "python-under-callgrind"
    wrapper.write_text(
        "#!/bin/sh\n"
        'if [ -z "$PREFORKD_EXTENSION" ]; then\n'
        f'    exec "{places.PYTHON}" -c \'import sys; sys.executable = sys.argv[1]; exec(sys.argv[2])\' "$0" "$2"\n'
        "fi\n"
        f'exec valgrind --quiet --tool=callgrind --callgrind-out-file="{report}" "{places.PYTHON}" "$@"\n'
    )
    wrapper.chmod(0o755)
    keys = ['env = { PYTHONHASHSEED = "0" }', "timeout = '10m'", "graceful_timeout = '2m'"]
    with Master(*keys, app="hello", python=wrapper) as master:
        master.ready()
        client = http.client.HTTPConnection("127.0.0.1", master.port, timeout=60)
        for _ in range(requests):
            client.request("GET", "/", headers=headers)
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"Hello, world\n"), answer.status
        client.close()
        master.stop()
    note("")
    return int(re.search(r"^(?:summary|totals): (\d+)", report.read_text(), re.M)[1])
