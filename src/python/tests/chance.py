"""An application whose answers should differ between workers, though everything that makes them was used before the fork."""

import json
import os
import random
import secrets
import ssl
import tempfile
import uuid

SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT.check_hostname = False
CLIENT.verify_mode = ssl.CERT_NONE
for context in (SERVER, CLIENT):
    # Anonymous, so that no certificate is needed; the last version that allows it.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")


def handshake():
    """What both sides of a new TLS connection call it, and what one of them hears from the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = SERVER.wrap_bio(to_server, to_client, server_side=True)
    client = CLIENT.wrap_bio(to_client, to_server)
    sides = [client, server]
    while sides:
        side = sides.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            sides.append(side)
    client.write(b"hello")
    names = {side.get_channel_binding().hex() for side in (client, server)}
    return [*names, server.read().decode()]


def draw():
    return {
        "ssl": ssl.RAND_bytes(16).hex(),
        "handshake": handshake(),
        "random": random.random(),
        "urandom": os.urandom(16).hex(),
        "uuid": str(uuid.uuid4()),
        "secret": secrets.token_hex(),
        "file": tempfile.mktemp(),
    }


AT_IMPORT = draw()


def application(environ, start):
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "drawn": draw()}).encode()]
