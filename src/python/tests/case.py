"""What the tests of a worker's life and of its forks have in common."""

import json
import os
import signal
import subprocess
import tempfile
import unittest

from client import Client
from manager import GUARD, Failure, Worker
from test_wsgi import OPTIONS


class Case(unittest.TestCase):
    """Workers and clients that end with the test."""

    def worker(self, application="apps:application", **settings):
        worker = Worker(OPTIONS["extension"], application, python=OPTIONS["python"], **settings)
        self.addCleanup(worker.__exit__)
        return worker

    def client(self, worker):
        client = Client(worker.connect())
        self.addCleanup(client.sock.close)
        return client

    def full_folder(self):
        """A folder in which files can be made, and not be written."""
        folder = tempfile.mkdtemp(prefix="preforkd-")
        self.addCleanup(os.rmdir, folder)
        mount = ["mount", "-t", "tmpfs", "-o", "size=4k,mode=1777", "none", folder]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("only root can mount a folder that is full")
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=True)
        with open(os.path.join(folder, "full"), "wb") as file:
            file.write(b"x" * 4096)
        return folder

    def once(self, worker, path):
        """The answer to a request on a connection that is closed then."""
        with Client(worker.connect()) as client:
            return client.ask(path)

    def pair(self, application="apps:application", **settings):
        """Two workers of one template, and the process id of the second."""
        worker = self.worker(application, preload=True, **settings)
        second = worker.fork(2, 4, 4)
        self.addCleanup(os.kill, second, signal.SIGKILL)
        self.assertEqual(worker.receive(worker.notify), ("READY=1", second))
        return worker, second

    def failed_start(self, application="apps:application", extension=None, **settings):
        """The log of a process that ends with status 1 before it is ready."""
        with self.assertRaises(Failure) as failure:
            Fails(extension or OPTIONS["extension"], application, python=OPTIONS["python"], **settings)
        status, _, log = str(failure.exception).partition("\n")
        self.assertEqual(status, "exit status 1", log)
        return log

    def states(self, worker, pids, path):
        """What each of these processes answers, by its id."""
        states = {}
        while set(states) != set(pids):
            with Client(worker.connect()) as client:
                state = json.loads(client.ask(path).body)
            states[state["pid"]] = state
        return states

    def assertStops(self, worker):
        self.assertEqual(worker.stop(), 0, worker.read_log())


class Fails(Worker):
    """A process that is expected to end before it is ready."""

    def receive(self, sock):
        status = self.process.wait(GUARD)
        failure = Failure("exit status %d\n%s" % (status, self.read_log()))
        if self.template is not None:
            self.template.close()
            self.template = None
        self.__exit__()
        raise failure

    def kill(self):
        """It has ended."""
