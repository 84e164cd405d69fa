"""What administrators do with the Debian package, in a systemd that scripts/test-systemd has booted: install, upgrade, remove and purge it. The
packages lie in /srv/packages. Waits for events only."""

import glob
import os
import re
import subprocess
import unittest

from play import APP, CONFIG, WEB, Load, ask, master, show, systemctl, configure


def dpkg(*arguments):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(("dpkg",) + arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if done.returncode:
        raise AssertionError("dpkg %s: status %d\n%s" % (" ".join(arguments), done.returncode, done.stdout))
    return done.stdout


def units(*states):
    listed = systemctl("list-units", "--plain", "--no-legend", "--state=" + ",".join(states), "preforkd*").stdout
    return [line.split()[0] for line in listed.splitlines()]


def left():
    """Files and links of the package that are still there."""
    places = ("/etc/preforkd", "/etc/systemd/system/*/preforkd*", "/var/lib/systemd/deb-systemd-helper-*/**/preforkd*", "/usr/bin/preforkd", "/usr/libexec/preforkd", "/usr/share/**/preforkd*")
    return sorted(path for place in places for path in glob.glob(place, recursive=True))


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # What the other tests have put there, as an installation by hand does, comes before the package.
        systemctl("stop", "preforkd.socket", "preforkd", "preforkd-root", check=False)
        for path in glob.glob("/etc/systemd/system/preforkd*") + ["/usr/local/bin/preforkd", "/usr/local/bin/libpreforkd_python.so"]:
            if os.path.exists(path):
                os.remove(path)
        if os.path.exists(CONFIG):
            os.remove(CONFIG)
        systemctl("daemon-reload")
        cls.old, cls.new = sorted(glob.glob("/srv/packages/*.deb"), key=lambda path: "+next" in path)
        with open("/srv/app/app.py", "w") as file:
            file.write(APP)

    def setUp(self):
        self.assertEqual([path for path in left() if "/share/" not in path and path != "/etc/preforkd"], [])
        self.addCleanup(self.clean)

    def clean(self):
        if os.path.exists(CONFIG):
            os.remove(CONFIG)
        dpkg("--purge", "preforkd")

    def drop_in(self, text, unit):
        folder = "/run/systemd/system/%s.d" % unit
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/test.conf", "w") as file:
            file.write(text)
        systemctl("daemon-reload")
        self.addCleanup(systemctl, "daemon-reload")
        self.addCleanup(os.remove, folder + "/test.conf")

    def test_its_installation_starts_nothing_and_its_unit_waits_for_a_configuration(self):
        dpkg("--install", self.old)
        self.assertEqual(units("active", "activating", "failed"), [])
        for unit in ("preforkd.service", "preforkd-root.service", "preforkd.socket"):
            self.assertEqual(systemctl("is-enabled", unit, check=False).stdout, "disabled\n", unit)
        version = re.search("_([^_]*)_", self.old)[1]
        said = subprocess.run(["preforkd", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertIn("preforkd-front %s (/usr/libexec/preforkd/preforkd-front)" % version, said)
        # Started without a configuration, it is left out, which is no failure.
        systemctl("start", "preforkd")
        self.assertEqual((show("ActiveState"), show("ConditionResult")), ("inactive", "no"))
        # systemd makes the folder of its Unix socket at the start only.
        configure(WEB.replace(', "unix:/run/preforkd/web.sock"', ""))
        self.assertEqual(subprocess.run(["preforkd", "-t", "-c", CONFIG]).returncode, 0)
        systemctl("enable", "--now", "preforkd")
        ask()
        for name in ("preforkd.service", "preforkd@.service", "preforkd-root.service"):
            verified = subprocess.run(["systemd-analyze", "verify", "/usr/lib/systemd/system/" + name], capture_output=True, text=True)
            self.assertEqual((verified.returncode, verified.stderr), (0, ""), name)

    def upgrade(self):
        """Upgrades the package under load, and back; the master is another one each time, and no request is lost."""
        for package in (self.new, self.old):
            before = master()
            with Load() as load:
                said = dpkg("--install", package)
            self.assertNotIn("does not start", said)
            self.assertNotEqual(master(), before)
            self.assertEqual((load.refusals, load.failures), (0, []))
            self.assertGreater(load.answers, 0)
            ask()

    def test_an_upgrade_loses_no_request(self):
        dpkg("--install", self.old)
        configure(WEB)
        systemctl("start", "preforkd")
        self.upgrade()

    def test_an_upgrade_with_the_socket_unit_loses_no_request(self):
        dpkg("--install", self.old)
        configure(WEB.replace('"0.0.0.0:87"', '"fd:web"'))
        self.drop_in("[Socket]\nListenStream=\nListenStream=0.0.0.0:87\n", "preforkd.socket")
        systemctl("start", "preforkd.socket", "preforkd")
        self.upgrade()

    def test_an_upgrade_starts_nothing_that_does_not_run(self):
        dpkg("--install", self.old)
        configure(WEB)
        dpkg("--install", self.new)
        self.assertEqual(units("active", "activating", "failed"), [])

    def test_removed_it_stops_and_keeps_the_configuration_and_purged_nothing_is_left(self):
        dpkg("--install", self.old)
        configure(WEB)
        systemctl("enable", "--now", "preforkd")
        with open("/etc/preforkd/shop.toml", "w") as file:
            file.write(WEB.replace(":87", ":88").replace("web.sock", "shop.sock"))
        systemctl("start", "preforkd@shop")
        self.assertEqual(units("active"), ["preforkd.service", "preforkd@shop.service"])
        dpkg("--remove", "preforkd")
        os.remove("/etc/preforkd/shop.toml")
        self.assertEqual(units("active", "activating", "failed"), [])
        self.assertTrue(os.path.exists(CONFIG))
        # What was enabled is so again after another installation.
        dpkg("--install", self.old)
        self.assertEqual(systemctl("is-enabled", "preforkd").stdout, "enabled\n")
        dpkg("--purge", "preforkd")
        self.assertEqual(os.listdir("/etc/preforkd"), ["app.toml"])
        os.remove(CONFIG)
        dpkg("--install", self.old)
        dpkg("--purge", "preforkd")
        self.assertEqual(left(), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
