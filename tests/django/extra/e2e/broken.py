"""The settings of a site whose addresses cannot be loaded, which Django itself finds out at the first request."""
from .settings import *  # noqa: F403

ROOT_URLCONF = "e2e.nowhere"
