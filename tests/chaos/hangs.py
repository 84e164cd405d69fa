"""Workers that stand still, as a whole or in one thread."""
import signal
import threading
import time

import processes
from clients import Client
from stage import scenario

TIMEOUT = 2


@scenario("replaced within timeout + 1 s, only what was in it lost")
def worker_stopped_by_SIGSTOP(stage):
    """The timeout is 2 s."""
    with stage.serve(timeout=TIMEOUT) as server, stage.load(server) as load:
        time.sleep(0.5)
        pid = server.workers()[0]
        since = time.monotonic()
        processes.kill(pid, signal.SIGSTOP)
        full = server.wait_full(TIMEOUT + 8, without=[pid])
        stage.need_settled(since, full, TIMEOUT + 1, "replaced")
        gone = server.wait(lambda: not processes.alive(pid), 5)
        stage.need(gone, "the stopped worker lives")
        load.wait_round()
        results = load.results
    stage.need_only_inside(results, server, {pid: gone or time.monotonic()})


@scenario("ended within timeout + 1 s, its neighbours finish", servers=("preforkd threads", "gunicorn gthread"))
def one_hung_request_among_four_threads(stage):
    """Three neighbours are under way at the timeout of 2 s, for half a second more."""
    with stage.serve(timeout=TIMEOUT, threads=4) as server:
        hung = Client(server.port, "hung", keep=False)
        since = time.monotonic()
        thread = threading.Thread(target=hung.ask, kwargs={"seconds": 3600}, daemon=True)
        thread.start()
        if not server.wait(lambda: "hung-1" in server.asked(), 5):
            raise AssertionError("never asked")
        pid = server.asked()["hung-1"][0]
        clients = [Client(server.port, f"n{number}-") for number in range(40)]
        for client in clients:
            client.ask()
        near = [client for client in clients if client.pid == pid][:3]
        for client in clients:
            if client not in near:
                client.close()
        stage.note(f"{len(near)} neighbours")
        stage.need(near, "no neighbour")
        time.sleep(max(0.0, since + TIMEOUT - 0.5 - time.monotonic()))
        threads = [threading.Thread(target=client.ask, kwargs={"seconds": 1}, daemon=True) for client in near]
        for each in threads:
            each.start()
        gone = server.wait(lambda: not processes.alive(pid), TIMEOUT + 6)
        stage.need_settled(since, gone, TIMEOUT + 1, "ended")
        for each in threads:
            each.join(5)
        stage.need(server.wait_full(5, without=[pid]) or not gone, "not replaced")
        stage.take([result for client in near for result in client.results], server)
    stage.need_none_lost()
