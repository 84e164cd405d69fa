"""Stands in for a PostgreSQL server: as much of its protocol as psycopg needs to connect, ask and go."""
import socket
import struct
import threading

PARAMETERS = {"server_version": "15.0", "client_encoding": "UTF8", "TimeZone": "UTC", "DateStyle": "ISO",
              "integer_datetimes": "on", "standard_conforming_strings": "on"}
# One column, an integer as text.
COLUMN = struct.pack("!h", 1) + b"pid\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)


class Postgres:
    """The answer to each SELECT is the process that has opened the connection, as the kernel tells it."""

    def __init__(self, folder):
        self.path = f"{folder}/.s.PGSQL.5432"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.clients = []  # process and thread of each connection
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    def close(self):
        """Accept no more. Connections end with their clients."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join()
        self.listener.close()

    def served(self, pid):
        """The threads that serve what a process has opened; each ends when nobody holds its connection any more."""
        return [thread for client, thread in self.clients if client == pid]

    def _accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid = struct.unpack("3i", credentials)[0]
            thread = threading.Thread(target=serve, args=(connection, pid), daemon=True)
            self.clients.append((pid, thread))
            thread.start()


def serve(connection, pid):
    """The whole of one connection."""
    with connection, connection.makefile("rb") as stream:

        def say(*messages):
            connection.sendall(b"".join(kind + struct.pack("!i", len(body) + 4) + body for kind, body in messages))

        def hear():
            return stream.read(struct.unpack("!i", stream.read(4))[0] - 4)

        def result(sql):
            """Rows of a query, and the word that it is done."""
            value = str(pid).encode()
            rows = [(b"D", struct.pack("!hi", 1, len(value)) + value)] if sql.startswith(b"SELECT") else []
            return [*rows, (b"C", sql.split()[0] + b"\0")]

        def columns(sql):
            return (b"T", COLUMN) if sql.startswith(b"SELECT") else (b"n", b"")

        hear()
        settings = [(b"S", f"{name}\0{value}\0".encode()) for name, value in PARAMETERS.items()]
        say((b"R", struct.pack("!i", 0)), *settings, (b"K", struct.pack("!ii", pid, 0)), (b"Z", b"I"))
        state, sql = b"I", b""
        while kind := stream.read(1):
            body = hear()
            if kind in b"QP":
                sql = body.split(b"\0")[0 if kind == b"Q" else 1]
                state = {b"BEGIN": b"T", b"COMMIT": b"I", b"ROLLBACK": b"I"}.get(sql, state)
            if kind == b"Q":
                described = [columns(sql)] if sql.startswith(b"SELECT") else []
                say(*described, *result(sql), (b"Z", state))
            elif kind in b"PB":
                say((b"1" if kind == b"P" else b"2", b""))
            elif kind == b"D":
                say(columns(sql))
            elif kind == b"E":
                say(*result(sql))
            elif kind == b"S":
                say((b"Z", state))
            # Also after its farewell (X) a connection lasts until everybody has closed it.
