//! What is wrong with a request, and the answer it gets.

use crate::message::response::{Response, phrase};

/// A request that is not served. The connection is closed after the answer and nothing more is parsed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// Status code of the answer (RFC 9110 section 15).
    pub status: u16,
    /// What is wrong, in words that the client may read.
    pub why: &'static str,
    /// The key of the configuration whose value it exceeds.
    pub(crate) raise: Option<&'static str>,
    /// The method was HEAD.
    pub(crate) head_only: bool,
}

impl Reject {
    /// 400: malformed or ambiguous.
    pub(crate) const fn bad(why: &'static str) -> Self {
        Self::with(400, why)
    }

    /// This status, and what is wrong in words that the client may read.
    pub const fn with(status: u16, why: &'static str) -> Self {
        Self {
            status,
            why,
            raise: None,
            head_only: false,
        }
    }

    /// The same, because of the value of this key.
    pub(crate) const fn because_of(self, key: &'static str) -> Self {
        Self {
            raise: Some(key),
            ..self
        }
    }

    /// Whether the request is at fault, and not the server: also where the server does not know a version or coding.
    pub(crate) fn is_of_client(self) -> bool {
        self.status < 500 || matches!(self.status, 501 | 505)
    }

    /// The same, in answer to a request whose bytes begin like this.
    pub(crate) fn to(self, request: &[u8]) -> Self {
        Self {
            head_only: request.starts_with(b"HEAD "),
            ..self
        }
    }

    /// Appends the whole answer to `out`; without a body where the method was HEAD (RFC 9110 section 9.3.2).
    pub fn answer(self, out: &mut Vec<u8>) {
        let mut response = self.response();
        response.give_out(std::mem::take(out));
        self.write(&mut response);
        *out = response.take_out();
    }

    /// The response that [`Reject::write`] completes.
    pub(crate) fn response(self) -> Response {
        Response::new(true, self.head_only, false)
    }

    /// Writes the answer.
    pub(crate) fn write(self, response: &mut Response) {
        let Self { status, why, .. } = self;
        response.fail(status, &format!("{status} {}: {why}\n", phrase(status)));
    }
}
