"""Static files: the files that are asked for, and nginx as the server to compare with."""
import os

from .places import BENCH

FOLDER = BENCH / "static"
# Bytes of each file, by the key of its row.
SIZES = {"static-1k": 1024, "static-17k": 17_408, "static-100k": 102_400, "static-10m": 10_485_760}
# What users write in such a server's configuration: no log of accesses, and connections that stay.
NGINX = """daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    include mime.types;
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /static/ {{ alias {folder}/files/; }}
    }}
}}
"""
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
    config.write_text(NGINX.format(folder=FOLDER, port=port))
    return ["nginx", "-c", config, "-e", FOLDER / "error.log"]
