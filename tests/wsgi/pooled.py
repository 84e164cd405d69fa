"""An application with a pool of its own, opened when it is imported."""
import os

from apps import facts as application  # noqa: F401
from psycopg_pool import ConnectionPool

POOL = ConnectionPool(f"host={os.environ['E2E_FOLDER']} dbname=postgres user=postgres", min_size=1, open=True)
POOL.wait()
