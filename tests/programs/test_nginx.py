"""nginx in the foreground: with a port of its own, and with the listener as its older self would pass it on."""
import os
import signal
import socket

from stand import GUARD, Asking, Connection, ProgramCase, free_port, get, needs
from nginx import configuration  # Found by `stand`.


class Nginx(ProgramCase):
    """A master with one worker. The test is what it proxies to, and holds its answer."""

    def setUp(self):
        super().setUp()
        self.nginx = needs("nginx")
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.upstream.close)
        self.upstream.settimeout(GUARD)
        self.port = free_port()

    def command(self, version="v1", daemon="off"):
        """The command that runs it with a configuration for this version."""
        config = self.folder / f"{version}.conf"
        user = "user root;" if os.getuid() == 0 else ""
        main = f"{user} daemon {daemon}; error_log stderr notice;"
        upstream = self.upstream.getsockname()[1]
        server = f'location / {{ return 200 "{version} $pid"; }} location /held {{ proxy_pass http://127.0.0.1:{upstream}; }}'
        config.write_text(configuration(self.folder, self.port, main, "", server))
        return [self.nginx, "-c", str(config)]

    def hold(self):
        """A request that nginx has passed on: the client's connection, and ours to answer on."""
        client = Connection(self.port)
        self.addCleanup(client.socket.close)
        client.socket.sendall(b"GET /held HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        passed, _ = self.upstream.accept()
        self.addCleanup(passed.close)
        passed.settimeout(GUARD)
        return client, passed

    def let_go(self, client, passed):
        """Answer; the client gets it."""
        passed.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole")
        self.assertEqual(client.read_answer().body, b"whole")

    def test_with_its_own_port_it_finishes_at_quit_and_leaves_nothing(self):
        server = self.launch(command=self.command(), listen=[], ready="exec").ready()
        server.wait_log("start worker process ")
        self.assertRegex(get(self.port), "^v1 ")
        held = self.hold()
        self.stop(server)
        server.wait_log("gracefully shutting down")
        self.let_go(*held)
        self.finish(server)
        socket.create_server(("127.0.0.1", self.port)).close()

    def test_with_its_own_port_the_old_one_ends_first_and_comes_back_if_the_new_one_fails(self):
        server = self.launch(command=self.command(), listen=[], ready="200ms", replace="stop-first").ready()
        self.assertRegex(get(self.port), "^v1 ")
        held = self.hold()
        self.configure(server, command=self.command("v2"))
        server.send(signal.SIGHUP)
        server.wait_notify("RELOADING=1")
        server.wait_log("gracefully shutting down")
        self.let_go(*held)
        server.wait_notify("READY=1")
        server.wait_log("demo: generation 2 runs, after .* without a ready worker")
        self.assertRegex(get(self.port), "^v2 ")
        # This one cannot start.
        command = self.command("v3")
        (self.folder / "v3.conf").write_text("no such directive;")
        self.configure(server, command=command)
        server.expect("gen=3|reload failed")
        server.reload()
        server.wait_log("demo: generation 2 runs again, after .* without a ready worker")
        self.assertRegex(get(self.port), "^v2 ")
        self.finish(server, "generation 2 runs again, after")

    def test_with_the_listener_a_reload_loses_no_request(self):
        shared = {"listen": [f"127.0.0.1:{self.port}"], "env": {"NGINX": "3;"}}
        server = self.launch(command=self.command(), ready="exec", **shared).ready()
        held = self.hold()
        with Asking(lambda: get(self.port)) as clients:
            self.configure(server, command=self.command("v2"))
            server.reload()
            server.wait_log("gracefully shutting down")
            self.let_go(*held)
            self.wait_left(server)
            clients.wait_for(10)
        self.assertEqual(clients.losses, [], server.report())
        self.assertRegex(clients.answers[0], "^v1 ")
        self.assertRegex(get(self.port), "^v2 ")
        self.finish(server)

    def test_in_the_background_it_is_refused_and_ended(self):
        # nginx forgets a signal that comes while it starts, and is killed then.
        server = self.launch(command=self.command(daemon="on"), listen=[], ready="30s", graceful_timeout="500ms")
        server.expect("puts itself into the background")
        server.wait_log(r"ERROR cannot start: .*it puts itself into the background \(start it in the foreground")
        self.assertEqual(server.process.wait(GUARD), 1)
        self.assert_nothing_left(server)
        socket.create_server(("127.0.0.1", self.port)).close()
