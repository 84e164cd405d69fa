"""Sites in between: what kills, reloads and lack of descriptors mean to clients of the front."""
import random
import signal
import socket
import ssl
import statistics
import time
from collections import Counter

import processes
from clients import Client
from endings import ask_at_once, is_free
from protocols import Http2, Secure, trusting
from servers import FRONTS
from service import GUARD
from stage import scenario

FRONT = tuple(FRONTS)


def crowd(server, posts=False):
    """Clients of each protocol: most keep their connections, some make one for each request."""
    return [
        *(Client(server.port, f"plain{number}", number < 2, posts=posts) for number in range(3)),
        *(Client(server.secure, f"tls{number}", number < 2, connect=Secure, posts=posts) for number in range(3)),
        *(Client(server.secure, f"http2-{number}", number < 3, connect=Http2, posts=posts) for number in range(4)),
    ]


def need_kept(stage, load):
    """The part of the target that no connection was closed that its client wanted to keep."""
    closed = sum(len(client.connected) - 1 for client in load.clients if client.keep)
    stage.need(not closed, f"{closed} kept connections closed")


def need_same_fronts(stage, server, before):
    """The part of the target that the workers of the front stay."""
    stage.need(set(server.fronts()) == before, "workers of the front replaced")


def need_once(stage, results, server, ended=()):
    """The part of the target that no request is given to the application twice, but one that may be repeated and whose worker was ended."""
    asked = server.asked()
    twice = Counter()
    for result in results:
        pids = asked.get(result.ident, ())
        excused = result.method == "GET" and sum(pid not in ended for pid in pids) <= 1
        twice[result.method] += len(pids) > 1 and not excused
    words = ", ".join(f"{number} {method} twice" for method, number in twice.items() if number)
    stage.need(not words, words)
    stage.counts["twice"] = twice.total()


@scenario("0 lost, no connection closed, the front's workers stay, settled in 3 s", FRONT, quick=True)
def fifty_HUPs_behind_a_site(stage):
    """Of the application, at random intervals of up to 200 ms, under HTTP/1.1, TLS and HTTP/2."""
    chance = random.Random(50)
    with stage.serve() as server, stage.load(server, clients=crowd(server, posts=True)) as load:
        before = set(server.fronts())
        for _ in range(10 if stage.quick else 50):
            since = server.hup()
            time.sleep(chance.uniform(0, 0.2))
        stage.need_settled(since, server.wait_renewed(since), 3)
        load.wait_round()
        need_same_fronts(stage, server, before)
        need_kept(stage, load)
    stage.need_none_lost()


def near_ends(pid):
    """The ports of the clients of a process that does not run."""
    sockets = {link[8:-1] for link in processes.descriptors(pid).values() if link.startswith("socket:[")}
    with open("/proc/net/tcp") as table:
        fields = [line.split() for line in table.readlines()[1:]]
    return {int(each[2].split(":")[1], 16) for each in fields if each[9] in sockets and each[3] != "0A"}


@scenario("only what was on its connections lost, none refused, full strength in 0.5 s", FRONT, quick=True)
def kill_9_of_a_front_worker(stage):
    """Six times, under HTTP/1.1, TLS and HTTP/2; the others serve on."""
    chance = random.Random(6)
    kills = []  # when, and the ports of the clients
    ended = set()
    with stage.serve() as server, stage.load(server, clients=crowd(server, posts=True)) as load:
        time.sleep(1.2)  # they have stayed up
        for _ in range(3 if stage.quick else 6):
            pid = chance.choice(server.fronts())
            processes.kill(pid, signal.SIGSTOP)
            server.wait(lambda: processes.stat(pid)[:1] == [b"T"], 5)
            ports = near_ends(pid)
            kills.append((time.monotonic(), ports))
            ended.add(pid)
            processes.kill(pid)
            stage.need_settled(kills[-1][0], server.wait_full(10, without=ended), 0.5, "full strength")
            time.sleep(0.5)
        load.wait_round()
        stage.need_living(server)
    outside = [result for result in load.bad if not on_killed(result, kills)]
    words = Counter(result.verdict for result in outside)
    stage.need(not outside, ", ".join(f"{number} {verdict} elsewhere" for verdict, number in words.items()))
    stage.need(stage.counts["ok"] > 0, "no good answer")
    need_once(stage, load.results, server)


def on_killed(result, kills):
    """Whether a request was lost on a connection of a worker that was killed."""
    if result.verdict not in ("reset", "truncated") or not result.port:
        return False
    port, since = result.port
    return any(port in ports and since <= when for when, ports in kills)


@scenario("GETs that had no byte of an answer are answered by others, POSTs are asked once", FRONT, quick=True)
def kill_9_of_workers_behind_a_site(stage):
    """Eight random workers of the application in four seconds."""
    chance = random.Random(8)
    ended = {}
    with stage.serve(preload=True) as server, stage.load(server, clients=crowd(server, posts=True)) as load:
        time.sleep(1.2)  # they have stayed up
        for _ in range(8):
            pid = chance.choice(server.workers() or [0])
            if pid:
                ended[pid] = time.monotonic()
                processes.kill(pid)
            time.sleep(0.5)
        stage.need_settled(max(ended.values()), server.wait_full(10, without=ended), 0.1, "full strength")
        load.wait_round()
        stage.need_living(server)
    need_lost_only_there(stage, load, server, ended)


def need_lost_only_there(stage, load, server, ended):
    """The part of the target that only requests are lost that a killed worker had begun: POSTs, and answers that had begun."""
    asked = server.asked()
    wrong = Counter()
    for result in load.bad:
        there = any(pid in ended for pid in asked.get(result.ident, ()))
        # It may have been on its way to the application.
        there |= result.ident not in asked and any(result.start - 0.1 <= when <= result.end for when in ended.values())
        allowed = ("5xx", "truncated") if result.method == "POST" else ("truncated",)
        wrong[f"{result.verdict} {result.method}"] += not (there and result.verdict in allowed)
    words = ", ".join(f"{number} {what}" for what, number in wrong.items() if number)
    stage.need(not words, f"{words} without cause")
    stage.need(stage.counts["ok"] > 0, "no good answer")
    need_once(stage, load.results, server, ended)


@scenario("as above; what waits behind a worker that stops is taken back: no gap over 300 ms", FRONT, quick=True)
def kill_9_of_a_worker_with_requests_ahead(stage):
    """Two workers that are always busy, so that requests are sent to them before they can begin them; one is stopped, then killed."""
    chance = random.Random(2)
    ended = {}
    with stage.serve(workers=2, preload=True) as server:
        clients = [Client(server.port, f"quick{number}", posts=number % 4 == 0) for number in range(16)]
        with stage.load(server, clients=clients, pause=0) as load:
            time.sleep(1.2)  # they have stayed up
            for number in range(4 if stage.quick else 8):
                pid = chance.choice(server.workers())
                if number % 2:
                    processes.kill(pid, signal.SIGSTOP)
                    time.sleep(0.05)
                ended[pid] = time.monotonic()
                processes.kill(pid)
                full = server.wait_full(10, without=ended)
                stage.need_settled(ended[pid], full, 0.2, "full strength")
                time.sleep(1.1)  # they have stayed up
            load.wait_round()
    need_lost_only_there(stage, load, server, ended)
    stage.need(stage.gap <= 0.3, f"a gap of {stage.gap * 1000:.0f} ms")


@scenario("what the application was given is answered, all gone and the ports free within 2 s", FRONT, quick=True)
def kill_9_of_the_master_of_a_front(stage):
    """Under load, with requests of half a second under way."""
    with stage.serve() as server:
        slow, threads = ask_at_once(server, 3, 0.5)
        server.wait(lambda: len(server.asked()) >= 3, 5)
        with stage.load(server, clients=crowd(server)) as load:
            since = time.monotonic()
            server.process.kill()
            gone = server.wait(
                lambda: not server.family() and is_free(server.port) and is_free(server.secure), 10, alive=False
            )
        stage.need_settled(since, gone, 2, "gone")
        for thread in threads:
            thread.join(10)
        stage.take([result for client in slow for result in client.results], server)
        asked = server.asked()
        told = ("refused", "reset", "5xx")  # what no worker was left for is answered with 503
        lost = Counter(result.verdict for result in load.bad if result.ident in asked or result.verdict not in told)
        lost += Counter(result.verdict for client in slow for result in client.results if result.verdict != "ok")
        stage.need(not lost, ", ".join(f"{number} {verdict}" for verdict, number in lost.items()))
        stage.need(not stage.counts["twice"], f"{stage.counts['twice']} twice")


@scenario("0 lost, no connection closed, the front's workers stay, new ones see it within 3 s", FRONT, quick=True)
def certificates_exchanged_under_load(stage):
    """Ten times, by turns with SIGHUP and without."""
    with stage.serve() as server, stage.load(server, clients=crowd(server, posts=True)) as load:
        before = set(server.fronts())
        for number in range(4 if stage.quick else 10):
            server.certify()
            wanted = ssl.PEM_cert_to_DER_cert((server.home / "cert.pem").read_text())
            since = time.monotonic()
            if number % 2:
                server.hup()
            # Each worker of the front has its own; several in a row have met both.
            seen = server.wait(lambda: all(shown(server.secure) == wanted for _ in range(8)), 10)
            stage.need_settled(since, seen, 3, "shown")
        load.wait_round()
        need_same_fronts(stage, server, before)
        need_kept(stage, load)
    stage.need_none_lost()


def shown(port):
    """The certificate that a newcomer sees."""
    with socket.create_connection(("127.0.0.1", port), GUARD) as connection:
        with trusting().wrap_socket(connection) as secure:
            return secure.getpeercert(binary_form=True)


@scenario("clients that are there served on, less than 0.05 core, recovered in 1 s", FRONT, quick=True)
def no_descriptors_left_in_the_front(stage):
    """Its workers have five left when sixty idle connections come; they stay for 3 s."""
    with stage.serve() as server:
        before = set(server.fronts())
        early = crowd(server)
        early = [client for client in early if client.keep]
        for client in early:
            client.ask()
        limit = processes.Descriptors(before, 5)
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
        time.sleep(0.5)
        cpu = {pid: processes.cpu(pid) for pid in before}
        since = time.monotonic()
        time.sleep(3)
        cores = sum(processes.cpu(pid) - cpu[pid] for pid in before) / (time.monotonic() - since)
        stage.note(f"{cores:.3f} core")
        stage.need(cores < 0.05, f"{cores:.2f} core")
        for client in early:
            client.ask()
        for connection in idle:
            connection.close()
        since = time.monotonic()
        after = Client(server.port, "after", keep=False)
        result, _ = after.ask()
        stage.need_settled(since, result.end if result.verdict == "ok" else None, 1, "recovered")
        for _ in range(20):
            after.ask()
        limit.lift()
        for client in early:
            client.ask()
            stage.need(len(client.connected) == 1, "a kept connection closed")
        stage.need(set(server.fronts()) == before, "workers of the front lost")
        stage.take([result for client in [*early, after] for result in client.results], server)
    stage.need_none_lost()


@scenario("under a second, the front's workers stay, no pause above 5 ms more than usual", FRONT)
def reload_of_a_hundred_sites(stage):
    """All have other certificates each time; a client asks in a loop meanwhile, and before. Pauses are medians over the reloads."""
    usual, pauses, times = [], [], []
    with stage.serve(sites=100) as server:
        before = set(server.fronts())
        client = Client(server.secure, "loop", connect=Secure)
        for generation in range(2, 5 if stage.quick else 9):
            for number in range(100):
                server.certify(f"s{number}")
            usual.append(longest(client, lambda end=time.monotonic() + 1: time.monotonic() > end))
            start = len(server.log)
            since = server.hup()
            pauses.append(longest(client, lambda: any(f"generation {generation} is ready" in line for line in server.log[start:])))
            times.append(time.monotonic() - since)
        need_same_fronts(stage, server, before)
        stage.need(len(client.connected) == 1, "the connection was closed")
        stage.take(client.results, server)
    quiet, pause, taken = (statistics.median(each) for each in (usual, pauses, times))
    stage.settled = taken
    stage.note(f"longest time of a request {1000 * quiet:.1f} ms before, {1000 * pause:.1f} ms meanwhile")
    stage.need(taken <= 1, f"reloads take {taken:.2f} s")
    stage.need(pause <= quiet + 0.005, f"a pause of {1000 * (pause - quiet):.1f} ms")
    stage.need_none_lost()


def longest(client, is_over, most=20):
    """The longest that a request takes until then, one after the other."""
    found, until = 0.0, time.monotonic() + most
    while not is_over() and time.monotonic() < until:
        result, _ = client.ask()
        found = max(found, result.end - result.start)
    return found
