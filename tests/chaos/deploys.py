"""Deployments as people do them: releases behind a link, and files that somebody removes."""
import contextlib
import http.client
import itertools
import shutil
import socket
import subprocess
import time

from servers import PREFORKD, PYTHON, SERVERS
from service import GUARD
from stage import scenario

OURS = tuple(name for name in SERVERS if name.startswith("preforkd"))

# A release notes for each request who serves it.
RELEASE = """
from urllib.parse import parse_qs

import app


def application(environ, start_response):
    app.note("release", parse_qs(environ["QUERY_STRING"])["id"][0], "{number}")
    return app.application(environ, start_response)
"""


@scenario("0 lost, each answer from a release that is current, settled in 3 s", quick=True)
def symlinked_release_swapped(stage):
    """current -> releases/N under load; after the reload has settled, the old release is removed."""
    deployed = {}  # number of the release: when the link was swapped, and when only its workers were left
    with stage.serve(chdir="current", code=RELEASE.format(number=0)) as server:
        deployed[0] = (0.0, 0.0)
        with stage.load(server) as load:
            for number in range(1, 4 if stage.quick else 9):
                swapped = server.release(number, RELEASE.format(number=number))
                since = server.hup()
                settled = server.wait_renewed(since)
                stage.need_settled(since, settled, 3)
                # What was answered before this moment may have been noted by an old worker.
                deployed[number] = (swapped, time.monotonic())
                shutil.rmtree(server.home / "releases" / str(number - 1))
                load.wait_round()
    stage.need_none_lost()
    stale, early = wrong_releases(load.results, served(server), deployed)
    stage.need(not stale, f"{stale} answers of an old release")
    stage.need(not early, f"{early} answers of a release before its time")
    stage.note(f"{len(deployed) - 1} releases")


def served(server):
    """For each id the release that served it."""
    words = [line.split() for line in server.noted()]
    return {word[1]: int(word[2]) for word in words if word[0] == "release"}


def wrong_releases(results, releases, deployed):
    """How many answers came from a release that was no more, or not yet, current; one without a release is stale."""
    stale = early = 0
    for result in results:
        if result.verdict == "ok":
            number = releases.get(result.ident, -1)
            oldest = max(each for each, (_, settled) in deployed.items() if settled <= result.start)
            newest = max(each for each, (swapped, _) in deployed.items() if swapped <= result.end)
            stale += number < oldest
            early += number > newest
    return stale, early


@scenario("0 lost at the other listener, both sockets there after each reload", OURS, quick=True)
def sockets_removed(stage):
    """The file of a Unix listener and that of the control socket are removed under load; then HUP."""
    with stage.serve(listen=["unix:web.sock"]) as server, stage.load(server) as load:
        files = [server.home / name for name in ("web.sock", "control.sock")]
        for number in range(2 if stage.quick else 10):
            stage.need(answers(files[0]), f"no answer at the Unix listener before removal {number + 1}")
            for file in files:
                file.unlink()
            since = server.hup()
            stage.need_settled(since, server.wait_renewed(since), 3)
            stage.need(answers(files[0]), f"no answer at the Unix listener after removal {number + 1}")
            status = subprocess.run([PREFORKD, "status", "-c", server.home / "app.toml"], capture_output=True, timeout=GUARD)
            stage.need(status.returncode == 0, f"status {status.returncode} after removal {number + 1}")
            load.wait_round()
    stage.need_none_lost()


# An app that cannot run twice: it binds a port of its own.
ALONE = """
[app.alone]
command = ["{python}", "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
ready = "300ms"
replace = "stop-first"
env = {{ NUMBER = "{number}" }}
"""


@scenario("0 lost by the neighbours, each reload takes (3 s)", OURS, quick=True)
def neighbour_with_its_own_port_replaced(stage):
    """An app with replace = "stop-first" ends before its successor binds the same port; the others serve on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = lambda number: [ALONE.format(python=PYTHON, port=port, number=number)]  # noqa: E731
    with stage.serve(more=more(0)) as server, stage.load(server) as load:
        stage.need(server.wait(lambda: listens(port), 5), "the neighbour never listened")
        for number in range(1, 3 if stage.quick else 9):
            server.options["more"] = more(number)
            server.configure()
            since = server.hup()
            line = f"app=alone: generation {number + 1} runs, after "
            replaced = server.wait(lambda: any(line in each for each in server.log), 5)
            stage.need_settled(since, replaced, 3)
            stage.need(listens(port), f"nobody listens after reload {number}")
            load.wait_round()
    stage.need_none_lost()


def listens(port):
    """Whether somebody accepts there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), GUARD):
        return True
    return False


NUMBERS = itertools.count()


def answers(path):
    """Whether a request at a Unix socket is answered."""
    connection = http.client.HTTPConnection("localhost", timeout=GUARD)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(GUARD)
        connection.sock.connect(str(path))
        connection.request("GET", f"/echo?id=unix-{next(NUMBERS)}")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read() != b""
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
