"""`python -m preforkd`: becomes the program of this installation, with this interpreter as the default for applications."""

import os
import sys
import sysconfig


def folders():
    """Where an installer may have put the program, nearest first."""
    package = os.path.dirname(os.path.abspath(__file__))
    site = os.path.dirname(package)
    # pip install --target
    yield os.path.join(site, "bin")
    # PREFIX/lib/pythonX.Y/site-packages, as pip install --prefix and environments have it
    yield os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(site))), "bin")
    yield sysconfig.get_path("scripts")
    # An environment that sees the packages of the Python below it
    yield sysconfig.get_path("scripts", vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
    # pip install --user
    yield sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user"))


def main():
    tried = []
    for folder in folders():
        program = os.path.join(folder, "preforkd")
        if os.access(program, os.X_OK) and os.path.isfile(program):
            os.environ["PREFORKD_PYTHON"] = sys.executable
            os.execv(program, ["preforkd", *sys.argv[1:]])
        if folder not in tried:
            tried.append(folder)
    sys.exit("preforkd: there is no program preforkd in %s (install the package again)" % ", ".join(tried))


if __name__ == "__main__":
    main()
