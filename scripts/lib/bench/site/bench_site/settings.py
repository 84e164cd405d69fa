"""The demo site's own settings, with a few more addresses."""
from mysite.settings import *  # noqa: F403

ROOT_URLCONF = "bench_site.urls"
