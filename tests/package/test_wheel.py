"""The wheel: what lies in it, and what it does where it is installed. It is made of the release build in target/, which is built first if it is
not there. PREFORKD_INSTALLERS=1 also tries uv, pipx and editable installation, and takes uv and pipx from the package index."""

import email
import glob
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BACKEND = os.path.join(ROOT, "scripts", "lib", "wheel")
GUARD = 60  # seconds after which a wait is a failure
# What manylinux expects of each system, of what we could link.
LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"}

APP = """
import sys
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("%s %d.%d" % (sys.prefix, *sys.version_info[:2])).encode()]
"""
CONFIG = """
[app.web]
wsgi = "site_app:app"
listen = ["127.0.0.1:{direct}"]

[site.shop]
listen = ["127.0.0.1:{site}"]
hosts = ["shop.test"]
app = "web"
"""

folder = wheel = None


def setUpModule():
    global folder, wheel
    folder = tempfile.TemporaryDirectory(prefix="preforkd-wheel-")
    unittest.addModuleCleanup(folder.cleanup)
    os.chmod(folder.name, 0o755)
    wheels = os.path.join(folder.name, "wheels")
    pip("wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT)
    (wheel,) = glob.glob(os.path.join(wheels, "*.whl"))


def run(*command, **options):
    """What a program writes to standard output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        raise AssertionError("%s: status %d\n%s" % (" ".join(command), done.returncode, done.stdout))
    return done.stdout


def pip(*arguments, python=sys.executable, **options):
    """Runs the pip of this environment for another interpreter, which need not have one."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments]
    return run(*command, **{"cwd": folder.name, **options})


def install(python, *arguments, **options):
    offline = ["--no-index", "--find-links", os.path.dirname(wheel)]
    return pip("install", "--quiet", *offline, *arguments, "preforkd", python=python, **options)


def clean_environment(**variables):
    """An environment without what belongs to the one of these tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PREFORKD", "PIP_"))}
    # What is found by name is not what is tested.
    kept["PATH"] = "/usr/bin:/bin"
    return {**kept, **variables}


def pythons():
    """One CPython for each version from 3.10 on, besides the one of these tests."""
    versions = os.path.join(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions")
    candidates = sorted(glob.glob(os.path.join(versions, "3.*", "bin", "python")))
    candidates += filter(None, (shutil.which("python3.%d" % minor) for minor in range(10, 20)))
    seen = {sys.version_info[:2]}
    for candidate in candidates:
        code = "import sys, venv; assert sys.implementation.name == 'cpython'; print(*sys.version_info[:2])"
        asked = subprocess.run([candidate, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if asked.returncode == 0:
            version = tuple(map(int, asked.stdout.split()))
            if version >= (3, 10) and version not in seen:
                seen.add(version)
                yield candidate


def free_ports(number):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Installed(unittest.TestCase):
    def folder(self):
        made = tempfile.mkdtemp(dir=folder.name)
        os.chmod(made, 0o755)
        return made

    def environment(self, python=sys.executable):
        """A new virtual environment with preforkd: its folder."""
        place = os.path.join(self.folder(), "env")
        run(python, "-m", "venv", "--without-pip", place)
        install(os.path.join(place, "bin", "python"))
        return place

    def assertKnowsItsParts(self, prefix, *command, **options):
        said = run(*command, "--version", env=clean_environment(**options), cwd=self.folder())
        prefix = os.path.realpath(prefix)
        version = version_of_crate()
        expected = ["preforkd %s" % version]
        expected += ["%s %s (%s/libexec/preforkd/%s)" % (name, version, prefix, name) for name in ("preforkd-front", "libpreforkd_python.so")]
        self.assertEqual(said.splitlines(), expected)

    def assertServes(self, python, *command, **options):
        """Serves with the program that `command` names: the application runs in the environment of `python`."""
        place = self.folder()
        direct, site = free_ports(2)
        with open(os.path.join(place, "site_app.py"), "w") as file:
            file.write(APP)
        with open(os.path.join(place, "app.toml"), "w") as file:
            file.write(CONFIG.format(direct=direct, site=site))
        expected = run(python, "-c", "import sys; print('%s %d.%d' % (sys.prefix, *sys.version_info[:2]), end='')")
        ready, told = os.pipe()
        with open(os.path.join(place, "log"), "w+") as log:
            command = [*command, "-c", "app.toml", "--ready-fd", str(told)]
            master = subprocess.Popen(command, cwd=place, env=clean_environment(**options), pass_fds=[told], stdout=log, stderr=log)
            os.close(told)
            try:
                begun = os.read(ready, 1)
                log.seek(0)
                self.assertEqual(begun, b"\n", log.read())
                for port in (direct, site):
                    client = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
                    client.request("GET", "/", headers={"Host": "shop.test"})
                    self.assertEqual(client.getresponse().read().decode(), expected)
                    client.close()
                master.send_signal(signal.SIGTERM)
                self.assertEqual(master.wait(GUARD), 0)
            finally:
                os.close(ready)
                if master.poll() is None:
                    master.kill()
                    master.wait()


class Content(unittest.TestCase):
    def setUp(self):
        self.archive = zipfile.ZipFile(wheel)
        self.addCleanup(self.archive.close)

    def named(self, ending):
        (name,) = (name for name in self.archive.namelist() if name.endswith(ending))
        return name

    def files(self):
        """The ELF files, unpacked."""
        place = tempfile.mkdtemp(dir=folder.name)
        for name in ("/scripts/preforkd", "/data/libexec/preforkd/preforkd-front", "/data/libexec/preforkd/libpreforkd_python.so"):
            yield self.archive.extract(self.named(name), place)

    def test_all_that_is_needed_lies_in_it(self):
        for name in (
            "preforkd/__main__.py", "/licenses/LICENSE-MIT",
            "/data/share/man/man8/preforkd.8", "/data/share/man/man5/preforkd.toml.5", "/data/share/doc/preforkd/guide/django.md",
            "/data/share/bash-completion/completions/preforkd", "/data/share/zsh/site-functions/_preforkd", "/data/share/fish/vendor_completions.d/preforkd.fish",
        ):
            self.assertTrue(self.named(name))
        for name in ("/scripts/preforkd", "/libexec/preforkd/preforkd-front"):
            self.assertTrue(self.archive.getinfo(self.named(name)).external_attr >> 16 & 0o111, name)
        # Installers link all scripts into the user's bin.
        scripts = [name for name in self.archive.namelist() if "/scripts/" in name]
        self.assertEqual(scripts, [self.named("/scripts/preforkd")])

    def test_its_version_is_that_of_the_crates(self):
        metadata = email.message_from_bytes(self.archive.read(self.named(".dist-info/METADATA")))
        self.assertEqual((metadata["Name"], metadata["Version"]), ("preforkd", version_of_crate()))
        self.assertEqual(metadata["Requires-Python"], ">=3.10")
        self.assertIsNone(metadata["Requires-Dist"])

    def test_the_licences_of_all_linked_crates_lie_in_it(self):
        sys.path.insert(0, BACKEND)
        self.addCleanup(sys.path.remove, BACKEND)
        import licences

        text = self.archive.read(self.named("/share/doc/preforkd/licences.txt")).decode()
        host = re.search("host: (.*)", run("rustc", "-vV"))[1]
        crates = licences.linked(ROOT, host)
        self.assertGreater(len(crates), 50)
        lacking = [crate["name"] for crate in crates if "%s %s (" % (crate["name"], crate["version"]) not in text]
        self.assertEqual(lacking, [])
        self.assertIn("Permission is hereby granted, free of charge", text)

    @unittest.skipUnless(shutil.which("readelf"), "there is no readelf")
    def test_its_tag_is_what_the_symbols_of_all_files_allow(self):
        newest, machine = (0, 0), os.uname().machine
        for path in self.files():
            versions = re.findall(r"Name: GLIBC_(\d+)\.(\d+)", run("readelf", "--version-info", "--wide", path))
            newest = max(newest, *((int(major), int(minor)) for major, minor in versions))
            dynamic = run("readelf", "--dynamic", "--wide", path)
            libraries = {name for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) if not name.startswith("ld-linux")}
            self.assertLessEqual(libraries, LIBRARIES, path)
            self.assertNotRegex(dynamic, r"\((RPATH|RUNPATH)\)")
        tag = "py3-none-manylinux_%d_%d_%s" % (*newest, machine)
        self.assertEqual(os.path.basename(wheel), "preforkd-%s-%s.whl" % (version_of_crate(), tag))
        self.assertIn("Tag: %s\n" % tag, self.archive.read(self.named(".dist-info/WHEEL")).decode())


class Places(Installed):
    def test_a_virtual_environment_serves_with_its_own_interpreter(self):
        place = self.environment()
        program = os.path.join(place, "bin", "preforkd")
        self.assertKnowsItsParts(place, program)
        self.assertServes(os.path.join(place, "bin", "python"), program)
        # As pipx and uv tool have it.
        link = os.path.join(self.folder(), "preforkd")
        os.symlink(program, link)
        self.assertKnowsItsParts(place, link)
        pip("uninstall", "--quiet", "--yes", "preforkd", python=os.path.join(place, "bin", "python"))
        self.assertEqual(glob.glob(place + "/**/*preforkd*", recursive=True), [])

    def test_python_m_serves_with_that_python(self):
        place = self.environment()
        python = os.path.join(place, "bin", "python")
        self.assertKnowsItsParts(place, python, "-m", "preforkd")
        # Before the environment of the shell.
        self.assertServes(python, python, "-m", "preforkd", VIRTUAL_ENV="/nonexistent")

    def test_an_environment_without_the_packages_of_the_project_is_refused(self):
        place, project = self.environment(), self.folder()
        with open(os.path.join(project, "app.toml"), "w") as file:
            file.write('[app.web]\nwsgi = "site_app:app"\nlisten = ["127.0.0.1:8000"]\n')

        def check():
            command = [os.path.join(place, "bin", "preforkd"), "-t"]
            done = subprocess.run(command, cwd=project, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            return done.returncode, done.stderr

        self.assertEqual(check()[0], 0)
        # As `uv tool` marks its environments.
        open(os.path.join(place, "uv-receipt.toml"), "w").close()
        status, said = check()
        self.assertEqual(status, 2)
        self.assertIn("is one that pipx or uv has made for preforkd alone (make one, python3 -m venv .venv", said)
        own = os.path.join(project, ".venv")
        run(sys.executable, "-m", "venv", "--without-pip", own)
        self.assertEqual(check()[0], 0)
        # As after an upgrade of the system.
        for name in os.listdir(os.path.join(own, "bin")):
            if name.startswith("python"):
                os.remove(os.path.join(own, "bin", name))
        os.symlink("/nonexistent/python3", os.path.join(own, "bin", "python"))
        status, said = check()
        self.assertEqual(status, 2)
        self.assertIn("there is no Python interpreter in the virtual environment %s any more" % os.path.realpath(own), said)

    def test_each_cpython_can_use_it(self):
        for python in pythons():
            with self.subTest(python):
                place = self.environment(python)
                self.assertServes(os.path.join(place, "bin", "python"), os.path.join(place, "bin", "preforkd"))

    def test_a_target_folder(self):
        place = os.path.join(self.folder(), "target")
        install(sys.executable, "--target", place)
        self.assertKnowsItsParts(place, os.path.join(place, "bin", "preforkd"))
        self.assertKnowsItsParts(place, sys.executable, "-m", "preforkd", PYTHONPATH=place)

    def test_a_prefix_and_a_user(self):
        base = os.path.realpath(os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2]))
        place = os.path.join(self.folder(), "prefix")
        install(base, "--prefix", place, "--ignore-installed")
        (program,) = glob.glob(place + "/**/bin/preforkd", recursive=True)
        self.assertKnowsItsParts(os.path.dirname(os.path.dirname(program)), program)
        place = os.path.join(self.folder(), "user")
        variables = {"PYTHONUSERBASE": place}
        options = ["--user", "--ignore-installed", "--no-warn-script-location"]
        install(base, *options, "--break-system-packages", env={**os.environ, **variables})
        self.assertKnowsItsParts(place, os.path.join(place, "bin", "preforkd"))
        self.assertKnowsItsParts(place, base, "-m", "preforkd", **variables)

    def test_scripts_install(self):
        place = os.path.join(self.folder(), "prefix")
        run(os.path.join(ROOT, "scripts", "install"), place, env={**os.environ, "PYTHON": sys.executable})
        self.assertKnowsItsParts(place, os.path.join(place, "bin", "preforkd"))
        # Over itself, as an upgrade does.
        run(os.path.join(ROOT, "scripts", "install"), place, env={**os.environ, "PYTHON": sys.executable})
        self.assertServes(sys.executable, os.path.join(place, "bin", "preforkd"), VIRTUAL_ENV=sys.prefix)

    def test_a_program_that_is_gone_is_named_with_the_places(self):
        place = os.path.join(self.folder(), "target")
        install(sys.executable, "--target", place)
        os.remove(os.path.join(place, "bin", "preforkd"))
        python = os.path.join(self.folder(), "env", "bin", "python")
        run(sys.executable, "-m", "venv", "--without-pip", os.path.dirname(os.path.dirname(python)))
        variables = clean_environment(PYTHONPATH=place, PYTHONUSERBASE="/nonexistent")
        done = subprocess.run([python, "-m", "preforkd"], env=variables, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^preforkd: there is no program preforkd in %s/bin, .* \(install the package again\)\n$" % place)


class Backend(unittest.TestCase):
    def refused(self, code="", **variables):
        hook = "import sys; sys.path.insert(0, %r); %s; import backend; backend.get_requires_for_build_wheel()" % (BACKEND, code or "pass")
        done = subprocess.run([sys.executable, "-c", hook], env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done.stderr

    def test_a_machine_that_cannot_build_it_is_refused_in_one_sentence(self):
        self.assertRegex(self.refused("sys.platform = 'darwin'"), r"^preforkd: it runs on Linux only, and this system is \w+$")
        bare = tempfile.mkdtemp(dir=folder.name)
        self.assertRegex(self.refused(PATH=bare), r"^preforkd: there is no cargo to build it with \(install Rust \d\.\d+ or newer, or a wheel")
        cargo = os.path.join(bare, "cargo")
        for script, why in (
            ("echo cargo 1.60.0", r"^preforkd: cargo 1\.60\.0 is too old \(install Rust"),
            ("echo no toolchain >&2; exit 1", r"^preforkd: cargo does not run: no toolchain \(install Rust"),
            ("echo cargo 99.0.0", r"^preforkd: there is no C compiler \(install gcc"),
        ):
            with open(cargo, "w") as file:
                file.write("#!/bin/sh\n%s\n" % script)
            os.chmod(cargo, 0o755)
            self.assertRegex(self.refused(PATH=bare, CC=""), why)

    @unittest.skipUnless(os.path.exists(os.path.join(ROOT, ".git")), "this is no checkout")
    def test_the_source_archive_has_what_a_build_needs(self):
        place = tempfile.mkdtemp(dir=folder.name)
        hook = "import sys; sys.path.insert(0, %r); import backend; backend.build_sdist(%r)" % (BACKEND, place)
        run(sys.executable, "-c", hook, cwd=ROOT)
        (archive,) = os.listdir(place)
        shutil.unpack_archive(os.path.join(place, archive), place)
        (top,) = glob.glob(os.path.join(place, "preforkd-*", ""))
        lacking = [
            name
            for name in run("git", "ls-files", cwd=ROOT).splitlines()
            if name.startswith(("src/", "man/", "scripts/lib/wheel/", "Cargo", "pyproject", "LICENSE")) and not os.path.exists(os.path.join(top, name))
        ]
        self.assertEqual(lacking, [])


@unittest.skipUnless(os.environ.get("PREFORKD_INSTALLERS"), "PREFORKD_INSTALLERS is not set")
class Installers(Installed):
    @classmethod
    def setUpClass(cls):
        cls.tools = os.path.join(folder.name, "tools")
        run(sys.executable, "-m", "venv", cls.tools)
        run(os.path.join(cls.tools, "bin", "pip"), "install", "--quiet", "uv", "pipx")

    def tool(self, *command, **variables):
        return run(os.path.join(self.tools, "bin", command[0]), *command[1:], env={**os.environ, **variables}, cwd=self.folder())

    def test_uv_pip(self):
        place = os.path.join(self.folder(), "env")
        python = os.path.join(place, "bin", "python")
        self.tool("uv", "venv", "--quiet", "--python", sys.executable, place)
        self.tool("uv", "pip", "install", "--quiet", "--python", python, "--offline", wheel)
        self.assertKnowsItsParts(place, os.path.join(place, "bin", "preforkd"))
        self.assertServes(python, python, "-m", "preforkd")

    def test_uv_tool(self):
        home = self.folder()
        bin, tools = os.path.join(home, "bin"), os.path.join(home, "tools")
        variables = {"UV_TOOL_DIR": tools, "UV_TOOL_BIN_DIR": bin}
        self.tool("uv", "tool", "install", "--quiet", "--offline", "--python", sys.executable, wheel, **variables)
        self.assertEqual(os.listdir(bin), ["preforkd"])
        self.assertKnowsItsParts(os.path.join(tools, "preforkd"), os.path.join(bin, "preforkd"))

    def test_pipx(self):
        home = self.folder()
        bin = os.path.join(home, "bin")
        variables = {"PIPX_HOME": home, "PIPX_BIN_DIR": bin, "PIPX_MAN_DIR": os.path.join(home, "man")}
        self.tool("pipx", "install", "--quiet", "--python", sys.executable, wheel, **variables)
        self.assertEqual(os.listdir(bin), ["preforkd"])
        self.assertKnowsItsParts(os.path.join(home, "venvs", "preforkd"), os.path.join(bin, "preforkd"))

    def test_a_checkout_and_an_editable_installation(self):
        for options in ([], ["--editable"]):
            place = os.path.join(self.folder(), "env")
            python = os.path.join(place, "bin", "python")
            run(sys.executable, "-m", "venv", "--without-pip", place)
            # With a build environment of its own, as users have it.
            pip("install", "--quiet", *options, ROOT, python=python)
            self.assertKnowsItsParts(place, os.path.join(place, "bin", "preforkd"))
            self.assertServes(python, python, "-m", "preforkd")


def version_of_crate():
    with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as manifest:
        return re.search(r'^version = "(.*)"', manifest.read(), re.MULTILINE)[1]


if __name__ == "__main__":
    unittest.main()
