"""A browser as far as the demo site needs one: cookies, forms, a connection that is kept."""
import http.client
import http.cookies
import re
import secrets
from urllib.parse import urlencode

from service import GUARD

FORM = "application/x-www-form-urlencoded"


class Answer:
    """A response, read to its end."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self):
        """The body of a page."""
        return self.body.decode("utf-8")


class Browser:
    """One visitor."""

    def __init__(self, port):
        self.port = port
        self.cookies = {}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def open(self, method, path, body=None, headers=None):
        """Send a request; the response as http.client gives it, its body still to be read."""
        sent = dict(headers or {})
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.connection.request(method, path, body, sent)
        response = self.connection.getresponse()
        for line in response.headers.get_all("Set-Cookie", []):
            for name, morsel in http.cookies.SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return response

    def request(self, method, path, body=None, headers=None):
        """Send a request; the whole answer."""
        return Answer(self.open(method, path, body, headers))

    def get(self, path, **headers):
        """GET; `Range="..."` and the like add headers."""
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def token(self, path):
        """The CSRF token in the form of a page."""
        page = self.get(path)
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert found, f"no form on {path}: {page.status}\n{page.text}"
        return found[1]

    def post(self, path, **fields):
        """Fill in the form of a page and send it."""
        body = urlencode({"csrfmiddlewaretoken": self.token(path), **fields})
        return self.send(path, body, FORM)

    def upload(self, path, name, content, chunked=False):
        """Send a file with the form of a page; `chunked`: without telling its length before."""
        boundary = secrets.token_hex(16)
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n'
                 f'{self.token(path)}\r\n--{boundary}\r\n'
                 f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode(),
                 content, f"\r\n--{boundary}--\r\n".encode()]
        kind = f"multipart/form-data; boundary={boundary}"
        if chunked:
            # http.client sends an iterable chunk by chunk when nothing says how long it is.
            return self.send(path, iter(parts), kind)
        return self.send(path, b"".join(parts), kind)

    def send(self, path, body, kind):
        """POST as a browser does it, with its Origin."""
        origin = f"http://127.0.0.1:{self.port}"
        return self.request("POST", path, body, {"Content-Type": kind, "Origin": origin})
