"""What an application knows of its client and of its own URL."""
import json

KEYS = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO")


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    names = sorted(key for key in environ if "FORWARDED" in key)
    return [json.dumps([*(environ.get(key) for key in KEYS), names]).encode()]
