"""An application that starts a thread while it is imported."""

import threading

from apps import application  # noqa: F401

threading.Thread(target=threading.Event().wait, name="background-reader", daemon=True).start()
