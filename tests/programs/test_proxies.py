"""preforkd behind nginx, Apache, HAProxy and Caddy, with the configurations of conf/guide/proxies.md as they stand there."""
import grp
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import tomllib
import unittest

from stand import GUARD, HERE, Asking, Loss, ProgramCase, free_port, needs
from service import Service

PAGE = HERE.parent.parent / "conf" / "guide" / "proxies.md"
NAME = "www.example.com"
# Not that of the proxy.
CLIENT = "127.0.0.9"
# What a client must not be able to say.
FORGED = {
    "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "ftp", "X-Forwarded-Host": "forged.test", "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/forged", "Forwarded": "for=192.0.2.1;proto=http;host=forged.test", "X-Real-IP": "192.0.2.1",
    "X-Request-ID": "forged",
}


def block(kind, number=0):
    """A block of the page, by its language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[number]


class Client(http.client.HTTPSConnection):
    """A client at an address of its own that speaks TLS with a proxy."""

    def __init__(self, port, folder):
        super().__init__(NAME, port, timeout=GUARD, context=ssl.create_default_context(cafile=folder / "fullchain.pem"))

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), GUARD, source_address=(CLIENT, 0))
        self.sock = self._context.wrap_socket(plain, server_hostname=NAME)

    def ask(self, target="/", body=None, headers=()):
        """What the application was told, and what it has sent after that."""
        self.request("POST" if body else "GET", target, body, {"Host": NAME, **dict(headers)})
        answer = self.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise Loss(f"status {answer.status}: {data[:200]}")
        told, _, rest = data.partition(b"\n")
        return json.loads(told), rest


class Proxy(ProgramCase):
    """What is true for all of them. A proxy runs as its package lets it run; without root, as who runs the tests."""

    program = None
    # Which of the apps of the page it asks.
    app = 0
    # The line with which it says that it serves.
    ready = None

    def setUp(self):
        super().setUp()
        self.program_path = needs(self.program)
        self.folder.chmod(0o755)
        self.port = free_port()
        command = (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} "
            "-keyout privkey.pem -out fullchain.pem"
        )
        subprocess.run(command.split(), cwd=self.folder, check=True, capture_output=True)
        pair = [(self.folder / name).read_text() for name in ("fullchain.pem", "privkey.pem")]
        (self.folder / "both.pem").write_text("".join(pair))
        self.server = self.start_app()
        self.proxy = self.start_proxy()

    def start_app(self):
        """preforkd with the app of the page, at a place of its own."""
        keys = tomllib.loads(block("toml", self.app))["app"]["web"]
        self.app_port = free_port()
        if isinstance(keys["listen"], dict):
            keys["listen"]["address"] = f"unix:{self.folder}/web.sock"
            if os.getuid():
                keys["listen"]["group"] = grp.getgrgid(os.getgid()).gr_name
        else:
            keys["listen"] = f"127.0.0.1:{self.app_port}"
        return self.launch(**{**keys, "wsgi": "behind_code:application", "python": sys.executable, "workers": 2}).ready()

    def configuration(self, kind):
        """The block of the page, with the places of this test."""
        text = block(kind)
        for theirs, ours in (
            ("/etc/ssl/mysite", str(self.folder)),
            ("/run/preforkd/web.sock", f"{self.folder}/web.sock"),
            ("127.0.0.1:8000", f"127.0.0.1:{self.app_port}"),
        ):
            text = text.replace(theirs, ours)
        return text

    def start_proxy(self):
        proxy = Service(self.command(), env={"HOME": str(self.folder)}, cwd=self.folder)
        self.addCleanup(proxy.close)
        proxy.wait_log(self.ready)
        return proxy

    def written(self, name, text):
        """A file of its configuration."""
        path = self.folder / name
        path.write_text(text)
        return path

    def client(self):
        client = Client(self.port, self.folder)
        self.addCleanup(client.close)
        return client

    def test_the_application_learns_of_the_client_and_of_nothing_that_it_forges(self):
        for forged in ({}, FORGED):
            told, _ = self.client().ask("/path", headers=forged)
            expected = {"wsgi.url_scheme": "https", "REMOTE_ADDR": CLIENT, "HTTP_HOST": NAME, "SERVER_PORT": "443",
                        "SCRIPT_NAME": "", "PATH_INFO": "/path"}
            self.assertEqual({key: told.get(key) for key in expected}, expected, told)
            self.assertNotIn("forged", json.dumps(told))
            self.assertNotIn("HTTP_FORWARDED", told)
        self.assertNotIn("removed the field", "\n".join(self.server.log))

    def test_bodies_arrive_whole_in_both_directions(self):
        client = self.client()
        for length in (1, 1_000_000):
            told, rest = client.ask(f"/?{length}", b"y" * length)
            self.assertEqual((told["length"], rest), (length, b"x" * length))

    def test_a_reload_loses_no_request(self):
        clients = {}

        def ask():
            # Each thread has a connection that it keeps.
            client = clients.setdefault(threading.get_ident(), Client(self.port, self.folder))
            try:
                return client.ask()
            except http.client.HTTPException as error:
                raise Loss(repr(error)) from error

        with Asking(ask) as asking:
            for _ in range(3):
                self.server.reload()
                asking.wait_for(10)
        for client in clients.values():
            client.close()
        self.assertEqual(asking.losses, [], self.server.report() + self.proxy.report())


class Nginx(Proxy):
    program = "nginx"
    ready = "start worker process "

    def command(self):
        server = self.configuration("nginx").replace("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;")
        user = "" if os.getuid() else "user www-data;"
        temporary = " ".join(f"{what}_temp_path {self.folder}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        main = f"{user} daemon off; pid {self.folder}/nginx.pid; error_log stderr notice; events {{ }}\n"
        return [self.program_path, "-c", self.written("nginx.conf", f"{main}http {{ access_log off; {temporary}\n{server}}}\n")]


class Apache(Proxy):
    program = "apache2"
    ready = "resuming normal operations"

    def command(self):
        site = self.configuration("apache").replace("<VirtualHost *:443>", f"<VirtualHost *:{self.port}>")
        modules = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in ("mpm_event", "ssl", "proxy", "proxy_http", "headers", "authz_core"))
        user = "" if os.getuid() else "User www-data\nGroup www-data\n"
        main = (
            f"ServerRoot {self.folder}\nDefaultRuntimeDir {self.folder}\nPidFile {self.folder}/apache.pid\nErrorLog /dev/stderr\nServerName localhost\n"
            f"Listen 127.0.0.1:{self.port}\n{modules}{user}"
        )
        return [self.program_path, "-D", "FOREGROUND", "-f", self.written("apache.conf", main + site)]


class HAProxy(Proxy):
    program = "haproxy"
    app = 1
    ready = "Loading success"

    def command(self):
        rest = self.configuration("haproxy").replace("bind :443", f"bind 127.0.0.1:{self.port}")
        defaults = f"global\n    maxconn 100\ndefaults\n    mode http\n    timeout connect {GUARD}s\n    timeout client {GUARD}s\n    timeout server {GUARD}s\n"
        return [self.program_path, "-W", "-db", "-f", self.written("haproxy.cfg", defaults + rest)]


class Caddy(Proxy):
    program = "caddy"
    ready = "serving initial configuration"

    def command(self):
        own = f"tls {self.folder}/fullchain.pem {self.folder}/privkey.pem"
        site = self.configuration("caddy").replace(f"{NAME} {{", f"https://{NAME}:{self.port} {{\n    bind 127.0.0.1\n    {own}", 1)
        path = self.written("Caddyfile", "{\n    admin off\n    auto_https disable_redirects\n}\n" + site)
        return [self.program_path, "run", "--adapter", "caddyfile", "--config", path]


# It has no program.
del Proxy

if __name__ == "__main__":
    unittest.main()
