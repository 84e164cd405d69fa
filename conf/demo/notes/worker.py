"""Which worker serves: what preforkd tells its workers, shown so that a reload can be watched."""
import os


def facts():
    """Read at every request: with `preload` the module is loaded before the worker exists."""
    return {
        "app": os.environ.get("PREFORKD_APP", "-"),
        "slot": os.environ.get("PREFORKD_SLOT", "-"),
        "generation": os.environ.get("PREFORKD_GENERATION", "-"),
        "pid": os.getpid(),
    }


def context(request):
    """Template context: every page names its worker in the footer."""
    return {"worker": facts()}
