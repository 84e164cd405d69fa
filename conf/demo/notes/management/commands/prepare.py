"""`manage.py prepare`: everything between installing Django and serving the site, in one process."""
import os
import secrets

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Safe to repeat: it only does what is missing."""

    help = "Migrate the database, collect the static files, create the user `demo` once."

    def handle(self, *args, **options):
        """The three steps."""
        call_command("migrate", interactive=False, verbosity=0)
        self.stdout.write(f"database: {settings.DATABASES['default']['NAME']}")
        call_command("collectstatic", interactive=False, verbosity=0)
        self.stdout.write(f"static files: {settings.STATIC_ROOT}")
        settings.MEDIA_ROOT.mkdir(parents=True, exist_ok=True)
        self.create_user()

    def create_user(self):
        """The password is random, told only by a file that its owner alone can read."""
        users = get_user_model().objects
        if users.filter(username="demo").exists():
            return
        password = secrets.token_urlsafe(12)
        # The file first: a user whose password nobody knows would stay for good.
        path = settings.DATA / "password"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(password + "\n")
        users.create_superuser("demo", password=password)
        self.stdout.write(f"user: demo, password in {path}")
