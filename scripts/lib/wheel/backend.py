"""Builds the wheel (PEP 517, PEP 660): cargo builds all files, and hatchling packs them as pyproject.toml says.

It is not maturin because that builds one package by itself, with fewer features of the crates that all packages use: each build would be two.
"""

import os
import platform
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
# What packs the wheel, and what reads the symbols of ELF files.
TOOLS = ["hatchling>=1.27,<2", "pyelftools>=0.31"]
PARTS = ("preforkd-front", "libpreforkd_python.so")
COMPLETIONS = {
    "bash": "bash-completion/completions/preforkd",
    "zsh": "zsh/site-functions/_preforkd",
    "fish": "fish/vendor_completions.d/preforkd.fish",
}
# What pyproject.toml takes for the wheel.
WHEEL = os.path.join(ROOT, "target", "wheel")


def refuse(sentence):
    sys.exit("preforkd: " + sentence)


def number(version):
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def check_machine():
    """Ends with one sentence where preforkd cannot be built."""
    if sys.platform != "linux":
        refuse("it runs on Linux only, and this system is %s" % (platform.system() or sys.platform))
    with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as manifest:
        wanted = re.search(r'^rust-version *= *"(.*)"', manifest.read(), re.MULTILINE)[1]
    hint = "install Rust %s or newer, or a wheel of preforkd for this machine" % wanted
    try:
        said = subprocess.run(["cargo", "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError:
        refuse("there is no cargo to build it with (%s)" % hint)
    found = re.match(r"cargo (\d+\.\d+\.\d+)", said.stdout)
    if said.returncode or not found:
        refuse("cargo does not run: %s (%s)" % ((said.stderr.strip().splitlines() or ["no version"])[0], hint))
    if number(found[1]) < number(wanted):
        refuse("cargo %s is too old (%s)" % (found[1], hint))
    if not shutil.which(os.environ.get("CC") or "cc"):
        refuse("there is no C compiler (install gcc, or a wheel of preforkd for this machine)")


def build():
    """Builds all files; the folder where they lie."""
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    command = ["cargo", "build", "--release", "--locked"]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode:
        refuse("cargo build has failed, see above")
    return os.path.join(os.path.join(ROOT, target), "release")


def host():
    """The system that cargo builds for."""
    said = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.search(r"^host: (.*)$", said, re.MULTILINE)[1]


def lay(release, wheel):
    """Lays the files of the wheel into a folder: bin, libexec and share."""
    import licences

    shutil.rmtree(wheel, ignore_errors=True)
    folders = {name: os.path.join(wheel, name) for name in ("bin", "libexec/preforkd", "share/doc/preforkd")}
    for folder in folders.values():
        os.makedirs(folder)
    shutil.copy2(os.path.join(release, "preforkd"), folders["bin"])
    for part in PARTS:
        shutil.copy2(os.path.join(release, part), folders["libexec/preforkd"])
    for page in os.listdir(os.path.join(ROOT, "man")):
        folder = os.path.join(wheel, "share", "man", "man" + page[-1])
        os.makedirs(folder, exist_ok=True)
        shutil.copy2(os.path.join(ROOT, "man", page), folder)
    for name in ("app.toml", "minimal.toml", "hello.py"):
        shutil.copy2(os.path.join(ROOT, "conf", name), folders["share/doc/preforkd"])
    shutil.copytree(os.path.join(ROOT, "conf", "guide"), os.path.join(folders["share/doc/preforkd"], "guide"))
    # Where bash, zsh and fish look for them, below each prefix that they know.
    for shell, place in COMPLETIONS.items():
        path = os.path.join(wheel, "share", place)
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            subprocess.run([os.path.join(folders["bin"], "preforkd"), "completions", shell], stdout=file, check=True)
    with open(os.path.join(folders["share/doc/preforkd"], "licences.txt"), "w", encoding="utf-8") as file:
        file.write(licences.collect(ROOT, host()))


def hatchling(hook, *arguments):
    from hatchling import build as hatchling

    os.chdir(ROOT)
    return getattr(hatchling, hook)(*arguments)


def get_requires_for_build_wheel(config_settings=None):
    check_machine()
    return TOOLS


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    check_machine()
    lay(build(), WHEEL)
    return hatchling("build_wheel", wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    check_machine()
    lay(build(), WHEEL)
    return hatchling("build_editable", wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    return hatchling("build_sdist", sdist_directory, config_settings)
