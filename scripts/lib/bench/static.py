"""Static files: the files that are asked for, and nginx as the server to compare with."""
import os

from .places import BENCH
from nginx import configuration  # Found by `places`.

FOLDER = BENCH / "static"
# Bytes of each file, by the key of its row.
SIZES = {"static-1k": 1024, "static-17k": 17_408, "static-100k": 102_400, "static-10m": 10_485_760}
# What users write in such a server's configuration: connections that stay.
HTTP = "include mime.types; sendfile on; tcp_nopush on; keepalive_requests 1000000000;"
TYPES = "types { text/css css; application/octet-stream bin; }\n"


def prepare():
    """Makes the files, once."""
    files = FOLDER / "files"
    files.mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o755)
    for key, size in SIZES.items():
        file = files / f"{key}.bin"
        if not file.exists() or file.stat().st_size != size:
            file.write_bytes(os.urandom(size))


def nginx(app, _, port):
    """One worker, in the foreground."""
    (FOLDER / "mime.types").write_text(TYPES)
    config = FOLDER / "nginx.conf"
    main = f"daemon off; worker_processes 1; error_log {FOLDER}/error.log;"
    server = f"location /static/ {{ alias {FOLDER}/files/; }}"
    config.write_text(configuration(FOLDER, port, main, HTTP, server))
    return ["nginx", "-c", config, "-e", FOLDER / "error.log"]
