"""Addresses that only tests need; the demo site itself has no switch for them."""
import hashlib
import os
import sys
import threading

from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from notes.models import Note

PAUSE = threading.Event()  # never set


def echo(request):
    """The request's id, and who answered."""
    return signed(request.GET["id"])


@csrf_exempt
def digest(request):
    """The hash of what was sent, and who answered."""
    return signed(hashlib.sha256(request.body).hexdigest())


def signed(text):
    """An answer that names its worker."""
    response = HttpResponse(text, content_type="text/plain")
    for name in ("SLOT", "GENERATION"):
        response[f"X-{name}"] = os.environ[f"PREFORKD_{name}"]
    response["X-Pid"] = str(os.getpid())
    return response


def boom(request):
    """A page with a mistake."""
    raise RuntimeError("boom, as the test asked")


def gated(request):
    """The second piece is made only after the test has opened the gate, a fifo."""

    def pieces():
        yield "before the gate\n"
        with open(os.environ["E2E_GATE"]) as gate:
            yield gate.read()

    return StreamingHttpResponse(pieces(), content_type="text/plain")


def endless(request):
    """A stream that only its reader can end."""

    def pieces():
        try:
            while True:
                yield b"x" * 65536
        finally:
            print("endless stream closed", file=sys.stderr, flush=True)

    return StreamingHttpResponse(pieces(), content_type="application/octet-stream")


def export(request):
    """Rows of one transaction, with pauses."""

    def rows():
        with transaction.atomic():
            for number in range(50):
                Note.objects.create(author="export", text=request.GET["id"])
                PAUSE.wait(0.005)
                yield f"{request.GET['id']} {number}\n"
            Note.objects.filter(author="export", text=request.GET["id"]).delete()

    return StreamingHttpResponse(rows(), content_type="text/plain")


def save(request):
    """One note, outside of any transaction."""
    if transaction.get_connection().in_atomic_block:
        raise RuntimeError("in the transaction of another request")
    Note.objects.create(author="save", text=request.GET["id"])
    return signed("saved")


def saved(request):
    """How many notes there are of that text."""
    return signed(str(Note.objects.filter(text=request.GET["id"]).count()))


urlpatterns = [
    path("export", export),
    path("save", save),
    path("saved", saved),
    path("echo", echo),
    path("digest", digest),
    path("boom", boom),
    path("gated", gated),
    path("endless", endless),
    path("", include("mysite.urls")),
]
