"""What must not grow or leak: descriptors, memory, zombies."""
import json
import subprocess
import time
from pathlib import Path

import processes
from clients import Client
from stage import scenario

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]


@scenario("no descriptor more in the master, under 2 MB more memory")
def forty_reloads(stage):
    """One after the other."""
    with stage.serve() as server:
        time.sleep(0.5)
        count, memory = len(processes.descriptors(server.pid)), processes.memory(server.pid)
        for number in range(5 if stage.quick else 40):
            since = server.hup()
            if server.wait_renewed(since) is None:
                raise AssertionError(f"reload {number + 1} never settled")
        time.sleep(0.5)
        more = len(processes.descriptors(server.pid)) - count
        grown = (processes.memory(server.pid) - memory) / 1e6
        stage.note(f"{more:+} descriptors, {grown:+.2f} MB")
        stage.need(more <= 0, f"{more} descriptors more")
        stage.need(grown < 2, f"{grown:.1f} MB more")


@scenario("none but those of the contract")
def descriptors_that_programs_inherit(stage):
    """Listeners and the scoreboard are the contract's; asked after the start and after a reload."""
    with stage.serve() as server:
        listener = listening(server.port)
        client = Client(server.port, "d", keep=False)
        for _ in range(2):
            _, body = client.ask("/descriptors")
            found = {fd: link for fd, link in json.loads(body).items() if link != listener and "memfd" not in link}
            stage.need(not found, ", ".join(f"{fd} -> {link}" for fd, link in found.items()))
            since = server.hup()
            server.wait_renewed(since)
        stage.take(client.results, server)


def listening(port):
    """How /proc shows the socket that listens there."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port:
            return f"socket:[{fields[9]}]"
    raise AssertionError(f"nobody listens on {port}")


@scenario("no zombie of strangers")
def as_PID_1(stage):
    """In a name space of its own; workers leave sixty orphans behind."""
    if subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL).returncode:
        stage.skipped = "cannot make a name space of processes here"
        return
    # The sockets are meant for the process that is PID 1 there.
    wrap = [*UNSHARE, "sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"]
    with stage.serve(wrap=wrap, ready=False) as server:
        client = Client(server.port, "p", keep=False)
        client.ask()
        time.sleep(0.5)
        master = processes.children(server.pid)[0]
        own = set(below(master))
        adopted = set()
        for _ in range(3):
            client.ask("/orphans", number=20)
            adopted |= set(processes.children(master)) - own
        stage.note(f"{len(adopted)} orphans adopted")
        stage.need(adopted, "no orphans")
        time.sleep(0.8)  # they have ended
        left = set(below(master)) - own
        stage.need(not left, f"{len(left)} orphans left")
        stage.take(client.results, server)
    stage.need_none_lost()


def below(pid):
    """All descendants, zombies too."""
    found = processes.children(pid)
    return found + [each for child in found for each in below(child)]
