"""Reloads: one, many, onto what does not work, onto what is slow; and recycling."""
import random
import time

import processes
from servers import GOOD
from stage import scenario


@scenario("0 lost, settled in 3 s", quick=True)
def one_HUP(stage):
    """New code under load."""
    with stage.serve() as server, stage.load(server) as load:
        time.sleep(0.5)
        since = server.hup()
        stage.need_settled(since, server.wait_renewed(since), 3)
        load.wait_round()
        time.sleep(0.5)
    stage.need_none_lost()


@scenario("0 lost, settled in 3 s, a third generation alive for 0.1 s at most, while it ends", quick=True)
def fifty_HUPs(stage):
    """At random intervals of up to 200 ms."""
    chance = random.Random(50)
    crowd = Crowd()
    with stage.serve() as server, stage.load(server) as load:
        for _ in range(10 if stage.quick else 50):
            since = server.hup()
            until = since + chance.uniform(0, 0.2)
            while time.monotonic() < until:
                crowd.look(server)
                time.sleep(0.01)
        stage.need_settled(since, server.wait_renewed(since), 3)
        load.wait_round()
        stage.need_living(server)
    stage.need_none_lost()
    if stage.kind == "preforkd":
        text = f"{crowd.most} generations alive, a third for at most {crowd.longest * 1000:.0f} ms"
        stage.note(text)
        stage.need(crowd.most <= 3 and crowd.longest <= 0.1, text)


class Crowd:
    """How many generations have a process at a time, as their titles tell; only preforkd has them."""

    def __init__(self):
        self.most = 0
        self.longest = 0.0  # seconds with more than two without a break
        self.since = None

    def look(self, server):
        """Count them now."""
        titles = [processes.title(pid) for pid in processes.children(server.pid)]
        number = len({text.rpartition("gen ")[2] for text in titles if "gen " in text})
        self.most = max(self.most, number)
        now = time.monotonic()
        if self.since:
            self.longest = max(self.longest, now - self.since)
        if number <= 2:
            self.since = None
        else:
            self.since = self.since or now


@scenario("lives and serves", quick=True)
def HUP_5_ms_after_exec(stage):
    """The program has just been executed; what it does first must not be to die."""
    dead = 0
    times = 3 if stage.quick else 10
    for _ in range(times):
        with stage.serve(ready=False) as server:
            server.wait(lambda: executed(server), 5, 0)
            time.sleep(0.005)
            since = server.hup()
            if server.wait_full(5) is None:
                dead += 1
                continue
            with stage.load(server, kept=1, closed=1) as load:
                load.wait_round()
            stage.need_settled(since, max(server.ready.values()), 3)
    stage.need(not dead, f"{dead} of {times} died")
    if not dead:
        stage.need_none_lost()


def executed(server):
    """Whether the launcher (python -IS) has become the server (preforkd -c, python -m)."""
    return processes.title(server.pid).split()[1:2] in (["-c"], ["-m"])


@scenario("0 lost")
def recycling(stage):
    """max_requests = 100 with a jitter of 50."""
    with stage.serve(max_requests=100, jitter=50) as server, stage.load(server):
        before = len(server.ready)
        time.sleep(6)
        recycled = len(server.ready) - before
    stage.note(f"{recycled} recycled")
    stage.need(recycled >= 3, f"only {recycled} recycled")
    stage.need_none_lost()


@scenario("0 lost, the next good HUP takes (3 s)", quick=True)
def HUP_onto_code_that_cannot_be_imported(stage):
    """A broken deploy, then a mended one."""
    with stage.serve() as server, stage.load(server):
        server.deploy("raise RuntimeError('a broken deploy')\n")
        server.hup()
        time.sleep(2)
        server.deploy(GOOD)
        since = server.hup()
        stage.need_settled(since, server.wait_renewed(since), 3)
        stage.need_living(server)
    stage.need_none_lost()


@scenario("0 lost, the next good HUP takes (3 s)")
def HUP_onto_a_broken_configuration(stage):
    """A syntax error in app.toml, in gunicorn.conf.py; then without it."""
    with stage.serve() as server, stage.load(server):
        server.configure(broken=True)
        server.hup()
        time.sleep(2)
        server.configure()
        since = server.hup()
        stage.need_settled(since, server.wait_renewed(since), 3)
        stage.need_living(server)
    stage.need_none_lost()


@scenario("0 lost, no gap over 100 ms")
def HUP_onto_an_import_of_3_s(stage):
    """New code that takes its time."""
    with stage.serve() as server, stage.load(server) as load:
        server.deploy("import time\ntime.sleep(3)\n" + GOOD)
        since = server.hup()
        # Workers one after the other: what is promised is that nobody notices.
        stage.need_settled(since, server.wait_renewed(since, 20), 20)
        load.wait_round()
    stage.need_none_lost()
    stage.need(stage.gap <= 0.1, f"a gap of {stage.gap * 1000:.0f} ms")
