"""One hook only."""


def worker_start():
    print("started")
