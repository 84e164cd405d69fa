"""Sites: a reload of many of them, with a certificate each, under a client that asks without a pause."""
import os
import shutil
import signal
import socket
import ssl
import statistics
import time

from .beside import Beside
from .findings import at_most, told
from .front import FOLDER, apps, certificate, context, preforkd, prepare
from .servers import free_port
from .throughput import note
from service import GUARD

SITES = {False: 100, True: 10}
# The site that the client asks, and how.
HOST = "site-7.example"
REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
# What is in another state after each reload: the front has to be replaced for the first, and not for the second.
CHANGES = "sites", "certificates"
# Seconds without a reload, to know the pauses that the machine makes.
CALM = 2


def run(options):
    """The time of a reload, and the longest time from one answer to the next while it runs."""
    prepare()
    number = SITES[options.quick]
    folders = certificates(number)
    port = free_port()
    service = preforkd(FOLDER / "many.toml", configuration(folders[0], number, port, 0))
    found = []
    try:
        service.wait_notify("READY=1")
        with Client(port) as client:
            time.sleep(CALM)
        found.append(told(f"{number} sites without a reload: longest pause of a client in {CALM} s, ms", f"{client.longest * 1000:.1f}"))
        for change in CHANGES:
            took, pauses = [], []
            for count in range(1, options.rounds + 1):
                note(f"round {count} of {options.rounds}: reload of {number} sites, other {change}")
                if change == "sites":
                    (FOLDER / "many.toml").write_text(configuration(folders[0], number, port, count))
                else:
                    exchange(folders[0], folders[1], number)
                with Client(port) as client:
                    began = time.monotonic()
                    service.send(signal.SIGHUP)
                    service.wait_notify("RELOADING=1")
                    service.wait_notify("READY=1")
                    took.append(time.monotonic() - began)
                pauses.append(client.longest * 1000)
            title = f"reload of {number} sites, all with other {change}"
            found += [at_most(f"{title}: seconds", statistics.median(took), 1),
                      at_most(f"{title}: longest pause of a client, ms", statistics.median(pauses), 5, "{:.1f}")]
    finally:
        service.close()
    note("")
    return found


def certificates(number):
    """Two folders with a certificate for each site, made once. They are copied, as they will be exchanged."""
    note(f"certificates of {number} sites")
    for kind in "ab":
        for n in range(number):
            folder = FOLDER / "certificates" / kind / str(n)
            folder.mkdir(parents=True, exist_ok=True)
            certificate(folder, f"site-{n}.example")
    used = [FOLDER / f"used-{kind}" for kind in "ab"]
    for kind, folder in zip("ab", used):
        shutil.copytree(FOLDER / "certificates" / kind, folder, dirs_exist_ok=True)
    return used


def exchange(one, other, number):
    """The certificates of the sites for others, and back the next time."""
    for n in range(number):
        for name in ("key.pem", "cert.pem"):
            first, second, between = one / str(n) / name, other / str(n) / name, one / str(n) / "between"
            os.rename(first, between)
            os.rename(second, first)
            os.rename(between, second)


def configuration(folder, number, port, count):
    """Sites at one address; `count` is in a key of each."""
    sites = "".join(f"""[site.site-{n}]
listen = "127.0.0.1:{port}"
hosts = ["site-{n}.example"]
tls = {{ cert = "{folder}/{n}/cert.pem", key = "{folder}/{n}/key.pem" }}
response_headers = {{ set = {{ X-Count = "{count}" }} }}
app = "hello"
""" for n in range(number))
    return apps("", only="hello") + sites + "[front]\nworkers = 1\n"


class Client(Beside):
    """Asks one site over a kept connection, the next time as soon as it has its answer, and notes the longest time between two answers."""

    def __init__(self, port):
        super().__init__()
        self.port = port
        self.context = context()
        self.longest = 0.0
        self.connection = self.connect()
        self.exchange()

    def connect(self):
        """A connection with a handshake of its own."""
        plain = socket.create_connection(("127.0.0.1", self.port), GUARD)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(plain, server_hostname=HOST)

    def exchange(self):
        """One request. A connection that the server has closed before it, or closes after it, is made anew, as browsers do."""
        while True:
            answer = b""
            try:
                self.connection.sendall(REQUEST)
                while not answer.endswith(b"Hello, world\n"):
                    data = self.connection.recv(4096)
                    if not data:
                        break
                    answer += data
            except (ConnectionError, ssl.SSLError):
                pass
            if b"\r\nConnection: close\r\n" in answer or not answer:
                self.connection.close()
                self.connection = self.connect()
            if answer:
                assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"Hello, world\n"), f"the answer was {answer!r}"
                return

    def go_on(self):
        """One request after the other."""
        last = time.monotonic()
        while not self.stopping.is_set():
            self.exchange()
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now

    def end(self):
        self.connection.close()
        if self.fault:
            raise AssertionError(f"the client failed: {self.fault}")
