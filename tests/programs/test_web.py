"""Servers of Python applications that take over the listener: gunicorn and uvicorn."""
from stand import Asking, Connection, ProgramCase, get, needs_module

HELD = b"GET /held HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Web(ProgramCase):
    """What is true for both."""

    def hold_over(self, server, version, order, number=1):
        """Requests that are in flight when `order` is given are answered by whoever has begun them."""
        held = [Connection(server.port) for _ in range(number)]
        for connection in held:
            self.addCleanup(connection.socket.close)
            connection.socket.sendall(HELD)
            self.event("held request")
        order()
        self.open_gate(number)
        for connection in held:
            self.assertRegex(connection.read_answer().body.decode(), f"^{version} ")


class Gunicorn(Web):
    """A master with workers of its own. It knows LISTEN_FDS and sd_notify(3)."""

    def launch_it(self, *options):
        command = [*needs_module("gunicorn"), "--workers", "2", *options, "site_code:application"]
        return self.launch(command=command).ready()

    def test_a_reload_loses_no_request_and_a_stop_leaves_nothing(self):
        server = self.launch_it()
        with Asking(lambda: get(server.port)) as clients:
            self.configure(server, env={"VERSION": "v2"})
            self.renew(server)
            clients.wait_for(10)
        self.assertEqual(clients.losses, [], server.report())
        self.assertRegex(clients.answers[0], "^v1 ")
        self.assertRegex(get(server.port), "^v2 ")
        self.finish(server)

    def test_requests_in_flight_are_answered_over_a_reload_and_a_stop(self):
        server = self.launch_it()
        self.configure(server, env={"VERSION": "v2"})
        self.hold_over(server, "v1", server.reload, 2)
        self.wait_left(server)
        self.hold_over(server, "v2", lambda: self.stop(server), 2)
        self.finish(server)

    def test_the_descriptor_may_be_an_argument(self):
        # gunicorn would take over the same descriptor once more if it found LISTEN_PID.
        gunicorn = [*needs_module("gunicorn"), "--bind", "fd://{fd}", "site_code:application"]
        server = self.launch(command=["env", "-u", "LISTEN_PID", *gunicorn]).ready()
        self.assertRegex(get(server.port), "^v1 ")
        self.renew(server)
        self.assertRegex(get(server.port), "^v1 ")
        self.finish(server)


class Uvicorn(Web):
    """One process with an event loop, which takes the descriptor as an argument."""

    def launch_it(self):
        command = [*needs_module("uvicorn"), "site_code:asgi", "--fd", "{fd}"]
        return self.launch(command=command, workers=2).ready()

    # At a stop, uvicorn closes connections whose request it has not read yet (its issue 2757). So no load here, but
    # requests that it has read.
    def test_requests_in_flight_are_answered_over_a_reload_and_a_stop(self):
        server = self.launch_it()
        self.assertRegex(get(server.port), "^v1 ")
        self.configure(server, env={"VERSION": "v2"})
        self.hold_over(server, "v1", server.reload, 4)
        self.wait_left(server)
        self.assertRegex(get(server.port), "^v2 ")
        self.hold_over(server, "v2", lambda: self.stop(server), 4)
        self.finish(server)
