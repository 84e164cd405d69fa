"""A log that cannot be written: no room, nobody who reads, somebody who does not go on reading."""
import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path

import processes
from clients import Client
from stage import scenario

TARGET = "starts, serves, reloads, 0 lost"


@scenario(TARGET)
def log_disk_full(stage):
    """/dev/full: each write fails as on a full disk."""
    serve_and_reload(stage, "/dev/full")


@scenario(TARGET)
def log_disk_full_and_an_application_that_talks(stage):
    """The same, with a line to wsgi.errors for each request."""
    serve_and_reload(stage, "/dev/full", talks=True)


@scenario(TARGET)
def log_reader_gone(stage):
    """A pipe whose reader goes when the first answer is there."""
    with pipe() as (path, reader):
        serve_and_reload(stage, path, then=lambda: os.close(reader))


@scenario(TARGET)
def log_reader_gone_and_an_application_that_talks(stage):
    """The same, with a line to wsgi.errors for each request."""
    with pipe() as (path, reader):
        serve_and_reload(stage, path, then=lambda: os.close(reader), talks=True)


@scenario(TARGET)
def log_reader_frozen(stage):
    """A pipe that is full from the start, and never read."""
    with pipe() as (path, reader):
        fill(path)
        serve_and_reload(stage, path)


@scenario(TARGET)
def log_reader_frozen_and_an_application_that_talks(stage):
    """The same, with a line to wsgi.errors for each request; the pipe has room at the start."""
    with pipe() as (path, reader):
        serve_and_reload(stage, path, talks=True)


@contextlib.contextmanager
def pipe():
    """A named pipe that has a reader, which does not read."""
    with tempfile.TemporaryDirectory(prefix="preforkd-chaos-") as folder:
        path = Path(folder) / "log"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield path, reader
        finally:
            with contextlib.suppress(OSError):
                os.close(reader)


def fill(path):
    """Leave no room in a pipe."""
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.close(writer)


def serve_and_reload(stage, output, then=lambda: None, talks=False):
    """A first answer, then load and a reload in the middle of it; what the log would say, the answers tell."""
    with stage.serve(output=output, talks=talks) as server:
        first = Client(server.port, "first", keep=False)
        result, _ = first.ask()
        stage.take(first.results, server)
        if not stage.need(result.verdict == "ok", f"the first request: {result.verdict}"):
            return
        then()
        with stage.load(server, patience=5) as load:
            time.sleep(1)
            old = load.pids(load.begin)
            since = server.hup()
            new = server.wait(lambda: load.pids(since) - old and not any(map(processes.alive, old)), 5)
            stage.need_settled(since, new, 3)
            load.wait_round()
            time.sleep(0.5)
            stage.need_living(server)
    stage.need_none_lost()
