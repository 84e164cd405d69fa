"""The demo site's addresses, and one that reads from the database."""
from django.http import JsonResponse
from django.urls import include, path

from notes.models import Note


def orm(request):
    """The newest twenty notes."""
    notes = Note.objects.all()[:20]
    return JsonResponse({"notes": [{"id": note.pk, "author": note.author, "text": note.text} for note in notes]})


urlpatterns = [path("orm", orm), path("", include("mysite.urls"))]
