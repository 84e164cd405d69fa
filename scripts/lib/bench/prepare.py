"""What must be there before anything is measured: tools, an environment with the other servers, the site's data."""
import os
import shutil
import subprocess
import sys

from .places import APPS, BENCH, DEMO, HERE, OHA, PREFORKD, PYTHON

# Compiled here; without its library or compiler the comparison is worth having too. Name on the index, what it takes.
COMPILED = (
    ("bjoern", "libev-dev python3-dev gcc"),
    ("uwsgi", "python3-dev gcc"),
    ("mod_wsgi", "apache2-bin apache2-dev python3-dev gcc"),
)
REQUIREMENTS = (DEMO / "requirements.txt", HERE / "requirements.txt")
OHA_VERSION = "^1"


def check(options):
    """Prints one line for each thing that is missing, and exits if there is one."""
    tools = [("wrk", "wrk"), ("taskset", "util-linux")] if not options.counting else [("valgrind", "valgrind")]
    lacking = [f"no {tool}: apt-get install {package}" for tool, package in tools if not shutil.which(tool)]
    if not os.access(PREFORKD, os.X_OK):
        lacking.append(f"no {os.path.relpath(PREFORKD)}: cargo build --release")
    if not options.counting and len(os.sched_getaffinity(0)) < 2:
        lacking.append("only one core: the load generator needs another one than the server")
    if options.wants("p99") and not OHA.exists() and not shutil.which("cargo"):
        lacking.append("no cargo, which builds oha for p99: install Rust (https://rustup.rs)")
    if lacking:
        sys.exit("\n".join(f"bench: {line}" for line in lacking))


def interpreter():
    """A Python for the application alone, if the whole environment is not there."""
    if not PYTHON.exists():
        create("--without-pip")


def create(*options):
    """An empty virtual environment. PYTHON names the interpreter, as in the other scripts."""
    subprocess.run([os.environ.get("PYTHON", "python3"), "-m", "venv", "--clear", *options, BENCH / "venv"], check=True)


def environment():
    """The virtual environment of the bench. Makes a new one if the requirements have changed."""
    stamp, text = BENCH / "venv" / "installed.txt", "".join(file.read_text() for file in REQUIREMENTS)
    if stamp.exists() and stamp.read_text() == text:
        return
    patience("installing the other servers and Django in target/bench/venv")
    create()
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *(word for file in REQUIREMENTS for word in ("-r", file))], check=True)
    for package, _ in COMPILED:
        # Not from pip's cache, where one may lie that was built for another interpreter of the same version.
        subprocess.run([*pip, "--no-cache-dir", package], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stamp.write_text(text)


def lacking():
    """The servers that could not be built, as (name, what to install)."""
    listed = subprocess.run([PYTHON, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
                            check=True, capture_output=True, text=True).stdout.lower()
    there = {line.partition("==")[0].replace("-", "_") for line in listed.splitlines()}
    return [(name, packages) for name, packages in COMPILED if name not in there]


def site():
    """Database, static files, fifty notes."""
    subprocess.run([PYTHON, DEMO / "manage.py", "prepare"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([PYTHON, HERE / "site" / "fill.py"], cwd=APPS["django"][1], check=True,
                   env={**os.environ, "PYTHONPATH": f"{HERE / 'site'}:{DEMO}"})
    if os.getuid() == 0:
        # Apache's processes run as another user, who opens the database like everybody.
        subprocess.run(["chmod", "-R", "a+rwX", BENCH / "data"], check=True)


def patience(what):
    """What is done once, before the first measurement."""
    print(f"bench: {what}: this takes some minutes, the first time only", file=sys.stderr, flush=True)


def load_generator():
    """oha, which sends at a fixed rate; built once. Whether it is there."""
    if not OHA.exists():
        patience("building oha in target/bench/oha")
        subprocess.run(
            ["cargo", "install", "--quiet", "--locked", "--root", OHA.parent.parent, "--target-dir",
             BENCH / "oha-build", "--no-default-features", "--features", "rustls", "--version", OHA_VERSION, "oha"],
        )
        if not OHA.exists():
            print("bench: without p99: oha did not build", file=sys.stderr)
    return OHA.exists()
