"""Files that visitors send."""
from django.contrib import messages
from django.http import FileResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from .forms import UploadForm
from .models import Upload


@require_http_methods(["GET", "HEAD", "POST"])
def uploads(request):
    """What was sent so far, and the form to send more."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        upload = form.save()
        messages.success(request, f"{upload.name} is stored.")
        return redirect("uploads")
    return render(request, "notes/uploads.html", {"form": form, "uploads": Upload.objects.all()[:50]})


@require_safe
def download(request, pk):
    """Always an attachment of no particular type: a visitor's HTML must not run as a page of this site."""
    upload = get_object_or_404(Upload, pk=pk)
    return FileResponse(
        upload.file.open(), as_attachment=True, filename=upload.name, content_type="application/octet-stream"
    )
