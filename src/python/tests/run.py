"""Runs the tests of the Python worker: run.py --extension libpreforkd_python.so [--python PYTHON] [NAME ...]"""

import argparse
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import test_abort
import test_children
import test_contract
import test_fork
import test_held
import test_hooks
import test_life
import test_limits
import test_output
import test_proxies
import test_signals
import test_start
import test_streams
import test_wsgi


def main():
    # The workers under test shall not find the caller's own settings.
    for name in [name for name in os.environ if name.startswith("PREFORKD")]:
        del os.environ[name]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extension", required=True, help="the built extension module")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that workers run (default: this one)")
    parser.add_argument("names", nargs="*", help="tests to run, such as test_wsgi.Inline.test_write")
    arguments = parser.parse_args()
    test_wsgi.OPTIONS.update(extension=arguments.extension, python=arguments.python)
    loader = unittest.TestLoader()
    if arguments.names:
        suite = loader.loadTestsFromNames(arguments.names)
    else:
        suite = unittest.TestSuite(loader.loadTestsFromModule(module) for module in (test_wsgi, test_abort, test_contract, test_life, test_limits, test_fork, test_held, test_signals, test_children, test_output, test_start, test_hooks, test_streams, test_proxies))
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    sys.exit(not result.wasSuccessful())


main()
