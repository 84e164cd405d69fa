"""What the system refuses: forks, descriptors."""
import socket
import time

import processes
from clients import Client
from stage import scenario


@scenario("lives, full strength within 2 s of the lifting")
def fork_fails(stage):
    """Two of three workers are killed while no process can be made; after 3 s it can."""
    ended = {}
    with stage.serve(preload=True) as server:
        time.sleep(1.2)  # they have stayed up
        try:
            limit = processes.Forks(server.pid, server.family())
        except OSError as error:
            stage.skipped = f"cannot limit forks here: {error}"
            return
        try:
            with stage.load(server) as load:
                for pid in server.workers()[:2]:
                    ended[pid] = time.monotonic()
                    processes.kill(pid)
                time.sleep(3)
                limit.lift()
                since = time.monotonic()
                stage.need_settled(since, server.wait_full(10, without=ended), 2, "full strength")
                stage.need_living(server)
                results = load.results
            stage.need_only_inside(results, server, ended)
        finally:
            server.close()
            limit.close()


@scenario("less than 0.05 core meanwhile, workers kept, recovered in 1 s")
def no_descriptors_left(stage):
    """Workers have five left when sixty idle connections come; they stay for 3 s."""
    with stage.serve() as server:
        first = Client(server.port, "before")
        first.ask()
        first.close()
        before = set(server.workers())
        limit = processes.Descriptors(before, 5)
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
        time.sleep(0.5)
        cpu, since = server.cpu(), time.monotonic()
        time.sleep(3)
        cores = (server.cpu() - cpu) / (time.monotonic() - since)
        stage.note(f"{cores:.3f} core")
        stage.need(cores < 0.05, f"{cores:.2f} core")
        stage.need(before <= set(server.workers()), "workers lost")
        for connection in idle:
            connection.close()
        since = time.monotonic()
        after = Client(server.port, "after", keep=False)
        result, _ = after.ask()
        stage.need_settled(since, result.end if result.verdict == "ok" else None, 1, "recovered")
        for _ in range(20):
            after.ask()
        limit.lift()
        stage.take(first.results + after.results, server)
    stage.need_none_lost()
