"""Streams: whose rows they are when several users have one worker, and what is left of one whose client goes."""
import socket
import threading
import time

from clients import Client
from service import GUARD
from stage import scenario

USERS = 8


def export(client, rows, pause, times, short):
    """Ask for rows, some times; what came with the wrong number of them is added to `short`."""
    for _ in range(times):
        result, body = client.ask("/rows", number=rows, pause=pause)
        if result.verdict == "ok" and body != f"{result.ident}\n".encode() * rows:
            short.append(result.ident)
    client.close()


def need_closed(stage, server, idents):
    """The part of the target that each stream that has begun is closed: once, by its own thread, and for its own user."""

    def closed():
        found = {}
        for line in server.noted():
            kind, ident, *words = line.split()
            if kind in ("began", "closed"):
                found.setdefault(ident, []).append((kind, *words))
        begun = {ident: ends[1:] for ident, ends in found.items() if ident in idents}
        return begun, [ident for ident, ends in begun.items() if ends != [("closed", "own")]]

    server.wait(lambda: not closed()[1], 5)
    begun, open_still = closed()
    stage.need(begun, "no stream began")
    stage.need(not open_still, f"{len(open_still)} of {len(begun)} streams not closed once by their own thread")


@scenario("every row its owner's, each stream closed by its thread", quick=True)
def users_stream_from_one_worker(stage):
    """Eight at a time, 200 rows with pauses each; the application keeps the user where frameworks do, with the thread."""
    with stage.serve(workers=1) as server:
        clients = [Client(server.port, f"u{number}", keep=number % 2 == 0, patience=GUARD) for number in range(USERS)]
        short = []
        times = 1 if stage.quick else 3
        threads = [threading.Thread(target=export, args=(client, 200, 0.0005, times, short), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
        results = [result for client in clients for result in client.results]
        stage.take(results, server)
        stage.need(not short, f"{len(short)} streams with too few rows")
        need_closed(stage, server, {result.ident for result in results})
    stage.need_none_lost()


@scenario("every other answer right, each stream closed by its thread", quick=True)
def clients_leave_in_an_export(stage):
    """Forty of them, after some rows, half with a reset; eight clients ask for pages meanwhile, and a hundred times afterwards."""
    idents = set()
    with stage.serve(workers=1) as server:
        with stage.load(server, patience=GUARD) as load:
            for number in range(10 if stage.quick else 40):
                ident = f"gone-{number}"
                idents.add(ident)
                leave(server.port, ident, reset=number % 2 == 0)
            load.wait_round(GUARD)
        need_closed(stage, server, idents)
        after = Client(server.port, "after", patience=GUARD)
        for _ in range(100):
            after.ask()
        after.close()
        stage.take(after.results, server)
        stage.need_living(server)
    stage.need_none_lost()


def leave(port, ident, reset):
    """Ask for many rows, and hang up when some have come."""
    with socket.create_connection(("127.0.0.1", port), GUARD) as connection:
        connection.sendall(f"GET /rows?id={ident}&number=100000&pause=0.0005 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        seen, deadline = b"", time.monotonic() + GUARD
        while ident.encode() not in seen.partition(b"\r\n\r\n")[2] and time.monotonic() < deadline:
            data = connection.recv(4096)
            if not data:
                break
            seen += data
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
