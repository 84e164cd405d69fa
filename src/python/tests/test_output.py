"""What an application prints, and the threads on which it runs."""

import collections
import json
import re
import signal

from case import Case


class Output(Case):
    def talkative(self, **settings):
        return self.worker("talkative:application", env={"PYTHONUNBUFFERED": None, **settings.pop("env", {})}, **settings)

    def lines(self, worker):
        return [line for line in worker.read_log().splitlines() if "pid=" not in line]

    def test_what_was_printed_before_a_worker_is_killed_is_there_in_order(self):
        for settings in ({}, {"threads": 2}, {"preload": True}):
            worker = self.talkative(**settings)
            self.client(worker).send(b"GET /dies HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(worker.wait(), -signal.SIGKILL)
            self.assertEqual(self.lines(worker), ["printed just before", "WARNING logged just before", "written beside them"])

    def test_a_flushed_piece_comes_at_once(self):
        worker = self.talkative()
        self.once(worker, "/flushes")
        self.assertEqual(self.lines(worker), ["begun and ended"])

    def test_a_child_does_not_repeat_what_its_parent_had_begun_to_say(self):
        worker = self.talkative()
        self.once(worker, "/forks")
        self.assertEqual(self.lines(worker), ["of the child", "begun and ended"])

    def test_lines_of_many_threads_are_whole(self):
        worker = self.talkative()
        self.once(worker, "/chatters")
        counts = collections.Counter()
        for line in self.lines(worker):
            found = re.fullmatch(r"(thread\d)(?:-\d+-of-200| on standard error \d+)", line)
            self.assertIsNotNone(found, line)
            counts[found[1]] += 1
        self.assertEqual(counts, {"thread%d" % n: 400 for n in range(4)})

    def test_what_is_left_at_the_end_is_said(self):
        worker = self.worker("pieces:application", env={"PYTHONUNBUFFERED": None})
        self.assertStops(worker)
        self.assertTrue(worker.read_log().endswith("without an end"), worker.read_log())

    def test_lines_of_logging_have_the_priority_of_their_level_under_the_journal(self):
        worker = self.talkative(journal=True)
        self.once(worker, "/levels")
        expected = []
        for priority, name in ((7, "DEBUG"), (6, "INFO"), (4, "WARNING"), (3, "ERROR"), (2, "CRITICAL")):
            expected += ["<%d>%s first line" % (priority, name), "<%d>second line" % priority]
        self.assertEqual([line for line in self.lines(worker) if "line" in line or line == "printed"], expected + ["printed"])
        elsewhere = self.talkative()
        self.once(elsewhere, "/levels")
        self.assertEqual([line for line in self.lines(elsewhere) if line.startswith("<")], [])

    def test_threads_of_the_pool_are_threads_of_python(self):
        for settings in ({}, {"preload": True}):
            worker = self.talkative(threads=2, **settings)
            name, kind, traced = json.loads(self.once(worker, "/").body)
            self.assertEqual(kind, "Thread")
            self.assertRegex(name, "^preforkd-[01]$")
            self.assertTrue(traced)
            self.assertStops(worker)
