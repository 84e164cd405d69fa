"""Where things are, on which cores, and in which versions."""
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BENCH = ROOT / "target" / "bench"
PYTHON = BENCH / "venv" / "bin" / "python"
OHA = BENCH / "oha" / "bin" / "oha"
PREFORKD = os.path.abspath(os.environ.get("PREFORKD", ROOT / "target/release/preforkd"))
DEMO = ROOT / "conf" / "demo"
sys.path.insert(0, str(ROOT / "tests" / "django"))

# Applications: module and name, and the folder that they are served from.
APPS = {
    "hello": ("hello:application", ROOT / "tests" / "wsgi"),
    "pages": ("pages:application", HERE / "site"),
    "django": ("mysite.wsgi:application", DEMO),
    # The least application, behind static files.
    "static": ("hello:application", ROOT / "tests" / "wsgi"),
}
CORES = sorted(os.sched_getaffinity(0))[:2]


def set_environment():
    """What the site needs, here and in every server."""
    os.environ.update(
        DEMO_DATA=str(BENCH / "data"), DJANGO_SETTINGS_MODULE="bench_site.settings", PYTHONPATH=str(HERE / "site"),
        PYTHONPYCACHEPREFIX=str(ROOT / "target" / "pycache"),
        # One order of hashes for all: the luck of a start is worth 10 % else.
        PYTHONHASHSEED="0",
    )
    # The servers run as users run them, whatever the caller's shell is set up for.
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        os.environ.pop(name, None)


def on_core(number, command):
    """The command, pinned to the first or the second core."""
    return ["taskset", "-c", str(CORES[number]), *map(str, command)]


def output(*command):
    """What a program prints, in one line; empty if it cannot be run."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    except OSError:
        return ""
    return " ".join(done.stdout.split()) if done.returncode == 0 else ""


def versions():
    """Everything that took part, as (name, version)."""
    code = "import importlib.metadata as m\nfor d in m.distributions(): print(d.metadata['Name'].lower(), d.version)"
    packages = dict(re.findall(r"(\S+) (\S+)", output(PYTHON, "-c", code)))
    wanted = ("django", "bjoern", "granian", "uwsgi", "mod_wsgi", "waitress", "gunicorn")
    apache = re.search(r"Apache/(\S+)", output("apache2", "-v") or output("httpd", "-v"))
    return [
        ("preforkd", " ".join(filter(None, (output(PREFORKD, "--version").split()[1],
                                            output("git", "-C", ROOT, "rev-parse", "--short", "HEAD"))))),
        ("rustc", compiler()), ("CPython", python_version()), ("Linux", platform.release()),
        ("processor", processor()), ("TCP", congestion_control()),
        *((name, packages[name]) for name in wanted if name in packages),
        *([("Apache", apache[1])] if apache and "mod_wsgi" in packages else []),
        ("nginx", nginx_version()),
        ("wrk", wrk_version()),
        ("oha", output(OHA, "--version").removeprefix("oha ") or "none"),
        ("valgrind", output("valgrind", "--version").removeprefix("valgrind-") or "none"),
    ]


def nginx_version():
    """The version of nginx, which prints it on standard error."""
    try:
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True)
    except OSError:
        return "none"
    return (re.search(r"nginx/(\S+)", said.stdout + said.stderr) or ["", "?"])[1]


def wrk_version():
    """The version of wrk, which prints it with exit status 1."""
    try:
        said = subprocess.run(["wrk", "-v"], capture_output=True, text=True)
    except OSError:
        return "none"
    return (re.search(r"wrk (\S+)", said.stdout + said.stderr) or ["", "?"])[1]


def compiler():
    """The version of rustc."""
    return (output("rustc", "--version").split() or ["?", "?"])[1]


def python_version():
    """The version of the servers' Python."""
    return output(PYTHON, "-c", "import platform; print(platform.python_version())")


def congestion_control():
    """What paces the connections: bbr costs a timer for each response."""
    try:
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    except OSError:
        return "?"


def processor():
    """Its name, and how many there are."""
    try:
        name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        name = None
    return f"{name[1] if name else platform.machine()}, {len(os.sched_getaffinity(0))} cores"
