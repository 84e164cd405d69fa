//! Serving HTTP/1.1 inside a worker process.
