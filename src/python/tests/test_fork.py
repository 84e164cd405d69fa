"""Templates: what becomes of an application that is forked."""

import json
import os
import signal
import socket
import tempfile

import manager
from case import Case


class Fork(Case):
    def test_a_template_forks_workers_that_differ(self):
        worker = self.worker(preload=True)
        pids = [worker.pid]
        for ticket, slot in ((7, 4), (8, 5)):
            pid = worker.fork(ticket, slot, slot)
            pids.append(pid)
            self.addCleanup(os.kill, pid, signal.SIGKILL)
            self.assertEqual(worker.receive(worker.notify), ("READY=1", pid))
            self.assertEqual(worker.record(slot)[0], pid)
            with open("/proc/%d/cmdline" % pid) as cmdline:
                self.assertEqual(cmdline.read().rstrip("\0"), "preforkd: web/%d gen 2" % slot)
            self.assertEqual(parent(pid), os.getpid())
        with open("/proc/%d/cmdline" % worker.process.pid) as cmdline:
            self.assertEqual(cmdline.read().rstrip("\0"), "preforkd: web template gen 2")
        states = self.states(worker, pids, "/process")
        self.assertEqual([states[pid]["slot"] for pid in pids[1:]], ["4", "5"])
        states = states.values()
        self.assertEqual(len({state["random"] for state in states}), 3)
        self.assertEqual(len({state["at_import"] for state in states}), 1)
        self.assertTrue(all(state["forked"] for state in states))

    def test_a_template_ends_with_its_socket(self):
        worker = self.worker(preload=True)
        worker.template.shutdown(socket.SHUT_RDWR)
        self.assertEqual(worker.process.wait(manager.GUARD), 0)
        self.assertEqual(self.client(worker).ask("/several").body, b"one two")

    def test_a_template_ends_at_term(self):
        worker = self.worker(preload=True)
        worker.process.terminate()
        self.assertEqual(worker.process.wait(manager.GUARD), 0)

    def test_twenty_workers_ordered_at_once_are_twenty_workers(self):
        worker = self.hooked()
        worker.freeze()
        slots = {100 + slot: slot for slot in range(10, 30)}
        for ticket, slot in slots.items():
            worker.order(ticket, slot, slot)
        worker.process.send_signal(signal.SIGCONT)
        forked = dict(worker.receive(worker.template) for _ in slots)
        self.assertEqual(set(forked), {"FORKED %d" % ticket for ticket in slots})
        self.assertEqual(len(set(forked.values())), 20)
        for pid in forked.values():
            self.addCleanup(os.kill, pid, signal.SIGKILL)
        self.assertEqual({worker.receive(worker.notify) for _ in slots}, {("READY=1", pid) for pid in forked.values()})
        for ticket, slot in slots.items():
            pid = forked["FORKED %d" % ticket]
            self.assertEqual((parent(pid), worker.record(slot)[0]), (os.getpid(), pid))
            with open("/proc/%d/cmdline" % pid) as cmdline:
                self.assertEqual(cmdline.read().rstrip("\0"), "preforkd: web/%d gen 2" % slot)
        # Several of them had one intermediate process.
        forks = [event for event in self.events() if event == (worker.process.pid, "before")]
        self.assertLess(len(forks), 10)

    def test_an_intermediate_process_that_dies_fails_its_orders_and_no_others(self):
        worker = self.hooked()
        before = self.events()
        with open(self.deadly, "w"):
            worker.freeze()
        for ticket in (11, 12, 13):
            worker.order(ticket, ticket, ticket)
        worker.process.send_signal(signal.SIGCONT)
        lost = "LOST 11,12,13 the intermediate process exited with status 3"
        self.assertEqual(worker.receive(worker.template), (lost, worker.process.pid))
        # It was one process.
        self.assertEqual([event for _, event in self.events()[len(before):]].count("child"), 1)
        os.unlink(self.deadly)
        pid = worker.fork(14, 14, 14)
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        self.assertEqual(worker.receive(worker.notify), ("READY=1", pid))

    def test_an_intermediate_process_that_hangs_keeps_nobody_else_waiting(self):
        worker = self.hooked()
        held = self.hang(worker, 11)
        pid = worker.fork(12, 12, 12)
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        self.assertEqual(worker.receive(worker.notify), ("READY=1", pid))
        failed = (
            "LOST 11 the intermediate process did not finish within 5s; a hook that the application registered with "
            "os.register_at_fork may block"
        )
        self.assertEqual(worker.receive(worker.template), (failed, worker.process.pid))
        self.assertEqual(held.read(), "", "it has ended")

    def test_an_intermediate_process_that_hangs_ends_with_the_template(self):
        worker = self.hooked()
        held = self.hang(worker, 11)
        worker.process.terminate()
        self.assertEqual(worker.process.wait(manager.GUARD), 0)
        self.assertEqual(held.read(), "")

    def hang(self, worker, ticket):
        """Has an intermediate process hang; a pipe that ends with it."""
        os.mkfifo(self.deadly)
        worker.order(ticket, ticket, ticket)
        held = open(self.deadly)
        self.addCleanup(held.close)
        os.unlink(self.deadly)
        return held

    def test_hooks_run_on_both_sides_of_both_forks(self):
        worker = self.hooked()
        worker.process.terminate()
        self.assertEqual(worker.process.wait(manager.GUARD), 0)
        seen = {}
        for pid, event in self.events():
            seen.setdefault(pid, []).append(event)
        self.assertEqual(seen.pop(worker.process.pid), ["before", "parent"])
        self.assertEqual(seen.pop(worker.pid), ["child"])
        # The intermediate process.
        self.assertEqual(list(seen.values()), [["child", "before", "parent"]])

    def test_chance_and_tls_differ_between_workers(self):
        worker, second = self.pair("chance:application")
        drawn = [state["drawn"] for state in self.states(worker, (worker.pid, second), "/").values()]
        for name in drawn[0]:
            self.assertNotEqual(drawn[0][name], drawn[1][name], name)
        for facts in drawn:
            # Both sides have the same idea of the connection, and it works.
            self.assertEqual((len(facts["handshake"]), facts["handshake"][1]), (2, "hello"))

    def test_threads_at_fork_are_named(self):
        worker = self.worker("threaded:application", preload=True)
        self.assertIn("WARN  app=web worker=template gen=2", worker.read_log())
        self.assertIn("background-reader", worker.read_log())

    def test_connections_at_fork_are_named(self):
        folder = self.folder()
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, os.path.join(folder, "stream")),
            (socket.AF_UNIX, socket.SOCK_SEQPACKET, os.path.join(folder, "packets")),
            (socket.AF_UNIX, socket.SOCK_STREAM, "\0preforkd-peer-" + os.path.basename(folder)),
        ]
        if socket.has_dualstack_ipv6():
            addresses.append((socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)))
        peers = []
        for family, kind, address in addresses:
            listener = socket.socket(family, kind)
            self.addCleanup(listener.close)
            listener.bind(address)
            listener.listen()
            name = listener.getsockname()
            peers.append((family, kind, name.decode() if isinstance(name, bytes) else name))
        # Two connections to one address are one peer, also in the form that a socket for both families has for IPv4.
        again = peers[:1]
        if socket.has_dualstack_ipv6():
            again.append((socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", peers[0][2][1])))
        worker = self.worker("connected:application", preload=True, env={"PEERS": json.dumps(peers + again)})
        warnings = [line for line in worker.read_log().splitlines() if "WARN" in line]
        self.assertEqual(len(warnings), 1, warnings)
        self.assertIn("WARN  app=web worker=template gen=2", warnings[0])
        named = warnings[0].partition("(to ")[2].partition("): all workers share them")[0]
        self.assertEqual(set(named.split(", ")), {shown(name) for _, _, name in peers})
        self.assertEqual(len(named.split(", ")), len(peers))

    def test_sockets_that_do_no_harm_are_not_named(self):
        folder = self.folder()
        stream, journal = (socket.socket(socket.AF_UNIX) for _ in range(2))
        datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for sock, name in ((stream, "stream"), (datagram, "datagram"), (journal, "journal")):
            self.addCleanup(sock.close)
            sock.bind(os.path.join(folder, name))
        for sock in (stream, journal):
            sock.listen()
        # As systemd passes standard error.
        stderr = socket.socket(socket.AF_UNIX)
        self.addCleanup(stderr.close)
        stderr.connect(journal.getsockname())
        env = {"STREAM": stream.getsockname(), "DATAGRAM": datagram.getsockname()}
        worker = self.worker("sociable:application", preload=True, env=env, stderr=stderr.fileno())
        self.assertStops(worker)
        self.assertNotIn("WARN", worker.read_log())
        # It was really handed over.
        self.assertIn(b"atexit ran", journal.accept()[0].recv(1000))

    def hooked(self):
        """A worker whose application sees the forks."""
        folder = self.folder()
        self.notes, self.deadly = (os.path.join(folder, name) for name in ("events", "deadly"))
        return self.worker("hooks:application", preload=True, env={"EVENTS": self.notes, "DEADLY": self.deadly})

    def events(self):
        """Process and event of each hook that has run."""
        with open(self.notes) as notes:
            return [(int(pid), event) for pid, event in map(str.split, notes)]

    def folder(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-")
        self.addCleanup(folder.cleanup)
        return folder.name


def parent(pid):
    with open("/proc/%d/stat" % pid) as stat:
        return int(stat.read().rsplit(")")[1].split()[1])


def shown(address):
    """An address as the log has it."""
    if isinstance(address, str):
        return address.replace("\0", "@")
    return ("[%s]:%d" if ":" in address[0] else "%s:%d") % address[:2]
