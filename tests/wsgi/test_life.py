"""The life of Python workers under the real master: start, failure, reload, stop.

How a worker speaks HTTP and PEP 3333 is tested beside its source; here is what takes both of them.

    python3 -m unittest discover -s tests/wsgi
"""
import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "django"))
from harness import Preforkd  # noqa: E402
from service import GUARD, descendants  # noqa: E402


class Life(unittest.TestCase):
    """A folder, a gate, and a server that ends with the test."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="preforkd-wsgi-"))
        self.addCleanup(shutil.rmtree, self.folder)
        os.mkfifo(self.folder / "gate")

    def launch(self, kind=Preforkd, **options):
        """preforkd with an application of apps.py; not waited for."""
        app = {
            "wsgi": "apps:facts", "chdir": str(HERE), "python": sys.executable, "listen": ["fd:web"], "workers": 1,
            "env": {"E2E_GATE": str(self.folder / "gate"), "PYTHONDONTWRITEBYTECODE": "1"}, **options,
        }
        server = kind(self.folder, **app)
        self.addCleanup(server.close)
        return server

    def open(self, server, path):
        """Send a request on a connection of its own; the response, its body still to be read."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        connection.request("GET", path)
        return connection.getresponse()

    def ask(self, server, path="/"):
        """The facts of the worker that answers. The connection is closed: a worker that ends waits a second for clients to end theirs."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)) as connection:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def wait_status(self, server, text):
        """Wait until the init system is told this."""
        while text not in server.wait_notify().get("STATUS", ""):
            pass

    def release(self, text):
        """Open the gate for one held request."""
        with open(self.folder / "gate", "w") as gate:
            gate.write(text)


def both_kinds(test):
    """Run a test for both ways to get a worker: forked from a template, and started on its own."""

    @functools.wraps(test)
    def run(self):
        for preload in (True, False):
            with self.subTest(preload=preload):
                test(self, preload)

    return run


class Handlers(Life):
    """Signals that the application has taken for itself."""

    @both_kinds
    def test_a_reload_and_a_stop_lose_nothing_where_the_application_exits_at_every_signal(self, preload):
        (self.folder / "taken.py").write_text(textwrap.dedent("""
            import os, signal, sys

            def leave(*_):
                sys.exit(1)

            for name in ("TERM", "HUP", "INT", "USR1", "CHLD"):
                signal.signal(getattr(signal, "SIG" + name), leave)

            def application(environ, start_response):
                with open(os.environ["E2E_GATE"]) as gate:
                    answer = gate.read()
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [answer.encode()]
        """))
        server = self.launch(wsgi="taken:application", chdir=str(self.folder), preload=preload).ready()

        def held(order):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
            self.addCleanup(connection.close)
            connection.request("GET", "/")
            # Open when the application is reading.
            with open(self.folder / "gate", "w") as gate:
                order()
                gate.write("whole")
            self.assertEqual(connection.getresponse().read(), b"whole")

        def reload():
            server.send(signal.SIGHUP)
            server.wait_notify("RELOADING=1")
            server.wait_notify("READY=1")

        held(reload)
        held(lambda: (server.send(signal.SIGTERM), server.wait_notify("STOPPING=1")))
        self.assertEqual(server.process.wait(GUARD), 0)


class Start(Life):
    """How an application finds its worker; how it fails."""

    @both_kinds
    def test_application_finds_its_folder_and_nothing_of_the_masters_business(self, preload):
        server = self.launch(preload=preload, workers=2).ready()
        facts = self.ask(server)
        self.assertEqual((facts["app"], facts["generation"]), ("demo", "1"))
        self.assertEqual((facts["cwd"], facts["path"]), (str(HERE), str(HERE)))
        self.assertIn(facts["pid"], descendants(server.process.pid))
        kept = {name for name in facts["names"] if name.startswith(("LISTEN_", "NOTIFY_", "PREFORKD_"))}
        self.assertEqual(kept, {"PREFORKD_APP", "PREFORKD_SLOT", "PREFORKD_GENERATION"})
        self.assertEqual((facts["multithread"], facts["multiprocess"], facts["run_once"]), (False, True, False))
        self.assertTrue(facts["thread"], "one thread means the main thread")
        server.finish()

    def test_the_init_system_may_listen_at_an_abstract_name(self):
        class Container(Preforkd):
            abstract = True

        self.launch(Container).ready().finish()

    def test_threads_of_a_pool_are_told(self):
        server = self.launch(threads=2).ready()
        facts = self.ask(server)
        # One worker is several processes too, while a reload replaces it.
        self.assertEqual((facts["multithread"], facts["multiprocess"]), (True, True))
        server.finish()

    @both_kinds
    def test_import_error_is_shown_once_and_ends_the_master(self, preload):
        (self.folder / "broken.py").write_text("raise LookupError('no settings today')\n")
        server = self.launch(preload=preload, wsgi="broken:application", chdir=str(self.folder))
        with self.assertRaisesRegex(AssertionError, "^ended .*exit status 1\n"):
            server.ready()
        log = server.log
        self.assertEqual(log.count("LookupError: no settings today"), 1, log)
        self.assertEqual(sum(line.startswith("Traceback") for line in log), 1, log)
        last = max(number for number, line in enumerate(log) if "ERROR" in line)
        self.assertGreater(last, log.index("LookupError: no settings today"), "the consequence comes after")

    @both_kinds
    def test_missing_names_are_named(self, preload):
        (self.folder / "empty.py").write_text("")
        for application, name in (("nowhere:application", "nowhere"), ("empty:nothing", "nothing")):
            server = self.launch(preload=preload, wsgi=application, chdir=str(self.folder))
            with self.assertRaisesRegex(AssertionError, "^ended .*exit status 1\n"):
                server.ready()
            self.assertTrue([line for line in server.log if name in line], server.log)

    def test_threads_started_at_import_are_named(self):
        server = self.launch(wsgi="haunted:application", preload=True).ready()
        server.wait_log("WARN.*ghost")
        self.assertEqual(self.ask(server)["app"], "demo")
        server.finish()

    def test_a_template_that_does_not_end_is_killed(self):
        server = self.launch(wsgi="undying:application", preload=True).ready()
        self.assertEqual(self.ask(server)["app"], "demo")
        server.send(signal.SIGTERM)
        server.wait_log("stopping; workers finish their requests")
        # Its grace is over.
        server.send(signal.SIGINT)
        server.wait_log("template gen=.* pid=.*: sending SIGKILL .still running after it was told to end")
        server.finish()

    @both_kinds
    def test_nothing_that_the_application_says_is_lost(self, preload):
        server = self.launch(preload=preload).ready()
        self.ask(server, "/print")
        server.wait_log("told to wsgi.errors$")
        server.finish()
        # Python keeps what is printed to a pipe until there is more of it, or until it ends in order.
        self.assertIn("printed by the application", server.log)
        self.assertEqual(server.log.count("left in order"), 1, server.log)

    @both_kinds
    def test_with_pythonunbuffered_what_is_printed_does_not_wait_in_a_buffer(self, preload):
        env = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        server = self.launch(preload=preload, env=env).ready()
        self.ask(server, "/print")
        server.wait_log("printed by the application")
        server.wait_log("told to wsgi.errors$")
        server.finish()


class Logs(Life):
    """Where what is said goes."""

    @both_kinds
    def test_access_log_and_standard_streams_go_to_their_files(self, preload):
        files = {name: self.folder / f"{name}-{preload}" for name in ("stdout", "stderr", "access_log")}
        server = self.launch(preload=preload, **{name: str(path) for name, path in files.items()}).ready()
        self.ask(server, "/print?a=b")
        raw = socket.create_connection(("127.0.0.1", server.port))
        raw.sendall(b"nonsense\r\n\r\n")
        self.assertIn(b" 400 ", raw.recv(1000))
        raw.close()
        server.finish()
        text = {name: path.read_text() for name, path in files.items()}
        self.assertEqual(text["stdout"], "printed by the application\nleft in order\n")
        self.assertRegex(text["stderr"], r"\A\S+ INFO  app=demo .* Python 3.*\ntold to wsgi.errors\n\S+ INFO .* refused a request .*\n\Z")
        good, bad = text["access_log"].splitlines()
        self.assertRegex(good, r'^127\.0\.0\.1 - - \[.*\] "GET /print\?a=b HTTP/1\.1" 200 [1-9]\d* "-" "-" \d+\.\d{3}$')
        self.assertRegex(bad, r'^127\.0\.0\.1 - - \[.*\] "nonsense" 400 40 "-" "-" 0\.000$')

    def refuse(self, server, *requests):
        """Send requests that are refused; the statuses."""
        statuses = []
        for request in requests:
            with socket.create_connection(("127.0.0.1", server.port), GUARD) as raw:
                raw.sendall(request)
                statuses.append(int(raw.makefile("rb").readline().split()[1]))
        return statuses

    @both_kinds
    def test_an_access_log_on_standard_output_has_the_form_that_was_asked_for(self, preload):
        stdout = self.folder / f"stdout-{preload}"
        server = self.launch(preload=preload, access_log="-", access_format="json", stdout=str(stdout), max_body="1KiB").ready()
        slot = self.ask(server, "/print?a=b")["slot"]
        self.assertEqual(self.refuse(server, b"POST /up?x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"), [413])
        server.wait_log(r"refused a request of 127\.0\.0\.1: \"POST /up\?x HTTP/1\.1\": 413 .*raise `max_body`")
        server.finish()
        self.assertFalse((self.folder / "-").exists())
        lines = stdout.read_text().splitlines()
        self.assertIn("printed by the application", lines)
        good, bad = (json.loads(line) for line in lines if line.startswith("{"))
        self.assertEqual((good["request"], good["status"], good["app"]), ("GET /print?a=b HTTP/1.1", 200, "demo"))
        self.assertEqual((good["worker"], good["generation"]), (int(slot), 1))
        self.assertEqual((bad["request"], bad["status"], bad["path"]), ("POST /up?x HTTP/1.1", 413, "/up"))

    @both_kinds
    def test_a_request_has_the_same_name_for_client_application_and_log(self, preload):
        log = self.folder / f"log-{preload}"
        options = {"access_log": str(log), "access_format": "{request_id} {path}", "request_id": True}
        server = self.launch(preload=preload, wsgi="apps:named", **options).ready()
        names = []
        for forged in ({}, {"X-Request-ID": "forged"}):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
            self.addCleanup(connection.close)
            connection.request("GET", "/", headers=forged)
            response = connection.getresponse()
            names.append(response.getheader("X-Request-ID"))
            self.assertRegex(names[-1], r"^[0-9a-f]{32}$")
            self.assertEqual(response.read().decode(), names[-1])
        server.finish()
        self.assertEqual(log.read_text().splitlines(), [f"{name} /" for name in names])

    def test_a_trusted_proxy_names_its_requests(self):
        log = self.folder / "log"
        options = {"access_log": str(log), "access_format": "{request_id} {client}", "request_id": True}
        server = self.launch(wsgi="apps:named", trusted_proxies=["127.0.0.1"], **options).ready()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        connection.request("GET", "/", headers={"X-Request-ID": "theirs", "X-Forwarded-For": "203.0.113.7"})
        response = connection.getresponse()
        self.assertEqual((response.getheader("X-Request-ID"), response.read()), ("theirs", b"theirs"))
        server.finish()
        self.assertEqual(log.read_text(), "theirs 203.0.113.7\n")

    def test_an_access_log_that_goes_to_syslog(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
            syslog.bind(str(self.folder / "log"))
            syslog.settimeout(GUARD)
            server = self.launch(access_log=f"syslog:{self.folder}/log,tag=shop", access_format="{method} {path} {status}").ready()
            self.ask(server, "/one")
            self.assertRegex(syslog.recv(1000), rb"^<190>\w{3} [ \d]\d \d\d:\d\d:\d\d shop\[\d+\]: GET /one 200$")
            server.finish()

    @both_kinds
    def test_the_reason_of_a_failed_reload_quotes_the_exception(self, preload):
        source = self.folder / "quoted.py"
        shutil.copy(HERE / "hello.py", source)
        server = self.launch(preload=preload, wsgi="quoted:application", chdir=str(self.folder)).ready()
        source.unlink()
        source.write_text("import nothing_of_this_name\n")
        server.expect(".")
        said = server.reload()
        self.assertIn("quoted is there, and imports nothing_of_this_name, which is missing: ", said["STATUS"])
        self.assertIn("keeping generation 1", said["STATUS"])
        server.finish()


class Workers(Life):
    """Several workers of one application."""

    @both_kinds
    def test_a_busy_worker_leaves_the_next_connection_to_an_idle_one(self, preload):
        server = self.launch(preload=preload, workers=2).ready()
        held = self.open(server, "/held")
        busy = json.loads(held.readline())
        idle = self.ask(server)
        self.assertNotEqual(busy["slot"], idle["slot"])
        self.assertNotEqual(busy["pid"], idle["pid"])
        if preload:
            self.assertNotEqual(busy["random"], idle["random"], "both would draw the template's numbers")
        self.release("done")
        self.assertEqual(held.read(), b"done")
        server.finish()

    @both_kinds
    def test_a_worker_that_ends_by_itself_is_replaced_in_its_slot(self, preload):
        server = self.launch(preload=preload).ready()
        before = self.ask(server)
        server.expect(rf"\bpid={before['pid']}\b")
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
            self.open(server, "/exit")
        # The connection waits in the listener's queue until the replacement accepts it.
        after = self.ask(server)
        self.assertEqual((after["slot"], after["generation"]), (before["slot"], before["generation"]))
        self.assertNotEqual(after["pid"], before["pid"])
        server.wait_log(rf"pid={before['pid']}\b.*\b7\b")
        server.finish()

    @both_kinds
    def test_abort_shows_what_the_worker_was_doing(self, preload):
        server = self.launch(preload=preload).ready()
        held = self.open(server, "/held")
        pid = json.loads(held.readline())["pid"]
        server.expect(rf"\bpid={pid}\b")
        # The gate can only be opened while the worker is opening it too: then it is in held() for certain.
        with open(self.folder / "gate", "w"):
            os.kill(pid, signal.SIGABRT)
            server.wait_log(r"apps\.py.* in held")
        with self.assertRaises((http.client.IncompleteRead, ConnectionResetError)):
            held.read()
        self.assertNotEqual(self.ask(server)["pid"], pid)
        server.finish()


class Load(Life):
    """The number of workers follows the load."""

    def hold(self, server, name):
        """A worker that is in a request until its own gate opens."""
        os.mkfifo(self.folder / f"gate-{name}")
        held = self.open(server, f"/held/{name}")
        return held, json.loads(held.readline())["pid"]

    @both_kinds
    def test_busy_workers_have_idle_ones_beside_them_and_these_go_when_it_is_quiet(self, preload):
        workers = {"min": 1, "max": 3, "spare": 1, "idle_timeout": "500ms"}
        server = self.launch(preload=preload, workers=workers).ready()
        names = [f"{preload}-{number}" for number in range(3)]
        held = {names[0]: self.hold(server, names[0])}
        self.wait_status(server, "demo 2/2 ready")
        held[names[1]] = self.hold(server, names[1])
        self.wait_status(server, "demo 3/3 ready")
        held[names[2]] = self.hold(server, names[2])
        self.assertEqual(len({pid for _, pid in held.values()}), 3, "each has a worker of its own")
        for name, (response, _) in held.items():
            (self.folder / f"gate-{name}").write_text("done")
            self.assertEqual(response.read(), b"done")
        self.wait_status(server, "demo 1/1 ready")
        self.assertEqual(self.ask(server)["app"], "demo")
        server.finish()

    @both_kinds
    def test_an_app_that_nobody_uses_may_have_no_worker_until_somebody_does(self, preload):
        workers = {"min": 0, "max": 2, "spare": 0, "idle_timeout": "300ms"}
        server = self.launch(preload=preload, workers=workers).ready()
        for _ in range(2):
            self.wait_status(server, "demo 0/0 ready")
            self.assertEqual(self.ask(server)["app"], "demo")
        # A reload shows that the new code starts, though nobody needs it.
        self.wait_status(server, "demo 0/0 ready")
        server.reload()
        self.wait_status(server, "demo 0/0 ready")
        self.assertEqual(self.ask(server)["generation"], "2")
        server.finish()


class Stillborn(Life):
    """Workers that die in the moment of their fork."""

    def test_a_worker_that_dies_at_its_fork_is_noticed(self):
        for fork in ("1", "2"):
            server = self.launch(
                preload=True, wsgi="stillborn:application", start_timeout="1s",
                env={"STILLBORN_AT": fork, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            server.expect(".")
            server.wait_log("cannot start: app=demo: its template (cannot fork a worker|forked no worker in time)")
            self.assertEqual(server.process.wait(GUARD), 1)

    def hangs_at(self, fork):
        """A server with one worker, and another one that hangs at its first or second fork; and a pipe that ends with it."""
        hangs = self.folder / "hangs"
        env = {"STILLBORN_AT": fork, "STILLBORN_HANGS": str(hangs), "PYTHONDONTWRITEBYTECODE": "1"}
        server = self.launch(preload=True, wsgi="stillborn:application", start_timeout="1s", env=env).ready()
        os.mkfifo(hangs)
        server.send(signal.SIGTTIN)
        held = open(hangs)
        self.addCleanup(held.close)
        hangs.unlink()
        return server, held

    def test_a_worker_that_hangs_at_its_fork_is_replaced_and_its_template_with_it(self):
        for fork in ("1", "2"):
            with self.subTest(fork=fork):
                server, held = self.hangs_at(fork)
                server.expect("forked no worker in time")
                self.assertEqual(held.read(), "", "it has ended")
                server.wait_log("forked no worker in time .*; ending the template")
                self.wait_status(server, "demo 2/2 ready")
                self.assertEqual(self.ask(server)["app"], "demo")
                server.finish()

    def test_a_worker_that_hangs_at_its_fork_does_not_outlive_the_master(self):
        for fork in ("1", "2"):
            with self.subTest(fork=fork):
                server, held = self.hangs_at(fork)
                server.finish()
                self.assertEqual(held.read(), "", "it has ended")

    def test_a_worker_that_hangs_at_its_fork_does_not_outlive_a_master_that_was_killed(self):
        for fork in ("1", "2"):
            with self.subTest(fork=fork):
                server, held = self.hangs_at(fork)
                server.process.kill()
                self.assertEqual(held.read(), "", "it has ended")


class Hang(Life):
    """A request that takes longer than `timeout`."""

    @both_kinds
    def test_a_hung_worker_says_where_and_is_replaced(self, preload):
        for threads in (1, 2):
            server = self.launch(preload=preload, threads=threads, timeout="300ms").ready()
            held = self.open(server, "/held?secret=1")
            pid = json.loads(held.readline())["pid"]
            server.expect(rf"\bpid={pid}\b")
            line = server.wait_log(rf"pid={pid}: hangs: in GET /held for ").string
            self.assertIn("timeout 300ms", line)
            self.assertNotIn("secret", line, "what stands in a query is not for the log")
            server.wait_log(r"apps\.py.* in held")
            server.wait_log(rf"pid={pid}: killed by SIGABRT")
            self.assertNotEqual(self.ask(server)["pid"], pid)
            server.finish()

    @both_kinds
    def test_the_neighbours_of_a_hung_request_are_told_and_not_reset(self, preload):
        server = self.launch(preload=preload, timeout="500ms").ready()
        asks, idle = (http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD) for _ in range(2))
        for kept in (asks, idle):
            self.addCleanup(kept.close)
            kept.request("GET", "/")
            pid = json.loads(kept.getresponse().read())["pid"]
        server.expect(rf"\bpid={pid}\b")
        self.open(server, "/held").readline()
        asks.request("POST", "/", body=b"x" * 100000)
        answer = asks.getresponse()
        self.assertEqual((answer.status, answer.headers["Retry-After"], answer.headers["Connection"]), (503, "1", "close"))
        self.assertEqual(idle.sock.recv(1), b"")
        server.wait_log(rf"pid={pid}: killed by SIGABRT")
        server.finish()

    @both_kinds
    def test_the_neighbours_of_a_hung_request_finish_first(self, preload):
        other_gate = self.folder / "gate-too"
        if not other_gate.exists():
            os.mkfifo(other_gate)
        server = self.launch(preload=preload, threads=2, timeout="500ms").ready()
        hung = self.open(server, "/held")
        pid = json.loads(hung.readline())["pid"]
        server.expect(rf"\bpid={pid}\b")
        neighbour = self.open(server, "/held/too")
        neighbour.readline()
        server.wait_log(rf"pid={pid}: hangs: in GET /held for .*; its other requests may finish")
        with open(other_gate, "w") as gate:
            gate.write("through")
        self.assertEqual(neighbour.read(), b"through")
        server.wait_log(rf"pid={pid}: killed by SIGABRT")
        with self.assertRaises((http.client.IncompleteRead, ConnectionResetError)):
            hung.read()
        self.assertNotEqual(self.ask(server)["pid"], pid)
        server.finish()

    @both_kinds
    def test_a_stopped_worker_is_replaced_and_one_that_goes_on_is_not(self, preload):
        server = self.launch(preload=preload, timeout="300ms").ready()
        pid = self.ask(server)["pid"]
        os.kill(pid, signal.SIGSTOP)
        server.wait_log(rf"pid={pid}: stopped by a signal")
        os.kill(pid, signal.SIGCONT)
        server.wait_log(rf"pid={pid}: continued")
        self.assertEqual(self.ask(server)["pid"], pid)
        server.expect(rf"\bpid={pid}\b")
        os.kill(pid, signal.SIGSTOP)
        server.wait_log(rf"pid={pid}: hangs: stopped by a signal")
        self.assertNotEqual(self.ask(server)["pid"], pid)
        server.wait_log(rf"pid={pid}: killed by SIGKILL")
        server.finish()

    def test_many_short_requests_are_no_hang(self):
        server = self.launch(preload=True, timeout="300ms").ready()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        pids, ends = set(), time.monotonic() + 1
        while time.monotonic() < ends:
            connection.request("GET", "/")
            pids.add(json.loads(connection.getresponse().read())["pid"])
        self.assertEqual(len(pids), 1)
        server.finish()

    @both_kinds
    def test_a_failed_check_does_not_count_while_all_threads_are_busy(self, preload):
        fifo = self.folder / f"ran-{preload}"
        os.mkfifo(fifo)
        sick = self.folder / f"sick-{preload}"
        script = f"test -e {sick} || exit 0; echo ran >{fifo}; exit 1"
        check = {"command": ["sh", "-c", script], "every": "20ms", "failures": 1, "timeout": "20s"}
        server = self.launch(preload=preload, reload={"check": check}).ready()
        held = self.open(server, "/held")
        pid = json.loads(held.readline())["pid"]
        sick.touch()
        # Open in both directions, so that no check waits for a reader.
        with open(os.open(fifo, os.O_RDWR), "rb", buffering=0) as ran:
            for _ in range(3):
                # Each begins when the one before it has been judged.
                self.assertEqual(ran.read(4), b"ran\n")
            self.assertEqual([line for line in server.log if "check: failed" in line or "hangs" in line], [])
            server.expect(rf"\bpid={pid}\b")
            self.release("finished")
            self.assertEqual(held.read(), b"finished")
            server.wait_log(rf"pid={pid}: hangs: 1 checks in a row failed: sh exited with status 1")
            sick.unlink()
        server.wait_log(rf"pid={pid}: killed by SIGABRT")
        server.finish()


class Recycle(Life):
    """Workers that make room for fresh ones."""

    @both_kinds
    def test_a_worker_is_replaced_after_max_requests_and_no_request_is_lost(self, preload):
        server = self.launch(preload=preload, max_requests=20, max_requests_jitter=5).ready()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        pids = []
        while len(set(pids)) < 3:
            connection.request("GET", "/")
            pids.append(json.loads(connection.getresponse().read())["pid"])
        self.assertGreaterEqual(pids.count(pids[0]), 20)
        server.wait_log(rf"pid={pids[0]}: to be replaced: it has answered max_requests")
        server.wait_log(rf"pid={pids[0]}: ended \(replaced by a fresh worker\)")
        server.finish()

    def test_a_worker_is_replaced_when_it_is_old_or_large(self):
        for limit, reason in (({"max_age": "300ms"}, "it has reached max_age"), ({"max_memory": "1KiB", "timeout": "200ms"}, "share of memory is")):
            server = self.launch(preload=True, **limit).ready()
            pid = self.ask(server)["pid"]
            server.wait_log(rf"pid={pid}: to be replaced: .*{reason}")
            server.finish()


class Reload(Life):
    """HUP."""

    def write(self, text):
        """The application's source; removed first, so that no cached code of the same second can stand for it."""
        source = self.folder / "changing.py"
        source.unlink(missing_ok=True)
        source.write_text(textwrap.dedent(text))

    def answering(self, text):
        """An application that answers with `text`."""
        self.write(f"""
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"{text}"]
        """)

    @both_kinds
    def test_reload_brings_new_code_and_never_a_broken_one(self, preload):
        self.answering("old")
        server = self.launch(preload=preload, workers=2, wsgi="changing:application", chdir=str(self.folder)).ready()
        self.assertEqual(self.open(server, "/").read(), b"old")
        workers = set(descendants(server.process.pid))

        self.write("raise LookupError('half an edit')")
        server.expect(".")
        server.reload()
        server.wait_log("LookupError: half an edit")
        server.wait_log("ERROR.*keeping generation 1")
        self.assertEqual(self.open(server, "/").read(), b"old")
        self.assertLessEqual(workers, set(descendants(server.process.pid)), "the old workers were never touched")

        self.answering("new")
        server.reload()
        self.assertEqual(self.open(server, "/").read(), b"new")
        server.finish()


    @both_kinds
    def test_a_django_site_whose_urls_cannot_be_imported_is_a_broken_deploy(self, preload):
        self.write("""
            from django.conf import settings
            settings.configure(ROOT_URLCONF="changing_urls", SECRET_KEY="for this test", ALLOWED_HOSTS=["*"])
            from django.core.wsgi import get_wsgi_application
            application = get_wsgi_application()
        """)
        urls = self.folder / "changing_urls.py"
        urls.write_text(textwrap.dedent("""
            from django.http import HttpResponse
            from django.urls import path
            urlpatterns = [path("", lambda request: HttpResponse("old"))]
        """))
        server = self.launch(preload=preload, wsgi="changing:application", chdir=str(self.folder)).ready()
        self.assertEqual(self.open(server, "/").read(), b"old")
        urls.write_text("import no_such_app\n")
        server.expect(".")
        said = server.reload()["STATUS"]
        self.assertIn("imports no_such_app, which is missing: ", said)
        self.assertIn("; keeping generation 1", said)
        self.assertEqual(self.open(server, "/").read(), b"old")
        server.finish()

    @both_kinds
    def test_the_first_worker_is_checked_before_it_gets_any_request(self, preload):
        self.answering("old")
        check = {"path": "/health", "host": "site.example", "attempts": 1, "timeout": "20s"}
        server = self.launch(
            preload=preload, workers=2, wsgi="changing:application", chdir=str(self.folder), reload={"check": check},
        ).ready()
        gate = self.folder / "gate"
        self.write(f"""
            def application(environ, start_response):
                if environ["PATH_INFO"] == "/health":
                    assert environ["HTTP_HOST"] == "site.example"
                    start_response(open({str(gate)!r}).read(), [])
                    return []
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"new"]
        """)
        for status, answer in (("503 Not Yet", b"old"), ("200 OK", b"new")):
            server.expect("failed its check")
            start = len(server.log)
            server.send(signal.SIGHUP)
            server.wait_notify("RELOADING=1")
            # Open when the new worker is in the request that checks it.
            with open(gate, "w") as held:
                for _ in range(20):
                    self.assertEqual(self.open(server, "/").read(), b"old")
                held.write(status)
            said = server.wait_notify("READY=1")["STATUS"]
            self.assertEqual("answered \"HTTP/1.1 503 Not Yet\", not 200; keeping generation 1" in said, answer == b"old", said)
            for _ in range(5):
                self.assertEqual(self.open(server, "/").read(), answer)
            server.wait_log("check pid=", start)
        server.finish()


class Stop(Life):
    """The end."""

    @both_kinds
    def test_graceful_stop_finishes_what_is_being_served(self, preload):
        for threads in (1, 2):
            server = self.launch(preload=preload, threads=threads).ready()
            held = self.open(server, "/held")
            held.readline()
            server.send(signal.SIGTERM)
            server.wait_notify("STOPPING=1")
            self.release("done")
            self.assertEqual(held.read(), b"done")
            server.finish()
            with self.assertRaises(ConnectionRefusedError):
                self.open(server, "/")

    @both_kinds
    def test_workers_end_with_a_killed_master(self, preload):
        server = self.launch(preload=preload, workers=2).ready()
        held = self.open(server, "/held")
        held.readline()
        server.process.kill()
        self.release("done")
        self.assertEqual(held.read(), b"done", "even then")
        # The log ends when the last process that could write to it has ended.
        server.reader.join(GUARD)
        self.assertFalse(server.reader.is_alive(), server.report())
        with self.assertRaises(ConnectionRefusedError):
            self.open(server, "/")

    @both_kinds
    def test_a_request_that_outlasts_a_killed_master_has_graceful_timeout(self, preload):
        server = self.launch(preload=preload, graceful_timeout="300ms").ready()
        held = self.open(server, "/held")
        held.readline()
        server.process.kill()
        server.wait_log("nothing is left of the preforkd with pid")
        server.reader.join(GUARD)
        self.assertFalse(server.reader.is_alive(), server.report())

    def test_the_next_master_serves_while_the_workers_of_a_killed_one_finish(self):
        server = self.launch().ready()
        held = self.open(server, "/held")
        held.readline()
        server.process.kill()
        server.process.wait()
        following = self.launch().ready()
        self.assertEqual(self.ask(following)["app"], "demo")
        self.release("done")
        self.assertEqual(held.read(), b"done", "meanwhile")
        following.finish()


if __name__ == "__main__":
    unittest.main()
