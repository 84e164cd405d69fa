//! The Python extension module: WSGI between the HTTP server and the interpreter.
