//! A response body that is not finished: what the application returned, until it is used up and closed.

use std::fmt;

use preforkd_http::Request;
use pyo3::prelude::*;
use pyo3::types::PyIterator;

use crate::start::StartResponse;

/// Waits in the connection, without the interpreter, while the client reads.
pub(crate) struct Stream {
    /// What the application returned; has `close`, perhaps.
    pub iterable: Py<PyAny>,
    /// Its iterator; none when the server sends a file in its place.
    pub iterator: Option<Py<PyIterator>>,
    /// The application may call it again (with `exc_info`), and `write`, as long as the body is not over.
    pub start: Py<StartResponse>,
    pub line: Line,
}

/// Method and path of a request, should something have to be logged.
pub(crate) struct Line(Box<[u8]>);

impl Line {
    pub fn of(request: Request<'_>) -> Self {
        Self([request.method(), request.path()].join(&b' ').into())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}
