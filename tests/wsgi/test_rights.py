"""What a WSGI application may do, through the real master."""
import contextlib
import http.client
import os
import sys
import tempfile
import unittest
from pathlib import Path

from test_life import Life, both_kinds
from service import GUARD

SIZE = 1 << 20


def has_landlock(version):
    """Whether the kernel has this version of Landlock."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) >= version


class Rights(Life):
    @unittest.skipUnless(has_landlock(6), "it needs Linux 6.12 with Landlock")
    @both_kinds
    def test_a_site_of_django_lives_with_all_restrictions_together(self, preload):
        with tempfile.NamedTemporaryFile(dir="/var/tmp") as closed, tempfile.TemporaryDirectory(dir="/var/tmp") as data:
            server = self.launch(
                preload=preload, wsgi="restricted:application", threads=2, capabilities=[], env_clear=True, oom_score_adj=500,
                limits={"nofile": "128:256", "core": 0, "fsize": "1GiB"},
                landlock={"read": [str(Path(sys.prefix))], "write": [data], "connect": [], "bind": [], "required": True},
                env={"DATABASE": f"{data}/site.db", "CLOSED": closed.name, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            server.ready()
            facts = self.ask(server)
            refused = facts.pop("refused")
            self.assertEqual(facts, {
                "database": 7, "thread": "thread", "lock": "held", "temporary": 4, "pair": "x", "program": "ran", "zone": "UTC", "name": True,
                "certificates": "CERT_REQUIRED", "random": 8, "sqlite": 1,
            })
            expected = {"write": "EACCES", "read": "EACCES", "connect": "EACCES", "bind": "EACCES", "signal": "EPERM", "chown": "EPERM", "limit": "EPERM"}
            self.assertEqual(refused, expected)
            self.assertEqual(self.send(server), str(SIZE))
            server.reload()
            self.assertEqual(self.ask(server)["refused"], expected)
            server.stop()

    def send(self, server):
        """Send a body that does not fit into memory."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)) as connection:
            connection.request("POST", "/taken", b"x" * SIZE)
            return connection.getresponse().read().decode()
