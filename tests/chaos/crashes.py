"""Workers that are killed, that exit, that cannot live."""
import random
import signal
import statistics
import time

import processes
from clients import Client
from stage import scenario

INSIDE = "only what was in them lost, none refused, full strength in 100 ms"


@scenario(INSIDE, quick=True)
def eight_times_SIGKILL_in_4_s(stage):
    """Random workers, with preloading."""
    kill_eight(stage, signal.SIGKILL)


@scenario(INSIDE)
def eight_times_SIGSEGV_in_4_s(stage):
    """Random workers, with preloading."""
    kill_eight(stage, signal.SIGSEGV)


def kill_eight(stage, number):
    """A random worker each half second."""
    chance = random.Random(8)
    ended = {}
    with stage.serve(preload=True) as server, stage.load(server) as load:
        time.sleep(1.2)  # they have stayed up
        for _ in range(8):
            pid = chance.choice(server.workers() or [0])
            if pid:
                ended[pid] = time.monotonic()
                processes.kill(pid, number)
            time.sleep(0.5)
        last = max(ended.values())
        stage.need_settled(last, server.wait_full(10, without=ended), 0.1, "full strength")
        load.wait_round()
        stage.need_living(server)
        results = load.results
    stage.need_only_inside(results, server, ended)


@scenario("the master lives, only what was in them lost")
def workers_that_exit_with_any_status(stage):
    """0 to 5, those that have a meaning to a shell, and the largest."""
    ended = {}
    with stage.serve() as server, stage.load(server) as load:
        for status in (0, 3, 4) if stage.quick else (0, 1, 2, 3, 4, 5, 64, 126, 127, 128, 137, 143, 254, 255):
            time.sleep(1.2)  # they have stayed up
            ender = Client(server.port, f"exit{status}", keep=False)
            result, _ = ender.ask("/exit", status=status)
            for pid in server.asked().get(result.ident, ()):
                ended[pid] = result.end
            full = server.wait_full(10, without=ended)
            if not stage.need(server.living(), f"the master died of {status}"):
                break
            if not stage.need(full, f"no full strength after {status}"):
                break
            stage.settled = max(stage.settled or 0, full - result.end)
        results = load.results
    stage.need_only_inside(results, server, ended)


@scenario("in 10 s at most 20 forks, 1 s CPU, 20 kB of log; mends by itself")
def workers_that_die_at_each_start(stage):
    """After a good first start; then the cause goes."""
    with stage.serve() as server:
        time.sleep(1.2)  # they have stayed up
        server.sicken()
        cpu, log = server.cpu(), server.log_bytes
        for pid in server.workers():
            processes.kill(pid)
        time.sleep(2 if stage.quick else 10)
        forks, cpu, log = server.stillborn(), server.cpu() - cpu, server.log_bytes - log
        stage.note(f"{forks} forks, {cpu:.2f} s CPU, {log / 1000:.1f} kB")
        if stage.need_living(server):
            stage.need(forks <= 20, f"{forks} forks")
            stage.need(cpu <= 1, f"{cpu:.2f} s of CPU")
            stage.need(log <= 20000, f"{log / 1000:.1f} kB of log")
        server.sicken(False)
        since = time.monotonic()
        stage.need_settled(since, server.wait_full(35), 30, "full strength")


@scenario("median of 20 measured")
def kill_9_to_the_replacement_ready(stage):
    """With preloading; the time until the replacement says that it is ready."""
    times = []
    chance = random.Random(9)
    with stage.serve(preload=True) as server:
        for _ in range(5 if stage.quick else 20):
            time.sleep(1.1)  # they have stayed up
            pid = chance.choice(server.workers())
            since = time.monotonic()
            processes.kill(pid)
            full = server.wait_full(10, without=[pid])
            if not stage.need(full, "never replaced"):
                return
            times.append(full - since)
    stage.note(f"median {statistics.median(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms")
