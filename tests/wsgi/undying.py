"""An application that starts a thread when it is imported, for which Python waits at its end."""
import threading

from apps import facts as application  # noqa: F401

threading.Thread(target=threading.Event().wait, name="undying").start()
