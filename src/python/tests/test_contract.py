"""What a process refuses at its start: another version of the contract, or what does not fit it."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import manager
from case import Case
from test_wsgi import OPTIONS

# As a manager that is older than the comparison starts the extension.
OLD_BOOTSTRAP = """
import os, sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
path = os.environ["PREFORKD_EXTENSION"]
spec = spec_from_file_location("_preforkd", path, loader=ExtensionFileLoader("_preforkd", path))
module = module_from_spec(spec)
spec.loader.exec_module(module)
sys.exit(module.main())
"""

# An extension module of another version, by the stable ABI and without Python's headers; without VERSION it is older than CONTRACT.
OTHER_EXTENSION = """
struct definition { long count; void *type, *init; long index; void *copy; const char *name, *doc; long size; void *rest[5]; };
static struct definition definition = { 1, 0, 0, 0, 0, "_preforkd", 0, -1 };
void *PyModule_Create2(struct definition *, int);
int PyModule_AddIntConstant(void *, const char *, long);
void *PyInit__preforkd(void) {
    void *module = PyModule_Create2(&definition, 3);
#ifdef VERSION
    PyModule_AddIntConstant(module, "CONTRACT", VERSION);
#endif
    return module;
}
"""

# A master of another release.
MASTER = {"PREFORKD_MASTER": "0.0.1 /opt/preforkd"}


class Contract(Case):
    def assertNamesVersions(self, log, extension, its, masters):
        expected = (
            "could not start a worker with the extension %s: it speaks %s of the worker contract, but the master /opt/preforkd speaks %s "
            "(install both from the same release, then restart preforkd)\n"
        ) % (os.path.abspath(extension), its, masters)
        self.assertEqual(log.count("\n"), 1, log)
        self.assertTrue(log.endswith(expected), log)

    def test_a_master_of_another_version_is_refused(self):
        ours = "version " + manager.CONTRACT
        for preload in (False, True):
            log = self.failed_start(preload=preload, env={"PREFORKD_CONTRACT": "99", **MASTER})
            self.assertNamesVersions(log, OPTIONS["extension"], ours, "version 99")

    def test_a_master_of_another_release_with_the_same_contract_is_told_of(self):
        for preload in (False, True):
            log = self.worker(preload=preload, env=MASTER).read_log()
            self.assertIn("the extension %s is of preforkd " % os.path.abspath(OPTIONS["extension"]), log)
            self.assertIn(", but the master, /opt/preforkd, is of preforkd 0.0.1; ", log)

    def test_the_extension_refuses_before_it_reads_anything_else(self):
        ours = "version " + manager.CONTRACT
        for version, shown in (("99", "version 99"), ("0", "version 0"), (None, "an older version, if any")):
            env = {"PREFORKD_CONTRACT": version, "PREFORKD_WSGI": "of another form", "LISTEN_FDS": "many", "PREFORKD_KIND": "new", **MASTER}
            log = self.failed_start(bootstrap=OLD_BOOTSTRAP, env=env)
            self.assertNamesVersions(log, OPTIONS["extension"], ours, shown)
            self.assertRegex(log, r"ERROR pid=\d+: could not")

    @unittest.skipUnless(shutil.which("cc"), "there is no C compiler")
    def test_an_extension_of_another_version_is_refused(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-")
        self.addCleanup(folder.cleanup)
        for options, shown in ((["-DVERSION=99"], "version 99"), ([], "an older version, if any")):
            path = os.path.join(folder.name, "other%d.so" % len(options))
            compile = ["cc", "-shared", "-fPIC", "-x", "c", "-o", path, *options, "-"]
            subprocess.run(compile, input=OTHER_EXTENSION, text=True, check=True)
            log = self.failed_start(extension=path, env=MASTER)
            self.assertNamesVersions(log, path, shown, "version " + manager.CONTRACT)

    def test_a_kind_of_worker_that_does_not_fit_is_refused(self):
        for kind, told in (
            ("template", "PREFORKD_KIND=template, but PREFORKD_TEMPLATE is unset"),
            ("cgi", 'PREFORKD_KIND="cgi": expected a kind of worker'),
            (None, "PREFORKD_KIND=command, but PREFORKD_TEMPLATE is unset"),
        ):
            self.assertIn(told, self.failed_start(env={"PREFORKD_KIND": kind}))

    def test_settings_of_another_form_are_refused(self):
        self.assertIn("could not read PREFORKD_WSGI: unknown field `colour`", self.failed_start(colour="green"))
        settings = {key: value for key, value in manager.SETTINGS.items() if key != "threads"}
        settings["application"] = "apps:application"
        log = self.failed_start(env={"PREFORKD_WSGI": json.dumps(settings)})
        self.assertIn("could not read PREFORKD_WSGI: missing field `threads`", log)

    def test_a_scoreboard_that_others_could_cut_off_is_refused(self):
        for seals in (0, 2, 4):
            log = self.failed_start(seals=seals)
            self.assertIn("could not map record 9 of the scoreboard: its size is not sealed", log)

    def test_a_record_outside_of_the_scoreboard_is_refused(self):
        for record in ("64", "4294967295"):
            log = self.failed_start(env={"PREFORKD_SCOREBOARD_RECORD": record})
            self.assertIn("the scoreboard has 32768 bytes and no record " + record, log)

    def test_descriptors_are_taken_over_once_and_never_the_standard_streams(self):
        for number in ("2", "3", "99"):
            log = self.failed_start(env={"PREFORKD_ACCESS_LOG_FD": number})
            self.assertIn("could not take over descriptor " + number, log)
