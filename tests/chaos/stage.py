"""What a scenario is played on: it starts servers and clients, keeps what was seen, and says what was missed."""
import contextlib
import time
from collections import Counter
from typing import NamedTuple

from clients import Load
from servers import FRONTS, GOOD, SERVERS

SCENARIOS = []


class Scenario(NamedTuple):
    """One row of the table."""

    name: str
    target: str
    play: object
    servers: tuple
    quick: bool


def scenario(target, servers=tuple(SERVERS), quick=False):
    """Make a function a scenario: its name, with spaces, is the row's; `target` is what preforkd promises."""

    def register(play):
        SCENARIOS.append(Scenario(play.__name__.replace("_", " "), target, play, servers, quick))
        return play

    return register


class Stage:
    """One scenario with one server."""

    def __init__(self, server, quick):
        self.name = server
        self.kind = server.split()[0]
        self.quick = quick
        self.counts = Counter()
        self.gap = None
        self.settled = None
        self.notes = []
        self.misses = []
        self.bad = []  # the results that are not as they must be
        self.skipped = None
        self.server = None

    @contextlib.contextmanager
    def serve(self, output=None, wrap=(), talks=False, ready=True, code=GOOD, **options):
        """A server, with all workers ready unless that is not to be waited for."""
        server = self.server = {**SERVERS, **FRONTS}[self.name](options, output=output, wrap=wrap, talks=talks, code=code)
        try:
            if ready and not output and server.wait_full() is None:
                raise AssertionError("did not start")
            yield server
        finally:
            server.close()

    @contextlib.contextmanager
    def load(self, server, **options):
        """Clients that ask all the time; what they have seen is counted, whatever happens."""
        load = Load(server.port, **options)
        try:
            with load:
                yield load
        finally:
            self.take(load.results, server)
            gap = load.gap()
            self.gap = gap if self.gap is None else max(gap, self.gap)

    def take(self, results, server):
        """Count these requests, and how many of them the application was given more than once."""
        asked = server.asked()
        for result in results:
            self.counts[result.verdict] += 1
            if result.verdict != "ok":
                self.bad.append((result, asked.get(result.ident)))
            self.counts["twice"] += len(asked.get(result.ident, ())) > 1

    def need(self, fact, otherwise):
        """A part of the target."""
        if not fact:
            self.misses.append(otherwise)
        return fact

    def need_none_lost(self):
        """The part of the target that most scenarios have: every answer was good."""
        bad = {verdict: number for verdict, number in self.counts.items() if verdict != "ok" and number}
        words = ", ".join(f"{number} {verdict}" for verdict, number in bad.items())
        self.need(self.counts["ok"] > 0, "no good answer")
        self.need(not bad, words)

    def need_only_inside(self, results, server, ended):
        """The part of the target that only requests in workers that were ended are lost; `ended` is their pid: when.

        A request belongs to the worker that noted it, else to the one that had answered on its connection; else it
        must have been under way when one of them ended. Those that were refused belong to none.
        """
        asked = server.asked()
        outside = [result for result in results if result.verdict != "ok" and not inside(result, asked, ended)]
        words = Counter(result.verdict for result in outside)
        self.need(not outside, ", ".join(f"{number} {verdict} elsewhere" for verdict, number in words.items()))
        self.need(self.counts["ok"] > 0, "no good answer")
        self.need(not self.counts["twice"], f"{self.counts['twice']} twice")

    def need_settled(self, since, at, limit, what="settled"):
        """The part of the target that is a time: from `since` to `at`, which is None if it never came."""
        if at is None:
            return self.need(False, f"never {what}")
        taken = max(0.0, at - since)
        self.settled = taken if self.settled is None else max(taken, self.settled)
        return self.need(taken <= limit, f"{what} after {taken:.2f} s")

    def need_living(self, server):
        """The part of the target that the master lives."""
        return self.need(server.living(), "the master died")

    def note(self, text):
        """A measured figure that the table has no column for."""
        self.notes.append(text)


def inside(result, asked, ended):
    """Whether a request was lost with a worker that was ended."""
    if result.verdict not in ("reset", "truncated"):
        return False
    pids = asked.get(result.ident) or ([result.pid] if result.pid else [])
    if pids:
        return any(pid in ended for pid in pids)
    return any(result.start <= when and result.end <= when + 0.5 for when in ended.values())


def play(item, name, quick):
    """One scenario with one server; what goes wrong on the way is a miss too."""
    stage = Stage(name, quick)
    begin = time.monotonic()
    try:
        item.play(stage)
    except Exception as error:  # a server that is gone makes the strangest errors
        stage.misses.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
        stage.error = error
    stage.took = time.monotonic() - begin
    return stage
