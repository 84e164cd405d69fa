"""The configuration of an nginx that keeps all its files in one folder."""

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def configuration(folder, port, main, http, server):
    """One server at a port of this machine; `main`, `http` and `server` are further lines of these contexts."""
    temporary = "\n".join(f"{what}_temp_path {folder}/{what};" for what in TEMPORARY)
    return f"""{main}
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
access_log off;
{temporary}
{http}
server {{
listen 127.0.0.1:{port};
{server}
}}
}}
"""
