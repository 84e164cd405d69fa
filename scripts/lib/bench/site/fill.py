"""Fifty notes in the bench's own database, unless they are there."""
import django

django.setup()

from notes.models import Note  # noqa: E402

if not Note.objects.exists():
    Note.objects.bulk_create(Note(author=f"author {n}", text=f"The text of note {n}.") for n in range(50))
