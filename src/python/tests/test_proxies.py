"""What stands in the environ behind a proxy."""

import json
import pathlib

from case import Case


class Prefix(Case):
    def environ(self, worker, path):
        environ = json.loads(self.client(worker).ask(path).body)
        return environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["RAW_URI"]

    def test_a_prefix_is_the_script_name_and_not_in_the_path(self):
        for threads in (1, 2):
            worker = self.worker(prefix="/shop", threads=threads)
            for target, path in [
                ("/shop/cart", "/cart"), ("/shop/a%2Fb?q", "/a/b"), ("/%73hop/cart", "/cart"), ("/shop", ""), ("/shop/", "/"),
                ("/shop//a", "//a"), ("/shop/shop/a", "/shop/a"), ("http://a/shop/cart", "/cart"),
                # Not below it: a proxy has removed it.
                ("/cart", "/cart"), ("/", "/"), ("/shopping", "/shopping"), ("/Shop/cart", "/Shop/cart"),
            ]:
                self.assertEqual(self.environ(worker, target), ("/shop", path, target))

    def test_a_prefix_has_the_bytes_of_its_encoding(self):
        worker = self.worker(prefix="/größe")
        self.assertEqual(self.environ(worker, "/gr%C3%B6%C3%9Fe/x")[:2], ("/gr\xc3\xb6\xc3\x9fe", "/x"))

    def test_static_files_have_the_path_of_the_url(self):
        here = str(pathlib.Path(__file__).parent)
        worker = self.worker(prefix="/shop", static={"/shop/static/": here})
        client = self.client(worker)
        self.assertEqual(client.ask("/shop/static/run.py").status, "200 OK")
        self.assertEqual(json.loads(client.ask("/static/run.py").body)["PATH_INFO"], "/static/run.py")
