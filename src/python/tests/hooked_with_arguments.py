"""Hooks of another server, which passes its worker."""


def worker_start(worker):
    pass


def worker_stop(worker, *, reason):
    pass
