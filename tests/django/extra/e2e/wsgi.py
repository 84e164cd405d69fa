"""The demo site inside wsgiref's validator: every breach of PEP 3333, by the server too, is an error."""
from wsgiref.validate import validator

from mysite.wsgi import application as site

application = validator(site)
