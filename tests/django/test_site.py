"""The demo site through the real master: what a person with a browser would try."""
import hashlib
import json
import os
import re
import unittest

from browser import FORM, Browser
from harness import SITE, SiteCase, Sited, data
from service import descendants
from strict import Connection

# From the static folder, which lies beside the password and the secret key.
OUTWARDS = """
    ../password  %2e%2e/password  %2E%2E%2Fpassword  ..%2fpassword  ..%5cpassword  ..;/password  ./../password
    //../password  %252e%252e/password  ..%00/password  notes/style.css%00  notes/style.css/../../../password
    notes/../../password  notes/%2e%2e/%2e%2e/password  notes/..%2f..%2fsecret_key  /etc/passwd  %2fetc/passwd
    link  up/password  up/secret_key  etc/passwd
""".split()


class Pages:
    """The cases; each kind of worker below must pass all of them."""

    def setUp(self):
        self.browser = Browser(self.site.port)
        self.addCleanup(self.browser.connection.close)

    def login(self, page="/accounts/login/"):
        """Log in as the superuser of this run."""
        password = (data() / "password").read_text().strip()
        return self.browser.post(page, username="demo", password=password)

    def test_front_page_names_its_worker(self):
        page = self.browser.get("/")
        self.assertEqual(page.status, 200)
        self.assertEqual(page.headers["Content-Type"], "text/html; charset=utf-8")
        self.assertIn("<h1>It works</h1>", page.text)
        about = json.loads(self.browser.get("/about").body)
        self.assertEqual(about["app"], "demo")
        self.assertIn(about["pid"], descendants(self.site.process.pid))
        self.assertRegex(f"{about['slot']} {about['generation']}", r"^\d+ [1-9]\d*$")

    def test_one_connection_serves_many_requests(self):
        self.browser.get("/plain")
        first = self.browser.connection.sock
        for path, start in (("/plain", b"Hello"), ("/json", b"{"), ("/rows", b"<!doctype"), ("/health", b"ok")):
            page = self.browser.get(path)
            self.assertEqual((page.status, page.body[:len(start)]), (200, start))
        self.assertIs(self.browser.connection.sock, first)

    def test_head_is_get_without_a_body(self):
        for path in ("/plain", "/rows", "/stream", "/static/notes/style.css"):
            with self.subTest(path):
                full, head = self.browser.get(path), self.browser.request("HEAD", path)
                self.assertEqual((head.status, head.body), (200, b""))
                self.assertEqual(head.headers["Content-Type"], full.headers["Content-Type"])
                self.assertIn(head.headers["Content-Length"], (full.headers["Content-Length"], None))

    def test_template_of_a_hundred_rows(self):
        self.assertEqual(self.browser.get("/rows").text.count("<tr><td>"), 100)

    def test_form_stores_a_note_only_with_its_token(self):
        text = "Grüße & <b>more</b>"
        answer = self.browser.post("/notes/", author="Ada", text=text)
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "/notes/"))
        page = self.browser.get("/notes/").text
        self.assertIn("Grüße &amp; &lt;b&gt;more&lt;/b&gt;", page)
        self.assertIn("The note is stored.", page)
        forged = self.browser.send("/notes/", "author=Eve&text=forged", FORM)
        self.assertEqual(forged.status, 403)
        self.assertNotIn("forged", self.browser.get("/notes/").text)

    def test_upload_of_20_megabytes_comes_back_whole(self):
        content = os.urandom(20_000_000)
        digest = hashlib.sha256(content).hexdigest()
        answer = self.browser.upload("/uploads/", "../../evil/name.bin", content)
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "/uploads/"))
        page = self.browser.get("/uploads/").text
        row = re.search(rf'<a href="(/uploads/\d+)">name.bin</a></td><td class="size">20000000</td>[^/]*{digest}', page)
        self.assertTrue(row, page)
        back = self.browser.get(row[1])
        self.assertEqual(back.headers["Content-Disposition"], 'attachment; filename="name.bin"')
        self.assertEqual(back.headers["Content-Length"], "20000000")
        self.assertEqual(hashlib.sha256(back.body).hexdigest(), digest)
        self.assertEqual(list(data().rglob("*evil*")) + list(data().rglob("name.bin")), [])

    def test_chunked_upload_arrives(self):
        content = os.urandom(300_000)
        answer = self.browser.upload("/uploads/", "chunked.bin", content, chunked=True)
        self.assertEqual(answer.status, 302)
        self.assertIn(hashlib.sha256(content).hexdigest(), self.browser.get("/uploads/").text)

    def test_stream_comes_in_chunks(self):
        page = self.browser.get("/stream")
        self.assertEqual((page.headers["Transfer-Encoding"], page.headers["Content-Length"]), ("chunked", None))
        self.assertEqual(page.text, "".join(f"line {n} of 1000\n" for n in range(1, 1001)))

    def test_first_piece_arrives_before_the_last_is_made(self):
        response = self.browser.open("GET", "/gated")
        self.assertEqual(response.readline(), b"before the gate\n")
        # Opening a fifo waits for the reader, so the view has got exactly as far as the gate.
        with open(data() / "gate", "w") as gate:
            gate.write("after the gate\n")
        self.assertEqual(response.read(), b"after the gate\n")

    def test_stream_is_closed_when_its_reader_goes_away(self):
        start = len(self.site.log)
        response = self.browser.open("GET", "/endless")
        response.read(1_000_000)
        response.close()
        self.browser.connection.close()
        self.site.wait_log("^endless stream closed$", start)

    def test_sessions_count_visits_apart(self):
        for visits in "123":
            self.assertIn(f'<b id="visits">{visits}</b>', self.browser.get("/").text)
        with Browser(self.site.port) as other:
            self.assertIn('<b id="visits">1</b>', other.get("/").text)

    def test_login_and_logout(self):
        wrong = self.browser.post("/accounts/login/", username="demo", password="guess")
        self.assertEqual(wrong.status, 200)
        self.assertIn("Please enter a correct username and password", wrong.text)
        answer = self.login()
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "/"))
        self.assertIn("Log out demo", self.browser.get("/").text)
        token = self.browser.token("/notes/")
        out = self.browser.send("/accounts/logout/", f"csrfmiddlewaretoken={token}", FORM)
        self.assertEqual(out.status, 302)
        self.assertNotIn("Log out demo", self.browser.get("/").text)

    def test_admin_has_its_styles_and_pictures(self):
        self.assertEqual(self.browser.get("/admin/").headers["Location"], "/admin/login/?next=/admin/")
        self.assertEqual(self.login("/admin/login/?next=/admin/").headers["Location"], "/admin/")
        index = self.browser.get("/admin/")
        self.assertEqual(index.status, 200)
        self.assertIn("Site administration", index.text)
        sheets = re.findall(r'<link rel="stylesheet" href="([^"]+)"', index.text)
        self.assertIn("/static/admin/css/base.css", sheets)
        for path in sheets:
            sheet = self.browser.get(path)
            self.assertEqual((sheet.status, sheet.headers["Content-Type"].split(";")[0]), (200, "text/css"), path)
        pictures = re.findall(r"url\(\.\./(img/[\w.-]+\.svg)\)", self.browser.get("/static/admin/css/base.css").text)
        self.assertTrue(pictures)
        for path in pictures:
            picture = self.browser.get(f"/static/admin/{path}")
            self.assertEqual((picture.status, picture.headers["Content-Type"]), (200, "image/svg+xml"), path)

    def test_static_file_is_served_as_it_is(self):
        page = self.browser.get("/static/notes/style.css")
        self.assertEqual(page.status, 200)
        self.assertEqual(page.body, (SITE / "notes/static/notes/style.css").read_bytes())
        self.assertEqual(page.headers["Content-Type"].split(";")[0], "text/css")
        # Django marks every answer with this header; its absence shows that Django was not asked.
        self.assertIsNone(page.headers["X-Frame-Options"])
        for path in ("/static/notes/none.css", "/static/notes/", "/static/notes", "/static/"):
            self.assertEqual(self.browser.get(path).status, 404, path)
        self.assertEqual(self.browser.request("POST", "/static/notes/style.css", b"x").status, 405)

    def test_static_ranges(self):
        whole = (SITE / "notes/static/notes/style.css").read_bytes()
        size = len(whole)
        for wanted, start, end in (("0-9", 0, 9), (f"{size - 5}-", size - 5, size - 1), ("-5", size - 5, size - 1),
                                   (f"3-{size * 2}", 3, size - 1)):
            part = self.browser.get("/static/notes/style.css", Range=f"bytes={wanted}")
            self.assertEqual((part.status, part.headers["Content-Range"]), (206, f"bytes {start}-{end}/{size}"), wanted)
            self.assertEqual(part.body, whole[start:end + 1])
        beyond = self.browser.get("/static/notes/style.css", Range=f"bytes={size}-")
        self.assertEqual((beyond.status, beyond.headers["Content-Range"]), (416, f"bytes */{size}"))

    def test_static_conditions(self):
        modified = self.browser.get("/static/notes/style.css").headers["Last-Modified"]
        same = self.browser.get("/static/notes/style.css", If_Modified_Since=modified)
        self.assertEqual((same.status, same.body), (304, b""))
        older = self.browser.get("/static/notes/style.css", If_Modified_Since="Sat, 01 Jan 2000 00:00:00 GMT")
        self.assertEqual(older.status, 200)

    def test_no_way_out_of_the_static_folder(self):
        static = data() / "static"
        for name, target in (("link", "../password"), ("up", ".."), ("etc", "/etc")):
            (static / name).symlink_to(target)
            self.addCleanup((static / name).unlink)
        secrets = [(data() / "password").read_bytes().strip(), (data() / "secret_key").read_bytes(), b"root:x:0:0"]
        for path in OUTWARDS:
            with self.subTest(path), Connection(self.site.port) as connection:
                answer = connection.request(f"/static/{path}", close=True)
                self.assertIn(answer.status, (400, 403, 404))
                for secret in secrets:
                    self.assertNotIn(secret, answer.body)

    def test_unknown_page(self):
        page = self.browser.get("/no/such/page")
        self.assertEqual(page.status, 404)
        self.assertIn("There is no such page", page.text)

    def test_unknown_host_is_refused(self):
        self.site.expect("Invalid HTTP_HOST header: 'evil.example'")
        self.assertEqual(self.browser.get("/plain", Host="evil.example").status, 400)

    def test_failing_page_is_logged_and_the_worker_lives_on(self):
        self.site.expect("ERROR django.request: Internal Server Error: /boom")
        self.site.expect("^Traceback")
        workers, start = descendants(self.site.process.pid), len(self.site.log)
        page = self.browser.get("/boom")
        self.assertEqual(page.status, 500)
        self.assertIn("This page failed", page.text)
        self.site.wait_log("^Traceback", start)
        self.site.wait_log("^RuntimeError: boom, as the test asked$", start)
        self.assertEqual(self.browser.get("/plain").status, 200)
        self.assertEqual(descendants(self.site.process.pid), workers)


class InlineWorkers(Pages, SiteCase):
    """The usual form: one thread, forked from a template."""

    options = {"threads": 1, "preload": True}


class ThreadedWorkers(Pages, SiteCase):
    """A pool of threads, and each worker loads the application itself."""

    options = {"threads": 4, "preload": False}


class ValidatedWorkers(Pages, SiteCase):
    """All of it again under wsgiref's validator."""

    options = {"threads": 1, "preload": True, "wsgi": "e2e.wsgi:application"}


class ThroughSite(Pages, SiteCase):
    """And once more with the front between browser and workers, under the validator too."""

    options = {"kind": Sited, "threads": 1, "preload": True, "wsgi": "e2e.wsgi:application"}


if __name__ == "__main__":
    unittest.main()
