"""Pages for people."""
from django.contrib import messages
from django.http import StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from .forms import NoteForm
from .models import Note


@require_safe
def home(request):
    """The front page; counts the visits of this session."""
    visits = request.session.get("visits", 0) + 1
    request.session["visits"] = visits
    return render(request, "notes/home.html", {"visits": visits, "notes": Note.objects.all()[:3]})


@require_http_methods(["GET", "HEAD", "POST"])
def notes(request):
    """The notes, and the form for a new one."""
    form = NoteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "The note is stored.")
        return redirect("notes")
    return render(request, "notes/notes.html", {"form": form, "notes": Note.objects.all()[:50]})


@require_safe
def stream(request):
    """Many small pieces, each made only when the one before it is on its way."""
    lines = (f"line {number} of 1000\n" for number in range(1, 1001))
    return StreamingHttpResponse(lines, content_type="text/plain; charset=utf-8")


@require_safe
def rows(request):
    """A table of a hundred rows: work for the template engine, none for the database."""
    table = [{"number": n, "square": n * n, "hex": f"{n:#04x}"} for n in range(1, 101)]
    return render(request, "notes/rows.html", {"rows": table})
