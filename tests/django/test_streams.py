"""Streamed responses that use the database, beside requests that do: Django keeps its connections and transactions by thread."""
import threading
import unittest

from browser import Browser
from harness import SiteCase


class Exports:
    """The cases; each kind of worker below must pass all of them."""

    def opened(self):
        browser = Browser(self.site.port)
        self.addCleanup(browser.connection.close)
        return browser

    def save(self, mark):
        """100 notes, each on a connection of its own."""
        for _ in range(100):
            with Browser(self.site.port) as browser:
                self.assertEqual(browser.get(f"/save?id={mark}").status, 200)
        self.assertEqual(self.opened().get(f"/saved?id={mark}").body, b"100")

    def test_an_export_in_a_transaction_harms_no_other_request(self):
        bodies = {}

        def export(name):
            bodies[name] = self.opened().get(f"/export?id={name}").text

        names = [f"{self.id()}-{n}" for n in range(3)]
        threads = [threading.Thread(target=export, args=[name]) for name in names]
        for thread in threads:
            thread.start()
        self.save(self.id())
        for thread in threads:
            thread.join()
        for name in names:
            self.assertEqual(bodies.get(name), "".join(f"{name} {n}\n" for n in range(50)))

    def test_a_client_that_leaves_an_export_harms_no_other_request(self):
        name = f"{self.id()}-left"
        for _ in range(3):
            browser = self.opened()
            response = browser.open("GET", f"/export?id={name}")
            response.readline()
            response.close()
            browser.connection.close()
        self.save(self.id())
        self.assertEqual(self.opened().get(f"/saved?id={name}").body, b"0")


class OneThread(Exports, SiteCase):
    options = {"workers": 1}


class Threads(Exports, SiteCase):
    options = {"workers": 1, "threads": 4}


class TwoWorkers(Exports, SiteCase):
    options = {"workers": 2, "threads": 2, "preload": False}


if __name__ == "__main__":
    unittest.main()
