"""A form of Django, which takes only what comes from a page of its own; SCHEME is the field that it takes the scheme from, if any."""
import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.urls import path

settings.configure(
    SECRET_KEY="x" * 50, ALLOWED_HOSTS=["shop.example"], ROOT_URLCONF="form", LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    SECURE_PROXY_SSL_HEADER=(os.environ["SCHEME"], "https") if "SCHEME" in os.environ else None,
)
django.setup()


def form(request):
    if request.method == "POST":
        return HttpResponse("taken")
    return HttpResponse(f"{get_token(request)} {request.build_absolute_uri('/next')} {request.META['REMOTE_ADDR']}")


urlpatterns = [path("form", form)]
application = get_wsgi_application()
