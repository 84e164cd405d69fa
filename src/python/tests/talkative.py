"""An application that prints and logs, and watches its threads as debuggers and coverage tools do."""

import json
import logging
import os
import signal
import sys
import threading

logging.basicConfig(format="%(levelname)s %(message)s", level=logging.DEBUG, stream=sys.stderr)
TRACED = set()


def trace(frame, event, argument):
    TRACED.add((threading.current_thread().name, frame.f_code.co_name))


threading.settrace(trace)


def chatter(name):
    for number in range(200):
        print(name, number, "of", 200, sep="-")
        print(name, "on standard error", number, file=sys.stderr)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "application/json")])
    if path == "/dies":
        print("printed", "just before")
        logging.warning("logged just before")
        os.write(1, b"written beside them\n")
        print("half a line", end="")
        os.kill(os.getpid(), signal.SIGKILL)
    elif path == "/flushes":
        print("begun ", end="", flush=True)
        os.write(1, b"and ended\n")
    elif path == "/forks":
        print("begun ", end="")
        pid = os.fork()
        if pid == 0:
            print("of the child")
            os._exit(0)
        os.waitpid(pid, 0)
        print("and ended")
    elif path == "/chatters":
        threads = [threading.Thread(target=chatter, args=("thread%d" % n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    elif path == "/levels":
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            logging.log(level, "first line\nsecond line")
        print("printed", file=sys.stderr)
    thread = threading.current_thread()
    return [json.dumps([thread.name, type(thread).__name__, (thread.name, "application") in TRACED]).encode()]
