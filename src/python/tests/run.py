"""Runs the tests of the Python worker: run.py --extension libpreforkd_python.so [--python PYTHON] [--jobs N] [NAME ...]

Each class of tests is a process of its own, as most tests wait for something. The time of each is printed."""

import argparse
import concurrent.futures
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from test_wsgi import OPTIONS

# Those that take longest come first, so that none of them is the only one at the end.
LONGEST = ("test_life", "test_streams", "test_fork", "test_children", "test_signals", "test_start")


def modules():
    found = sorted(name[:-3] for name in os.listdir(os.path.dirname(os.path.abspath(__file__))) if name.startswith("test_") and name.endswith(".py"))
    return [*LONGEST, *(name for name in found if name not in LONGEST)]


def classes():
    """The names of all classes that have tests."""
    for module in modules():
        for suite in unittest.TestLoader().loadTestsFromName(module):
            if suite.countTestCases():
                yield unittest.util.strclass(type(next(iter(suite))))


def run_alone(name, arguments):
    """Runs a class in a process of its own: whether all is well, and what is to be printed."""
    began = time.monotonic()
    command = [sys.executable, __file__, "--extension", arguments.extension, "--python", arguments.python, name]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    words = "%5.1f s  %s" % (time.monotonic() - began, name)
    if run.returncode:
        return False, words + "\n" + run.stdout
    return True, words + ": " + next(line for line in run.stdout.splitlines() if line.startswith("Ran ")).split(" in ")[0].lower()


def run_all(arguments):
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        running = [pool.submit(run_alone, name, arguments) for name in classes()]
        good = True
        for one in concurrent.futures.as_completed(running):
            is_good, words = one.result()
            good &= is_good
            print(words, flush=True)
    print("%5.1f s  %s" % (time.monotonic() - began, "OK" if good else "FAILED"))
    return good


def main():
    # The workers under test shall not find the caller's own settings.
    for name in [name for name in os.environ if name.startswith("PREFORKD")]:
        del os.environ[name]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extension", required=True, help="the built extension module")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that workers run (default: this one)")
    parser.add_argument("--jobs", type=int, default=2 * os.cpu_count(), help="how many classes run at a time (default: two for each CPU)")
    parser.add_argument("names", nargs="*", help="tests to run in this process, such as test_wsgi.Inline.test_write (default: all)")
    arguments = parser.parse_args()
    if not arguments.names:
        sys.exit(not run_all(arguments))
    OPTIONS.update(extension=arguments.extension, python=arguments.python)
    suite = unittest.TestLoader().loadTestsFromNames(arguments.names)
    sys.exit(not unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful())


main()
