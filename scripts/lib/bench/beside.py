"""What runs beside a measurement, in a thread of its own."""
import os
import threading

from .places import CORES


class Beside:
    """Goes on until the end of the block."""

    def __init__(self):
        self.stopping = threading.Event()
        self.fault = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        """Not on the core of what is measured."""
        os.sched_setaffinity(0, CORES[1:])
        try:
            self.go_on()
        except (AssertionError, OSError) as error:
            self.fault = error

    def go_on(self):
        """What it does until it is `stopping`."""
        raise NotImplementedError

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        self.end()

    def end(self):
        """Closes what is open, and fails if there was a `fault`."""
        raise NotImplementedError
