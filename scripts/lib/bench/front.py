"""Sites: the front of preforkd beside nginx, with the same application behind.

All processes of a setup share one core; the load comes from the other. A setup's processor time counts with all its processes.
"""
import http.client
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import time
from dataclasses import dataclass

from . import static
from .findings import at_least, at_most, told
from .places import APPS, BENCH, PREFORKD, PYTHON, on_core
from .servers import free_port
from .throughput import note
from nginx import configuration  # Found by `places`.
from service import GUARD, Service, descendants

FOLDER = BENCH / "front"
OWN, NGINX, GUNICORN, DIRECT = "preforkd", "nginx + preforkd", "nginx + gunicorn", "preforkd, no front"
PLAIN, TLS, HTTP2 = "plain", "TLS", "HTTP/2"
FIXED = "Hello, world\n"
# Connections that stay open with nothing to do, for the memory of one.
IDLE = {False: 1000, True: 100}
MASTER = ["env", "-u", "LISTEN_FDS", "-u", "LISTEN_PID"]


@dataclass(frozen=True)
class Case:
    """What is asked for, and the most processor time that a request may take, as a part of nginx's."""

    title: str
    path: str
    scheme: str = PLAIN
    most: float | None = None
    size: int | None = None
    holds: bytes = b""
    connections: int | None = None
    # Each request has a connection of its own, whose handshake is a full one.
    fresh: bool = False
    setups: tuple[str, ...] = (OWN, NGINX)


def files():
    """The static files, as `static` has made them."""
    most = {"static-1k": 0.8, "static-17k": 0.8, "static-100k": 1.05, "static-10m": 1.05}
    for key, size in static.SIZES.items():
        connections = 4 if size > 1_000_000 else None
        yield Case(f"static file of {size:,} bytes", f"/static/{key}.bin", PLAIN, most[key], size, connections=connections)
    for scheme in (TLS, HTTP2):
        size = static.SIZES["static-17k"]
        yield Case(f"static file of {size:,} bytes over {scheme}", "/static/static-17k.bin", scheme, 0.6, size)


CASES = (
    Case("proxied hello world", "/", PLAIN, 0.7, holds=b"Hello, world", setups=(OWN, NGINX, GUNICORN)),
    Case("proxied hello world over TLS", "/", TLS, 0.7, holds=b"Hello, world"),
    Case("proxied hello world over HTTP/2", "/", HTTP2, 0.9, holds=b"Hello, world"),
    Case("Django plain view", "/plain", PLAIN, holds=b"Hello from Django", setups=(OWN, NGINX, DIRECT)),
    Case("fixed answer over TLS", "/fixed", TLS, 0.6, holds=FIXED.encode()),
    Case("fixed answer over HTTP/2", "/fixed", HTTP2, 0.6, holds=FIXED.encode()),
    Case("full TLS handshake", "/fixed", TLS, 0.6, holds=FIXED.encode(), fresh=True),
    *files(),
)


def run(options):
    """Rounds in which the setups take turns."""
    if not shutil.which("nginx"):
        print("bench: without sites: no nginx to compare with (apt-get install nginx-light)")
        return []
    with_http2 = shutil.which("h2load") is not None
    if not with_http2:
        print("bench: without HTTP/2: no h2load (apt-get install nghttp2-client)")
    prepare()
    cases = [case for case in CASES if with_http2 or case.scheme != HTTP2]
    results, refused = {}, set()
    for number in range(options.rounds):
        for name in turn((OWN, NGINX, GUNICORN, DIRECT), number):
            note(f"round {number + 1} of {options.rounds}: {name}")
            setup = Setup(name)
            try:
                for case in cases:
                    if name in case.setups and not speaks(setup, case):
                        refused.add((case, name))
                    elif name in case.setups:
                        check(setup, case)
                        results.setdefault((case, name), []).append(load(setup, case, options))
            finally:
                setup.close()
    note("")
    return [*rates(cases, results, refused), *memory(options)]


def turn(names, number):
    """Another one begins in each round."""
    number %= len(names)
    return names[number:] + names[:number]


def rates(cases, results, refused):
    """The processor time of a request beside nginx's, and two ratios of rates."""
    found = []
    for case in cases:
        rate, spent = ({name: statistics.median(run[n] for run in results[case, name])
                        for name in case.setups if (case, name) in results} for n in (0, 1))
        if (case, OWN) in refused:
            found.append(told(case.title, f"{OWN} does not speak {case.scheme}"))
            continue
        title = f"{case.title}: processor time per request, {OWN} / nginx"
        ratio = spent[OWN] / spent[NGINX]
        detail = f"{case.title}: µs of processor time, {OWN} and nginx"
        found.append(at_most(title, ratio, case.most) if case.most else told(title, f"{ratio:.2f}"))
        found.append(told(detail, f"{spent[OWN]:.1f}, {spent[NGINX]:.1f}"))
        if GUNICORN in rate:
            found.append(at_least(f"{case.title}: requests per second, {OWN} / {GUNICORN}", rate[OWN] / rate[GUNICORN], 3))
        if DIRECT in rate:
            found.append(at_least(f"{case.title}: requests per second, {OWN} / {DIRECT}", rate[OWN] / rate[DIRECT], 0.9))
    return found


def memory(options):
    """What an idle connection takes in the front."""
    found, number = [], IDLE[options.quick]
    setup = Setup(OWN)
    try:
        for scheme, most in ((PLAIN, 1), (TLS, 10)):
            note(f"{number} idle connections, {scheme}")
            # So that what is made once is there.
            warm = [setup.connect(scheme) for _ in range(20)]
            before = setup.memory()
            idle = [setup.connect(scheme) for _ in range(number)]
            found.append(at_most(f"kB of each of {number:,} idle connections, {scheme}",
                                 (setup.memory() - before) / number, most, "{:.2f}"))
            for connection in warm + idle:
                connection.close()
    finally:
        setup.close()
    note("")
    return found


def prepare():
    """The folder of these parts, with a certificate that both serve."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o755)
    certificate(FOLDER, "localhost")


def certificate(folder, host):
    """One of a kind for this host, made once."""
    if (folder / "key.pem").exists():
        return
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "3650", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)


class Setup:
    """Processes that serve the application, and their addresses; `keys` are further lines of the table of the front."""

    def __init__(self, name, keys=""):
        self.keys = keys
        self.ports = {PLAIN: free_port(), TLS: free_port()}
        self.ports[HTTP2] = self.ports[TLS]
        self.services = []
        try:
            {OWN: self.own, NGINX: self.behind_nginx, GUNICORN: self.gunicorn, DIRECT: self.direct}[name]()
            # It is ready before its worker is.
            self.fetch(PLAIN, "/plain" if name == DIRECT else "/")
        except BaseException:
            self.close()
            raise

    def own(self):
        """preforkd alone."""
        self.master(apps("") + f"""
[site.plain]
listen = "127.0.0.1:{self.ports[PLAIN]}"
{site()}
[site.tls]
listen = "127.0.0.1:{self.ports[TLS]}"
tls = [{{ cert = "{FOLDER}/cert.pem", key = "{FOLDER}/key.pem" }}]
{site()}
[front]
workers = 1
{self.keys}""")

    def behind_nginx(self):
        """nginx, and preforkd as the server of the application."""
        sockets = {app: FOLDER / f"{app}.sock" for app in ("hello", "django")}
        self.master("".join(apps(f'listen = "unix:{path}"\ntrusted_proxies = ["unix"]\n', only=app)
                            for app, path in sockets.items()))
        self.nginx(sockets)

    def gunicorn(self):
        """nginx, and gunicorn as the server of the application."""
        path = FOLDER / "gunicorn.sock"
        application, folder = APPS["hello"]
        command = [PYTHON, "-m", "gunicorn", "--workers=1", "--log-level=warning", f"--bind=unix:{path}", application]
        path.unlink(missing_ok=True)
        self.services.append(Service(on_core(0, [*MASTER, "-u", "NOTIFY_SOCKET", *command]), cwd=folder))
        until(lambda: connected(socket.AF_UNIX, str(path)), self.services[-1])
        self.nginx({"hello": path, "django": path})

    def direct(self):
        """preforkd without a front."""
        self.master(apps(f'listen = "127.0.0.1:{self.ports[PLAIN]}"\n', only="django"))

    def master(self, text):
        """preforkd with this configuration."""
        self.services.append(preforkd(FOLDER / "app.toml", text))
        self.services[-1].wait_notify("READY=1")

    def nginx(self, sockets):
        """nginx with one worker before these sockets, with what its users write for a proxy."""
        proxy = ("proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; "
                 "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;")
        upstreams = "".join(f"upstream {app} {{ server unix:{path}; keepalive 32; }}\n" for app, path in sockets.items())
        (FOLDER / "mime.types").write_text(static.TYPES)
        server = f"""listen 127.0.0.1:{self.ports[TLS]} ssl http2;
ssl_certificate {FOLDER}/cert.pem; ssl_certificate_key {FOLDER}/key.pem;
location / {{ proxy_pass http://hello; {proxy} }}
location /plain {{ proxy_pass http://django; {proxy} }}
location /static/ {{ alias {static.FOLDER}/files/; }}
location /fixed {{ default_type text/plain; return 200 '{FIXED}'; }}"""
        # As root it would be another user, who may not use the sockets.
        user = "user root;" if os.getuid() == 0 else ""
        main = f"{user} daemon off; worker_processes 1; error_log {FOLDER}/error.log;"
        config = FOLDER / "nginx.conf"
        config.write_text(configuration(FOLDER, self.ports[PLAIN], main, static.HTTP + upstreams, server))
        command = ["nginx", "-c", config, "-e", FOLDER / "error.log"]
        self.services.append(Service(on_core(0, [*MASTER, "-u", "NOTIFY_SOCKET", *command]), cwd=FOLDER))
        until(lambda: connected(socket.AF_INET, ("127.0.0.1", self.ports[PLAIN])), self.services[-1])

    def connect(self, scheme):
        """A connection that has been greeted, if its scheme has such a thing."""
        connection = socket.create_connection(("127.0.0.1", self.ports[scheme]), GUARD)
        return connection if scheme == PLAIN else context().wrap_socket(connection, server_hostname="localhost")

    def fetch(self, scheme, path):
        """Status and body of one answer. HTTP/1.1 over TLS stands for HTTP/2 too."""
        client = http.client.HTTPConnection("localhost", self.ports[scheme], timeout=GUARD)
        client.sock = self.connect(scheme)
        try:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def processes(self):
        """All of them."""
        for service in self.services:
            yield from (service.process.pid, *descendants(service.process.pid))

    def spent(self):
        """Nanoseconds of processor time."""
        total = 0
        for pid in self.processes():
            with open(f"/proc/{pid}/schedstat") as file:
                total += int(file.read().split()[0])
        return total

    def fronts(self):
        """The workers of the front."""
        return [pid for pid in self.processes() if os.readlink(f"/proc/{pid}/exe").endswith("/preforkd-front")]

    def memory(self):
        """kB that the workers of the front have to themselves."""
        total = 0
        for pid in self.fronts():
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+) kB", file.read(), re.M))
        if not total:
            raise AssertionError(f"no worker of the front is there\n{self.services[0].report()}")
        return total

    def close(self):
        """Nothing of it stays."""
        for service in self.services:
            service.close()


def preforkd(config, text):
    """The master with this configuration in this file; not waited for."""
    config.write_text(text)
    return Service(on_core(0, [*MASTER, PREFORKD, "-c", config]), cwd=FOLDER)


def apps(listen, only=None):
    """The tables of the applications."""
    text = ""
    for app in ("hello", "django"):
        application, folder = APPS[app]
        if only in (app, None):
            text += (f'[app.{app}]\nwsgi = "{application}"\nchdir = "{folder}"\npython = "{PYTHON}"\nworkers = 1\n'
                     f"preload = true\n{listen}")
    return text


def site():
    """What both sites serve."""
    return f"""static = {{ "/static/" = "{static.FOLDER}/files" }}
routes = [
    {{ path = "/plain", app = "django" }},
    {{ path = "/fixed", answer = {{ status = 200, text = "{FIXED.rstrip()}\\n" }} }},
    {{ path = "/", app = "hello" }},
]
"""


def context():
    """A client that believes any certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def connected(family, address):
    """Whether somebody listens there."""
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


def until(happens, service):
    """Waits for a server that does not say when it is ready."""
    deadline = time.monotonic() + GUARD
    while not happens():
        if service.process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"it does not listen\n{service.report()}")
        time.sleep(0.01)


def speaks(setup, case):
    """Whether the server agrees to HTTP/2."""
    if case.scheme != HTTP2:
        return True
    offer = context()
    offer.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(("127.0.0.1", setup.ports[TLS]), GUARD) as plain, offer.wrap_socket(plain) as client:
            return client.selected_alpn_protocol() == "h2"
    except ssl.SSLError:
        return False


def check(setup, case):
    """Errors are not throughput."""
    status, body = setup.fetch(case.scheme, case.path)
    if status != 200 or case.holds not in body or (case.size and len(body) != case.size):
        report = "\n".join(service.report() for service in setup.services)
        raise AssertionError(f"{case.path} was answered with {status}, {len(body)} bytes\n{report}")


def load(setup, case, options):
    """Requests per second in one run, and microseconds of processor time of each."""
    connections = min(case.connections or options.connections, options.connections)
    scheme = "http" if case.scheme == PLAIN else "https"
    url = f"{scheme}://localhost:{setup.ports[case.scheme]}{case.path}"
    if case.scheme == HTTP2:
        command = ["h2load", "-t1", f"-c{connections // 4 or 1}", "-m16", f"-D{options.seconds}", url]
    elif case.fresh:
        # wrk would resume the sessions.
        command = ["openssl", "s_time", "-new", "-time", options.seconds, "-www", case.path,
                   "-connect", f"localhost:{setup.ports[case.scheme]}"]
    else:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{options.seconds}s", url]
    before = setup.spent()
    report = subprocess.run(on_core(1, command), check=True, capture_output=True, text=True).stdout
    spent = (setup.spent() - before) / 1000
    if case.scheme == HTTP2:
        done = re.search(r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", report)
        requests, failed = int(done[1]), int(done[2]) + int(done[3])
        rate = requests / options.seconds
    elif case.fresh:
        requests, seconds = map(int, re.search(r"(\d+) connections in (\d+) real seconds", report).groups())
        rate, failed = requests / seconds, False
    else:
        requests, failed = int(re.search(r"(\d+) requests in", report)[1]), "Non-2xx" in report
        rate = float(re.search(r"Requests/sec:\s*([\d.]+)", report)[1])
    if failed or not requests:
        raise AssertionError(f"errors are not throughput:\n{report}\n{setup.services[0].report()}")
    return rate, spent / requests
