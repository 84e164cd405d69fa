//! Method and path of a request, should something have to be logged.

use std::fmt;

use preforkd_http::Request;

/// Shows itself in printable ASCII.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a>(pub Request<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, path) = (self.0.method(), self.0.path());
        write!(f, "{} {}", method.escape_ascii(), path.escape_ascii())
    }
}
