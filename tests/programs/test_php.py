"""php-fpm in the foreground. It takes over the listener by FPM_SOCKETS, and knows sd_notify(3)."""
import os

import fastcgi
from stand import Asking, ProgramCase, free_port, needs

SCRIPT = """<?php
if (isset($_SERVER["HELD"])) {
    fwrite(stream_socket_client("udg://" . __DIR__ . "/events"), "held request");
    fread(fopen(__DIR__ . "/gate", "rb"), 1);
}
echo getenv("VERSION") . " " . getmypid();
"""
# Without process_control_timeout, php-fpm kills its processes as soon as it has told them to finish.
CONFIG = """
[global]
error_log = /dev/stderr
process_control_timeout = 20s
[www]
listen = {address}
pm = static
pm.max_children = 3
clear_env = no
"""


class PhpFpm(ProgramCase):
    """One pool."""

    def launch_it(self, listener, address):
        program = needs("php-fpm")
        (self.folder / "version.php").write_text(SCRIPT)
        user = f"user = {os.getuid()}\ngroup = {os.getgid()}\n" if os.getuid() == 0 else ""
        (self.folder / "fpm.conf").write_text(CONFIG.format(address=address) + user)
        command = [program, "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", str(self.folder / "fpm.conf")]
        return self.launch(command=command, listen=[listener], env={"FPM_SOCKETS": f"{address}=3"}).ready()

    def test_a_reload_loses_no_request_and_a_stop_leaves_nothing(self):
        port = free_port()
        address = f"127.0.0.1:{port}"
        server = self.launch_it(address, address)
        script = self.folder / "version.php"
        with Asking(lambda: fastcgi.ask(port, script)) as clients:
            self.configure(server, env={"VERSION": "v2"})
            self.renew(server)
            clients.wait_for(10)
        self.assertEqual(clients.losses, [], server.report())
        self.assertRegex(clients.answers[0], "^v1 ")
        self.assertRegex(fastcgi.ask(port, script), "^v2 ")
        self.finish(server)

    def test_requests_in_flight_are_answered_over_a_reload_and_a_stop(self):
        port = free_port()
        address = f"127.0.0.1:{port}"
        server = self.launch_it(address, address)
        script = self.folder / "version.php"
        self.configure(server, env={"VERSION": "v2"})
        for version, order in (("v1", server.reload), ("v2", lambda: self.stop(server))):
            held = fastcgi.send(port, script, HELD="yes")
            self.event("held request")
            order()
            self.open_gate()
            self.assertRegex(fastcgi.receive(held), f"^{version} ")
            self.wait_left(server)
        self.finish(server)

    def test_the_socket_file_that_the_old_master_removes_is_made_again(self):
        path = f"{self.folder}/php.sock"
        server = self.launch_it(f"unix:{path}", path)
        script = self.folder / "version.php"
        self.assertRegex(fastcgi.ask(path, script), "^v1 ")
        self.renew(server)
        server.wait_log(r"gen=1 .*php\.sock was removed; made it again")
        self.assertRegex(fastcgi.ask(path, script), "^v1 ")
        self.finish(server)
