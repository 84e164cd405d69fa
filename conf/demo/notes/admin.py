"""The models in the admin."""
from django.contrib import admin

from .models import Note, Upload


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    """Notes can be searched."""

    list_display = ["author", "text", "created"]
    search_fields = ["author", "text"]


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin):
    """Uploads are looked at, never made here: only the upload form computes size and hash."""

    list_display = ["name", "size", "sha256", "created"]
    fields = readonly_fields = list_display

    def has_add_permission(self, request):
        """Nobody adds an upload in the admin."""
        return False
