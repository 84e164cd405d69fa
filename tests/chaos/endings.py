"""How it ends: asked to, while something is under way; or without being asked."""
import contextlib
import signal
import socket
import subprocess
import threading
import time

import processes
from clients import Client
from servers import GOOD
from stage import scenario

GRACEFUL = 2
SLOW = "import time\nopen('importing', 'w').close()\ntime.sleep(20)\n" + GOOD


def ask_at_once(server, number, seconds):
    """So many requests, each on a connection of its own, sent at once; the clients and their threads."""
    clients = [Client(server.port, f"q{at}", keep=at % 2 == 0) for at in range(number)]
    threads = [threading.Thread(target=client.ask, kwargs={"seconds": seconds}, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    return clients, threads


def ended(server, limit):
    """Wait until the master has ended; when that was."""
    try:
        server.process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic()


@scenario("in flight and in the queue: 100 % answered; exit 0, nothing left", quick=True)
def TERM_with_a_full_queue(stage):
    """Four times as many requests as can be served at a time, of 0.3 s each."""
    with stage.serve() as server:
        places = server.options["workers"] * server.options["threads"]
        clients, threads = ask_at_once(server, 4 * places, 0.3)
        server.wait(lambda: len(server.asked()) >= places, 5)
        time.sleep(0.1)
        since = time.monotonic()
        server.signal(signal.SIGTERM)
        for thread in threads:
            thread.join(15)
        stage.need_settled(since, ended(server, 10), 10, "ended")
        stage.need(server.process.returncode == 0, f"exit status {server.process.returncode}")
        stage.need(not server.family(), "processes left")
        stage.take([result for client in clients for result in client.results], server)
    stage.need_none_lost()


@scenario("ended within 1 s")
def TERM_during_a_slow_import(stage):
    """At the first start, and at a reload."""
    with stage.serve(code=SLOW, ready=False) as server:
        term_at_import(stage, server)
    with stage.serve() as server:
        server.deploy(SLOW)
        server.hup()
        term_at_import(stage, server)


def term_at_import(stage, server):
    """TERM when the import has begun."""
    server.wait((server.home / "importing").exists, 10)
    time.sleep(0.1)
    since = time.monotonic()
    server.signal(signal.SIGTERM)
    stage.need_settled(since, ended(server, 25), 1, "ended")
    stage.need(not server.family(), "processes left")


@scenario("ended within graceful_timeout + 1 s")
def TERM_with_stuck_workers(stage):
    """Each worker is in a request that never ends; graceful_timeout is 2 s."""
    with stage.serve(graceful=GRACEFUL) as server:
        stuck = lambda: {pid for pids in server.asked().values() for pid in pids}  # noqa: E731
        for _ in range(4):
            ask_at_once(server, 6, 3600)
            if server.wait(lambda: len(stuck()) >= 3, 0.5):
                break
        stage.need(len(stuck()) == 3, f"{len(stuck())} stuck")
        since = time.monotonic()
        server.signal(signal.SIGTERM)
        stage.need_settled(since, ended(server, GRACEFUL + 8), GRACEFUL + 1, "ended")
        stage.need(not server.family(), "processes left")


@scenario("workers gone and the port free within 2 s")
def kill_9_of_the_master(stage):
    """With some requests of half a second under way."""
    with stage.serve() as server:
        clients, threads = ask_at_once(server, 3, 0.5)
        server.wait(lambda: len(server.asked()) >= 1, 5)
        since = time.monotonic()
        server.process.kill()
        gone = server.wait(lambda: not server.family() and is_free(server.port), 10, alive=False)
        stage.need_settled(since, gone, 2, "gone")
        for thread in threads:
            thread.join(10)
        stage.take([result for client in clients for result in client.results], server)


@scenario("what workers have started gone within 1 s after graceful_timeout")
def kill_9_of_the_master_with_deaf_children(stage):
    """Workers have started processes that ignore SIGTERM."""
    with stage.serve(graceful=GRACEFUL) as server:
        client = Client(server.port, "d", keep=False)
        for _ in range(3):
            client.ask("/deaf")
        since = time.monotonic()
        server.process.kill()
        gone = server.wait(lambda: not server.family() and is_free(server.port), 10, alive=False)
        stage.need_settled(since, gone, GRACEFUL + 1, "gone")
        stage.take(client.results, server)
    stage.need_none_lost()


def is_free(port):
    """Whether one could listen there."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


@scenario("0 lost")
def master_stopped_for_6_s(stage):
    """SIGSTOP, then SIGCONT."""
    with stage.serve() as server, stage.load(server) as load:
        processes.kill(server.pid, signal.SIGSTOP)
        time.sleep(2 if stage.quick else 6)
        processes.kill(server.pid, signal.SIGCONT)
        time.sleep(0.5)
        load.wait_round()
        stage.need_living(server)
    stage.need_none_lost()
