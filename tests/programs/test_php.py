"""php-fpm in the foreground. It takes over the listener by FPM_SOCKETS, and knows sd_notify(3)."""
import base64
import hashlib
import http.client
import http.server
import json
import os
import threading
import unittest

import fastcgi
from stand import GUARD, Asking, Behind, ProgramCase, free_port, get, needs

SCRIPT = """<?php
if (isset($_SERVER["HELD"])) {
    fwrite(stream_socket_client("udg://" . __DIR__ . "/events"), "held request");
    fread(fopen(__DIR__ . "/gate", "rb"), 1);
}
echo getenv("VERSION") . " " . getmypid();
"""
# Without process_control_timeout, php-fpm kills its processes as soon as it has told them to finish.
CONFIG = """
[global]
error_log = /dev/stderr
process_control_timeout = 20s
[www]
listen = {address}
pm = static
pm.max_children = 3
clear_env = no
"""


class PhpCase(ProgramCase):
    """One pool."""

    def launch_it(self, listener, address, **app):
        program = needs("php-fpm")
        (self.folder / "version.php").write_text(SCRIPT)
        user = f"user = {os.getuid()}\ngroup = {os.getgid()}\n" if os.getuid() == 0 else ""
        (self.folder / "fpm.conf").write_text(CONFIG.format(address=address) + user)
        command = [program, "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", str(self.folder / "fpm.conf")]
        if listener:
            app = {"listen": [listener], "env": {"FPM_SOCKETS": f"{address}=3"}, **app}
        else:
            app = {"listen": [], **app}
        return self.launch(command=command, **app).ready()


class PhpFpm(PhpCase):
    """Without a site."""

    def test_a_reload_loses_no_request_and_a_stop_leaves_nothing(self):
        port = free_port()
        address = f"127.0.0.1:{port}"
        server = self.launch_it(address, address)
        script = self.folder / "version.php"
        with Asking(lambda: fastcgi.ask(port, script)) as clients:
            self.configure(server, env={"VERSION": "v2"})
            self.renew(server)
            clients.wait_for(10)
        self.assertEqual(clients.losses, [], server.report())
        self.assertRegex(clients.answers[0], "^v1 ")
        self.assertRegex(fastcgi.ask(port, script), "^v2 ")
        self.finish(server)

    def test_requests_in_flight_are_answered_over_a_reload_and_a_stop(self):
        port = free_port()
        address = f"127.0.0.1:{port}"
        server = self.launch_it(address, address)
        script = self.folder / "version.php"
        self.configure(server, env={"VERSION": "v2"})
        for version, order in (("v1", server.reload), ("v2", lambda: self.stop(server))):
            held = fastcgi.send(port, script, HELD="yes")
            self.event("held request")
            order()
            self.open_gate()
            self.assertRegex(fastcgi.receive(held), f"^{version} ")
            self.wait_left(server)
        self.finish(server)

    def test_the_socket_file_that_the_old_master_removes_is_made_again(self):
        path = f"{self.folder}/php.sock"
        server = self.launch_it(f"unix:{path}", path)
        script = self.folder / "version.php"
        self.assertRegex(fastcgi.ask(path, script), "^v1 ")
        self.renew(server)
        server.wait_log(r"gen=1 .*php\.sock was removed; made it again")
        self.assertRegex(fastcgi.ask(path, script), "^v1 ")
        self.finish(server)

PROBE = """<?php
switch ($_GET["do"] ?? "") {
case "variables":
    header("Content-Type: application/json");
    echo json_encode($_SERVER);
    break;
case "sum":
    echo strlen($body = file_get_contents("php://input")) . " " . md5($body);
    break;
case "size":
    // With and without Content-Length, in one write and in many.
    $text = str_repeat("x", (int) $_GET["n"]);
    if (isset($_GET["length"])) {
        header("Content-Length: " . strlen($text));
    }
    foreach (isset($_GET["pieces"]) ? str_split($text, 999) : [$text] as $piece) {
        echo $piece;
        if (isset($_GET["pieces"])) {
            flush();
        }
    }
    break;
case "complain":
    error_log("one\\ntwo");
    echo "served";
    error_log(str_repeat("much ", 20000));
    break;
case "redirect":
    header("Location: /elsewhere");
    break;
case "status":
    http_response_code(404);
    echo "not found by the script";
    break;
case "early":
    // The body is not read.
    http_response_code(413);
    echo "too large";
    break;
default:
    echo "the front page";
}
"""


class PhpSite(Behind):
    """A site whose app is php-fpm."""

    site = 'app = "demo"\nstatic = { "/" = "www" }'


class Voucher(http.server.BaseHTTPRequestHandler):
    """Answers whether a request may pass, and whose it is."""

    def do_GET(self):
        self.send_response(204 if "X-Key" in self.headers else 403)
        self.send_header("Remote-User", "bob")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class PhpPool(Behind):
    """A site in front of a pool that listens at a socket of its own."""

    site = 'routes = [{ path = "/blog", to = "fastcgi:unix:own.sock", root = "www", strip_prefix = true }]'


class BehindSite(PhpCase):
    """php-fpm behind a site: what PHP is told, what clients get, and what the log says."""

    def launch_site(self, kind=PhpSite):
        (self.folder / "www" / "upload").mkdir(parents=True)
        (self.folder / "www" / "index.php").write_text(PROBE)
        (self.folder / "www" / "version.php").write_text(SCRIPT)
        (self.folder / "www" / "style.css").write_text("body {}")
        (self.folder / "www" / "upload" / "x.jpg").write_text("<?php echo 'hacked';")
        # A name for the socket that the front connects to. No file has it, so that php-fpm removes none when it ends.
        name = f"{self.folder}/pool.sock"
        env = {"FPM_SOCKETS": f"{name}=3"}
        return self.launch_it(None, name, kind=kind, protocol="fastcgi", root="www", env=env)

    def ask(self, server, target, method="GET", body=None, **fields):
        """An answer, on a connection of its own: status, fields and body."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GUARD)
        self.addCleanup(connection.close)
        connection.request(method, target, body, fields)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def test_php_is_told_what_is_asked_for(self):
        server = self.launch_site()
        _, _, body = self.ask(
            server, "/index.php/in%20fo?do=variables&x=%41", Host="shop.example:81", Cookie="a=1", Proxy="http://evil",
            **{"X-Forwarded-For": "203.0.113.7", "X.Dot": "1", "PHP-VALUE": "auto_prepend_file=/etc/passwd", "X-Mine": "ü".encode().decode("latin-1")},
        )
        told = json.loads(body)
        for name, value in {
            "SCRIPT_FILENAME": f"{self.folder}/www/index.php", "DOCUMENT_ROOT": f"{self.folder}/www", "SCRIPT_NAME": "/index.php",
            "PATH_INFO": "/in fo", "PHP_SELF": "/index.php/in fo", "REQUEST_URI": "/index.php/in%20fo?do=variables&x=%41",
            "QUERY_STRING": "do=variables&x=%41", "SERVER_NAME": "shop.example", "SERVER_PORT": "81", "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "shop.example:81", "HTTP_COOKIE": "a=1", "HTTP_X_MINE": "ü", "REQUEST_SCHEME": "http",
        }.items():
            self.assertEqual(told.get(name), value, name)
        for name in ("HTTPS", "HTTP_PROXY", "HTTP_X_FORWARDED_FOR", "HTTP_X_DOT", "HTTP_X.DOT", "PHP_VALUE", "CONTENT_LENGTH"):
            self.assertFalse(told.get(name), name)
        self.finish(server)

    def test_php_is_told_the_user_whose_password_was_right_or_whom_the_answer_names(self):
        # The hash is that of "secret".
        (self.folder / "htpasswd").write_text("ann:$2y$05$K0CIV0rx3gWfJoyPEb314uwOg/FKIeC/lHBrfaHiKRAA59MsFQN82\n")
        voucher = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Voucher)
        self.addCleanup(voucher.server_close)
        threading.Thread(target=voucher.serve_forever, daemon=True).start()
        self.addCleanup(voucher.shutdown)
        asked = f'{{ to = "http://127.0.0.1:{voucher.server_port}", path = "/vouch" }}'
        site = f"""basic_auth = "htpasswd"
routes = [
    {{ path = "/", app = "demo" }},
    {{ path = "/open", app = "demo", basic_auth = false }},
    {{ path = "/asked", app = "demo", basic_auth = false, forward_auth = {asked} }},
]"""
        server = self.launch_site(type("PhpWithUsers", (Behind,), {"site": site}))
        lies = {"Remote-User": "root", "Auth-Type": "Basic"}

        def told(target, **fields):
            status, _, body = self.ask(server, target + "?do=variables", **lies, **fields)
            self.assertEqual(status, 200, body)
            variables = json.loads(body)
            return {name: variables.get(name) for name in ("REMOTE_USER", "AUTH_TYPE", "PHP_AUTH_USER")}

        def basic(password):
            return "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()

        self.assertEqual(self.ask(server, "/?do=variables")[0], 401)
        self.assertEqual(self.ask(server, "/?do=variables", Authorization=basic("wrong"))[0], 401)
        shown = {"REMOTE_USER": "ann", "AUTH_TYPE": "Basic", "PHP_AUTH_USER": "ann"}
        self.assertEqual(told("/index.php", Authorization=basic("secret")), shown)
        nobody = dict.fromkeys(shown)
        self.assertEqual(told("/open"), nobody)
        self.assertEqual(self.ask(server, "/asked?do=variables", **lies)[0], 403)
        self.assertEqual(told("/asked", **{"X-Key": "yes"}), {**nobody, "REMOTE_USER": "bob"})
        self.finish(server)

    def test_only_scripts_that_are_there_are_run_and_none_is_shown(self):
        server = self.launch_site()
        for target, status, expected in (
            ("/", 200, b"the front page"),
            ("/pretty/url?do=status", 404, b"not found by the script"),
            ("/style.css", 200, b"body {}"),
            ("/upload/x.jpg", 200, b"<?php echo 'hacked';"),
            ("/upload/x.jpg/y.php", 404, b"404 Not Found\n"),
            ("/upload/x.jpg%00.php", 404, b"404 Not Found\n"),
            ("/missing.php", 404, b"404 Not Found\n"),
            ("/index.ph%70", 200, b"the front page"),
            ("//x/../index.php", 200, b"the front page"),
            ("/INDEX.PHP", 200, b"the front page"),
        ):
            self.assertEqual(self.ask(server, target)[::2], (status, expected), target)
        status, fields, _ = self.ask(server, "/?do=redirect")
        self.assertEqual((status, fields["Location"]), (302, "/elsewhere"))
        self.finish(server)

    def test_bodies_of_all_sizes_arrive_whole_in_both_directions(self):
        server = self.launch_site()
        for size in (0, 1, 8192, 65_527, 65_528, 65_529, 65_535, 65_536, 1_000_000):
            body = bytes(number % 251 for number in range(size))
            digest = hashlib.md5(body).hexdigest()
            self.assertEqual(self.ask(server, "/?do=sum", "POST", body)[2], f"{size} {digest}".encode())
            for more in ("", "&length", "&pieces", "&length&pieces"):
                status, _, answer = self.ask(server, f"/?do=size&n={size}{more}")
                self.assertEqual((status, len(answer)), (200, size), more)
        self.assertEqual(self.ask(server, "/?do=size&n=9&length", "HEAD")[2], b"")
        # The script answers before it has read its body.
        status, _, answer = self.ask(server, "/?do=early", "POST", b"x" * 3_000_000)
        self.assertEqual((status, answer), (413, b"too large"))
        self.finish(server)

    def test_what_php_complains_of_is_logged_and_answers_nothing(self):
        server = self.launch_site()
        status, _, body = self.ask(server, "/?do=complain")
        self.assertEqual((status, body), (200, b"served"))
        server.wait_log("app=demo: written to the standard error of FastCGI: .*one")
        server.wait_log("app=demo: written to the standard error of FastCGI: .*much much")
        self.finish(server, "standard error of FastCGI")

    def test_a_reload_loses_no_request(self):
        server = self.launch_site()
        with Asking(lambda: get(server.port, "/version.php")) as clients:
            self.configure(server, env={"VERSION": "v2"})
            self.renew(server)
            clients.wait_for(10)
        self.assertEqual(clients.losses, [], server.report())
        self.assertRegex(clients.answers[0], "^v1 ")
        self.assertRegex(get(server.port, "/version.php"), "^v2 ")
        self.finish(server)

    def test_a_pool_at_a_socket_of_its_own_is_reached_too(self):
        (self.folder / "www" / "admin").mkdir(parents=True)
        for name in ("index.php", "admin/index.php"):
            (self.folder / "www" / name).write_text(PROBE)
        server = self.launch_it(None, f"{self.folder}/own.sock", kind=PhpPool, replace="stop-first")
        _, _, body = self.ask(server, "/blog/a/b?do=variables")
        told = json.loads(body)
        for name, value in {
            "SCRIPT_FILENAME": f"{self.folder}/www/index.php", "SCRIPT_NAME": "/blog/index.php", "REQUEST_URI": "/blog/a/b?do=variables",
        }.items():
            self.assertEqual(told.get(name), value, name)
        status, fields, _ = self.ask(server, "/blog/admin?x=1")
        self.assertEqual((status, fields["Location"]), (308, "/blog/admin/?x=1"))
        self.assertEqual(self.ask(server, "/blog/admin/")[2], b"the front page")
        self.assertEqual(self.ask(server, "/other")[0], 404)
        self.finish(server)


if __name__ == "__main__":
    unittest.main()
