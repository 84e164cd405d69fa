"""What administrators do with the units of conf/systemd, in a systemd that scripts/test-systemd has booted. Waits for events only."""

import os
import signal
import socket
import subprocess
import threading
import unittest

GUARD = 60  # seconds: a hang becomes a failure, nothing else depends on it
CONFIG = "/etc/preforkd/app.toml"
UNIX = "/run/preforkd/web.sock"
APP = '''
import os, subprocess, time
if "CHILD" in os.environ:
    subprocess.Popen(["sleep", "infinity"], preexec_fn=os.setpgrp)
time.sleep(float(os.environ.get("SLOW", "0")))
def application(environ, start):
    start("200 OK", [])
    return [b"%d" % os.getpid()]
'''
# Port 87, as a service of the host may have port 80.
WEB = '''
[app.web]
wsgi = "app:application"
chdir = "/srv/app"
python = "/usr/bin/python3"
listen = ["0.0.0.0:87", "unix:/run/preforkd/web.sock"]
workers = 2
'''


def systemctl(*arguments, check=True):
    done = subprocess.run(("systemctl",) + arguments, capture_output=True, text=True, timeout=120)
    if check and done.returncode != 0:
        log = subprocess.run(["journalctl", "--lines=20", "--output=cat", "--unit=preforkd*"], capture_output=True, text=True)
        raise AssertionError("systemctl %s: %s%s" % (" ".join(arguments), done.stderr, log.stdout))
    return done


def version():
    return int(systemctl("--version").stdout.split()[1])


def show(name, unit="preforkd"):
    return systemctl("show", "--property=" + name, "--value", unit).stdout.strip()


def master(unit="preforkd"):
    return int(show("MainPID", unit))


def configure(text):
    with open(CONFIG, "w") as file:
        file.write(text)


def ask(over_unix=False):
    """The worker that answers. A connection waits while no worker is there."""
    with socket.socket(socket.AF_UNIX if over_unix else socket.AF_INET) as stream:
        stream.settimeout(60)
        stream.connect(UNIX if over_unix else ("127.0.0.1", 87))
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b"".join(iter(lambda: stream.recv(4096), b""))
    if not data.startswith(b"HTTP/1.1 200"):
        raise ConnectionError("no answer: %r" % data)
    return int(data.rsplit(b"\r\n", 1)[1])


class Load:
    """Clients that ask as long as the block runs."""

    def __enter__(self):
        self.ends, self.answers, self.failures, self.refusals = threading.Event(), 0, [], 0
        self.threads = [threading.Thread(target=self.run, args=(over_unix,)) for over_unix in (False, True)]
        for thread in self.threads:
            thread.start()
        return self

    def run(self, over_unix):
        while not self.ends.is_set():
            try:
                ask(over_unix)
                self.answers += 1
            except (ConnectionRefusedError, FileNotFoundError):
                self.refusals += 1
            except OSError as error:
                self.failures.append(repr(error))

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()


class Journal:
    """What the unit logs from now on."""

    def __init__(self, unit="preforkd"):
        self.unit = unit

    def __enter__(self):
        command = ["journalctl", "--follow", "--lines=0", "--output=cat", "--unit=" + self.unit]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return self

    def wait(self, text):
        guard = threading.Timer(GUARD, self.process.kill)
        guard.start()
        try:
            if not any(text in line for line in self.process.stdout):
                raise AssertionError("never logged: " + text)
        finally:
            guard.cancel()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Systemd(unittest.TestCase):
    unit = "preforkd"

    def setUp(self):
        systemctl("stop", "preforkd.socket", "preforkd", "preforkd-root")
        systemctl("reset-failed", check=False)
        with open("/srv/app/app.py", "w") as file:
            file.write(APP)
        configure(WEB)

    def drop_in(self, text, unit="preforkd.service"):
        folder = "/run/systemd/system/%s.d" % unit
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/test.conf", "w") as file:
            file.write(text)
        systemctl("daemon-reload")
        self.addCleanup(systemctl, "daemon-reload")
        self.addCleanup(os.remove, folder + "/test.conf")
        self.addCleanup(systemctl, "stop", "preforkd")

    def test_start_and_stop(self):
        systemctl("start", "preforkd")
        self.assertIn("web 2/2 ready", show("StatusText"))
        self.assertEqual(show("NFileDescriptorStore"), "2")
        systemctl("stop", "preforkd")
        self.assertEqual(show("Result"), "success")
        self.assertRaises(ConnectionRefusedError, ask)

    def test_a_start_that_takes_longer_than_the_limit_of_the_unit(self):
        self.drop_in("[Service]\nTimeoutStartSec=3\nEnvironment=SLOW=8\n")
        systemctl("start", "preforkd")
        self.assertEqual(show("NRestarts"), "0")

    def test_a_failed_start_has_a_number_and_a_reason(self):
        configure(WEB.replace("workers", "wrokers"))
        self.assertNotEqual(systemctl("start", "preforkd", check=False).returncode, 0)
        self.assertEqual(show("StatusErrno"), "22")
        self.assertIn("did you mean `workers`", show("StatusText"))

    def reload_twice(self):
        """A reload that serves the new code, and then one with broken code. Returns the exit status of the second one."""
        systemctl("start", "preforkd")
        before = ask()
        systemctl("reload", "preforkd")
        self.assertNotEqual(ask(), before)
        with open("/srv/app/app.py", "w") as file:
            file.write("raise ValueError('broken')\n")
        status = systemctl("reload", "preforkd", check=False).returncode
        self.assertIn("reload failed", show("StatusText"))
        self.assertEqual(show("ActiveState"), "active")
        ask()
        return status

    def test_a_reload_serves_the_new_code_and_a_broken_one_fails_with_the_reason(self):
        self.assertNotEqual(self.reload_twice(), 0)

    @unittest.skipIf(version() < 253, "Type=notify-reload needs systemd 253")
    def test_a_reload_by_type(self):
        self.drop_in("[Service]\nType=notify-reload\nExecReload=\n")
        # Such a reload cannot fail: systemd waits for its end, and the status has the reason.
        self.assertEqual(self.reload_twice(), 0)

    def test_a_restart_under_load_loses_nothing(self):
        systemctl("start", "preforkd")
        with Load() as load:
            for _ in range(5):
                systemctl("restart", "preforkd")
        self.assertEqual((load.refusals, load.failures), (0, []))
        self.assertGreater(load.answers, 0)

    def test_no_connection_is_refused_when_the_master_is_killed(self):
        systemctl("start", "preforkd")
        killed = master()
        with Load() as load, Journal() as journal:
            os.kill(killed, signal.SIGKILL)
            journal.wait("took back the socket")
            journal.wait("is ready")
            ask()
        self.assertEqual(load.refusals, 0)
        # Each client may have lost the request that a worker was in.
        self.assertLessEqual(len(load.failures), 2, load.failures)
        self.assertNotEqual(master(), killed)

    def test_a_master_that_hangs_is_replaced(self):
        self.drop_in("[Service]\nWatchdogSec=2\n")
        systemctl("start", "preforkd")
        hanging = master()
        with Journal() as journal:
            os.kill(hanging, signal.SIGSTOP)
            journal.wait("is ready")
        self.assertNotEqual(master(), hanging)

    def test_signals_to_all_processes_kill_no_worker(self):
        systemctl("start", "preforkd")
        workers = {ask() for _ in range(50)}
        for name in ("USR1", "TTIN"):
            systemctl("kill", "--signal=" + name, "preforkd")
            self.assertTrue(all(os.path.exists("/proc/%d" % pid) for pid in workers), name)
        with Journal() as journal:
            systemctl("kill", "--signal=HUP", "preforkd")
            journal.wait("generation 2 is ready")
        self.assertNotIn(ask(), workers)
        systemctl("stop", "preforkd")
        self.assertEqual(show("Result"), "success")

    def test_no_reload_fails_while_signals_reach_all_processes(self):
        """Also those that the reload has just started. Not by `systemctl reload`: they end what systemd has forked for ExecReload= and
        has not executed yet."""
        systemctl("start", "preforkd")
        over = threading.Event()

        def flood():
            while not over.is_set():
                for name in ("USR1", "HUP"):
                    systemctl("kill", "--signal=" + name, "preforkd")

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for _ in range(5):
                reload = subprocess.run(["preforkd", "reload", "-c", CONFIG], capture_output=True, text=True, timeout=GUARD)
                self.assertEqual(reload.returncode, 0, reload.stderr)
        finally:
            over.set()
            thread.join()
        ask()
        self.assertEqual(show("NRestarts"), "0")
        systemctl("stop", "preforkd")
        self.assertEqual(show("Result"), "success")

    def test_socket_activation(self):
        configure(WEB.replace('"0.0.0.0:87"', '"fd:web"'))
        self.drop_in("[Socket]\nListenStream=\nListenStream=0.0.0.0:87\n", "preforkd.socket")
        self.addCleanup(systemctl, "stop", "preforkd.socket")
        systemctl("start", "preforkd.socket")
        ask()
        systemctl("restart", "preforkd")
        ask()

    def test_a_master_that_is_root_with_four_capabilities(self):
        configure(WEB.replace("0.0.0.0:87", "0.0.0.0:8080") + 'user = "www-data"\nenv = { CHILD = "1" }\n')
        systemctl("start", "preforkd-root")
        worker = ask(over_unix=True)
        self.assertEqual(os.stat("/proc/%d" % worker).st_uid, 33)
        systemctl("restart", "preforkd-root")
        with Journal("preforkd-root") as journal:
            systemctl("reload", "preforkd-root")
            # The master sees what the workers of another user have started.
            journal.wait("left a process that it had started; sending SIGTERM")
        systemctl("stop", "preforkd-root")
        self.assertEqual(show("Result", "preforkd-root"), "success")

    def test_two_hundred_apps(self):
        app = '[app.a%d]\ncommand = ["/bin/sleep", "infinity"]\nlisten = ["unix:/run/preforkd/%d.sock"]\nready = "1ms"\n'
        configure("".join(app % (number, number) for number in range(200)))
        systemctl("start", "preforkd")
        self.assertEqual(show("NFileDescriptorStore"), "200")
        systemctl("restart", "preforkd")
        self.assertEqual(show("NFileDescriptorStore"), "200")

    def test_the_units_are_valid(self):
        folder = "/etc/systemd/system/"
        for name in sorted(os.listdir(folder)):
            if name.startswith("preforkd"):
                verified = subprocess.run(["systemd-analyze", "verify", folder + name], capture_output=True, text=True)
                self.assertEqual((verified.returncode, verified.stderr), (0, ""), name)
        for name, threshold in (("preforkd.service", 15), ("preforkd@.service", 15), ("preforkd-root.service", 22)):
            rated = ["systemd-analyze", "security", "--offline=true", "--threshold=%d" % threshold, folder + name]
            self.assertEqual(subprocess.run(rated, capture_output=True).returncode, 0, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
