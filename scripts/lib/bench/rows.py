"""The rows that are measured in requests per second."""
from dataclasses import dataclass

from .servers import BARE, NGINX
from .static import SIZES

POSTED = 65536


@dataclass(frozen=True)
class Row:
    """A page, how it is asked for, and what it must say."""

    key: str
    title: str
    app: str
    path: str
    holds: bytes = b""
    size: int = 0
    connections: int | None = None
    post: bool = False
    # The server without its server: calls per second of the application alone.
    limit: bool = False
    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ("preforkd threads=4", "uWSGI http11")

    def takes(self, server):
        """Whether this server is measured here."""
        if server == BARE:
            return self.limit
        if self.app == "static" or server == NGINX:
            return self.app == "static" and server in ("preforkd", NGINX)
        return server in self.only if self.only else server not in self.never


ROWS = (
    Row("hello", "hello world", "hello", "/", b"Hello, world\n", limit=True, never=("preforkd threads=4",)),
    Row("plain", "Django plain view", "django", "/plain", b"Hello from Django\n", limit=True),
    Row("json", "Django JSON", "django", "/json", b'"numbers"', limit=True),
    Row("orm", "Django ORM read", "django", "/orm", b"The text of note 49.", limit=True),
    Row("rows", "Django 100-row template", "django", "/rows", b"0x64", limit=True),
    Row("body", "100 kB response", "pages", "/body", size=102_400),
    Row("stream", "10 MB streamed", "pages", "/stream", size=10_485_760, connections=4),
    Row("post", "64 kB POST", "pages", "/post", b"65536\n", post=True),
    Row("cpu", "1 ms of Python", "pages", "/cpu", limit=True,
        only=("preforkd", "preforkd threads=4", "gunicorn gthread")),
    *(Row(key, f"static file of {size:,} bytes", "static", f"/static/{key}.bin", size=size,
          connections=4 if size > 1_000_000 else None) for key, size in SIZES.items()),
)
