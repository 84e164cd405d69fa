"""An application that starts a thread when it is imported, which does not survive a fork."""
import threading

from apps import facts as application  # noqa: F401

threading.Thread(target=threading.Event().wait, name="ghost", daemon=True).start()
