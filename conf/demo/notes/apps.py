"""The one application of the demo site."""
from django.apps import AppConfig


class NotesConfig(AppConfig):
    """Notes, uploads, and pages that show what the server does."""

    name = "notes"
