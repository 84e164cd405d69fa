"""Pages for programs."""
from django.db import connection
from django.http import HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from .worker import facts


@require_safe
def plain(request):
    """The least that Django does for a page; scripts/bench measures it."""
    return HttpResponse("Hello from Django\n", content_type="text/plain; charset=utf-8")


@require_safe
def json(request):
    """A small document."""
    return JsonResponse({"message": "Hello from Django", "numbers": list(range(10))})


@require_safe
def about(request):
    """Which worker answered."""
    return JsonResponse(facts())


@require_safe
def health(request):
    """Healthy means that the database answers too."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")
