"""preforkd, a server for WSGI applications and a supervisor of any program. `python -m preforkd` runs it with this interpreter."""
