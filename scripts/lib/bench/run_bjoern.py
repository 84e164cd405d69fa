"""Runs bjoern on the socket given as fd 3, for scripts/bench: run_bjoern.py MODULE:NAME."""
import importlib
import os
import socket
import sys

import bjoern

sys.path.insert(0, os.getcwd())
module, _, name = sys.argv[1].partition(":")
application = getattr(importlib.import_module(module), name)
# It listens already: a connection made from now on waits in its queue.
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
bjoern.server_run(socket.socket(fileno=3), application)
