"""conf/container/Containerfile and the one of conf/guide/containers.md, played in a clean root directory, and what they make: run as a container runs
it. Needs root and debootstrap, and some minutes: PREFORKD_INSTALLERS=1 asks for it."""

import http.client
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import unittest

import containerfile
from test_wheel import GUARD, ROOT, free_ports

# Made once: the root directory that stands for an image of Python.
CLEAN = os.path.join(ROOT, "target", "clean-root")
APP = """
import os
def application(environ, start_response):
    import bottle
    start_response("200 OK", [("Content-Type", "text/plain")])
    writable = os.access("/srv/app", os.W_OK)
    return [("%d %d %s" % (os.getuid(), os.getppid(), writable)).encode()]
"""


def block(kind):
    with open(os.path.join(ROOT, "conf", "guide", "containers.md"), encoding="utf-8") as page:
        return re.search("```%s\n(.*?)```" % kind, page.read(), re.DOTALL)[1]


def clean_root():
    """A Debian with Python and pip and nothing else."""
    if not os.path.exists(os.path.join(CLEAN, "complete")):
        shutil.rmtree(CLEAN, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", "--include=python3,python3-pip", "bookworm", CLEAN, "http://deb.debian.org/debian"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise unittest.SkipTest("left out: debootstrap: " + done.stdout[-500:])
        open(os.path.join(CLEAN, "complete"), "w").close()
    return CLEAN


@unittest.skipUnless(os.environ.get("PREFORKD_INSTALLERS"), "PREFORKD_INSTALLERS is not set")
@unittest.skipUnless(os.getuid() == 0, "left out: it needs root")
@unittest.skipUnless(shutil.which("debootstrap"), "left out: no debootstrap (apt-get install debootstrap)")
class Container(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="preforkd-container-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.chmod(self.folder, 0o755)

    def base(self, image):
        """The root directory of a new container: nothing that is written there stays."""
        self.assertRegex(image, r"/python:3\.\d+-slim-bookworm$")
        upper, root = (os.path.join(self.folder, name) for name in ("upper", "root"))
        lower = clean_root()
        os.makedirs(root)
        os.makedirs(upper)
        mount = ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", upper]
        subprocess.run(mount, check=True)
        self.addCleanup(subprocess.run, ["umount", upper], check=True)
        for name in ("files", "work"):
            os.mkdir(os.path.join(upper, name))
        options = "lowerdir=%s,upperdir=%s/files,workdir=%s/work" % (lower, upper, upper)
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", root], check=True)
        self.addCleanup(subprocess.run, ["umount", root], check=True)
        shutil.copy("/etc/resolv.conf", os.path.join(root, "etc", "resolv.conf"))
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", os.path.join(root, "ca.crt"))
        return root

    def test_an_image_of_a_project_serves_and_stops(self):
        with open(os.path.join(ROOT, "conf", "container", "Containerfile"), encoding="utf-8") as file:
            text = file.read()
        # Debian's Python belongs to the system, that of the image does not.
        variables = {"PIP_CERT": "/ca.crt", "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
        image = containerfile.play(text, ROOT, self.base, self.folder, **variables)
        project = os.path.join(self.folder, "project")
        os.makedirs(os.path.join(project, "mysite"))
        for name, content in (("requirements.txt", "bottle\n"), ("mysite/__init__.py", ""), ("mysite/wsgi.py", APP), ("app.toml", block("toml"))):
            with open(os.path.join(project, name), "w") as file:
                file.write(content)
        image = containerfile.play(block("dockerfile"), project, self.base, self.folder, {"preforkd": image}, **variables)
        self.assertEqual((image.user, image.folder, image.command), ("app", "/srv/app", ["preforkd"]))

        (port,) = free_ports(1)
        command = containerfile.chroot(image, image.command, PORT=str(port))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        log = b""
        while b"generation 1 is ready" not in log:
            self.assertTrue(select.select([process.stdout], [], [], GUARD)[0], log.decode())
            data = os.read(process.stdout.fileno(), 65536)
            log += data
            self.assertTrue(data, log.decode())
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
        client.request("GET", "/")
        # The master is process 1, and nobody may change the code.
        self.assertEqual(client.getresponse().read().decode(), "10001 1 False")
        client.close()
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as children:
            (first,) = children.read().split()
        os.kill(int(first), signal.SIGTERM)
        self.assertEqual(process.wait(GUARD), 0)


if __name__ == "__main__":
    unittest.main()
