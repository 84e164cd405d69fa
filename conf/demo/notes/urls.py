"""The addresses of pages."""
from django.urls import path

from . import pages, plain, uploads

urlpatterns = [
    path("", pages.home, name="home"),
    path("notes/", pages.notes, name="notes"),
    path("uploads/", uploads.uploads, name="uploads"),
    path("uploads/<int:pk>", uploads.download, name="download"),
    path("stream", pages.stream, name="stream"),
    path("rows", pages.rows, name="rows"),
    path("plain", plain.plain, name="plain"),
    path("json", plain.json, name="json"),
    path("about", plain.about, name="about"),
    path("health", plain.health, name="health"),
]
