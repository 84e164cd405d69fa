"""What becomes of connections to databases that an application opens while a template imports it.

    python3 -m unittest discover -s tests/wsgi      (with Django and what tests/requirements.txt lists)
"""
import unittest

from postgres import Postgres
from test_life import GUARD, HERE, Life


class Databases(Life):
    """Two workers of one template."""

    def serve(self, application, **options):
        env = {"E2E_FOLDER": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        return self.launch(wsgi=application, preload=True, workers=2, env=env, **options).ready()

    def postgres(self):
        server = Postgres(self.folder)
        self.addCleanup(server.close)
        return server

    def test_django_leaves_nothing_open_at_the_fork(self):
        postgres = self.postgres()
        server = self.serve("databases:application")
        facts = self.both(server)
        for pid, said in facts.items():
            # Each worker asks on a connection that it has opened itself.
            self.assertEqual((said["backend"], said["sum"]), (pid, 2))
            self.assertEqual(said["at_import"], said["loader"])
            self.assertEqual(said["at_fork"][0], {"open": [], "threads": 1, "files": []})
        (loader,) = {said["loader"] for said in facts.values()}
        self.assertNotIn(loader, facts)
        threads = postgres.served(loader)
        self.assertTrue(threads)
        for thread in threads:
            thread.join(GUARD)
            self.assertFalse(thread.is_alive(), "somebody still holds a connection of the template")
        self.assertNotIn("WARN", "\n".join(server.log))
        server.finish()

    def test_a_pool_that_is_not_djangos_is_named(self):
        postgres = self.postgres()
        server = self.serve("pooled:application")
        server.wait_log("WARN.*started threads.*pool-1-worker-0")
        server.wait_log(f"WARN.*opened connections.*to {postgres.path}")
        server.finish()

    def test_django_as_a_library_needs_no_settings(self):
        (self.folder / "library.py").write_text("import django.db\n\n" + (HERE / "hello.py").read_text())
        server = self.serve("library:application", chdir=str(self.folder))
        self.assertEqual(self.open(server, "/").read(), b"Hello, world\n")
        server.finish()

    def both(self, server):
        """What each of the two workers answers, by its pid."""
        facts = {}
        while len(facts) < 2:
            said = self.ask(server)
            facts[said["pid"]] = said
        return facts


if __name__ == "__main__":
    unittest.main()
