"""The secret key: made once for each installation, kept beside its data."""
import os
import tempfile
from pathlib import Path

from django.core.management.utils import get_random_secret_key


def secret_key(path: Path) -> str:
    """The key kept in `path`, made if there is none yet."""
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several workers may come here at once. A link never replaces a file, so the first one wins,
    # and nobody can read a half-written key. mkstemp makes the file readable by its owner only.
    fd, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with open(fd, "w") as file:
            file.write(get_random_secret_key())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
    return path.read_text()
