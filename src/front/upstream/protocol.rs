//! What upstreams speak. The one place that knows the protocols; everything else about a connection is the same for all.

use preforkd_http::{Fault, Incoming, Response, Step};

/// Reads the responses of one connection.
#[derive(Debug)]
pub(super) enum Reader {
    /// HTTP/1.1 and HTTP/1.0.
    Http(Incoming),
}

impl Reader {
    pub fn http() -> Self {
        Self::Http(Incoming::default())
    }

    /// A response is expected, to HEAD or to another method.
    pub fn expect(&mut self, head_only: bool) {
        match self {
            Self::Http(incoming) => incoming.expect(head_only),
        }
    }

    /// Whether a byte of the response has come.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Http(incoming) => incoming.has_begun(),
        }
    }

    /// Whether another request may follow the response.
    pub fn keeps_connection(&self) -> bool {
        match self {
            Self::Http(incoming) => incoming.keeps_connection(),
        }
    }

    /// Reads `bytes` into the response. How many belong to it, if it is complete.
    pub fn read(&mut self, bytes: &[u8], response: &mut Response) -> Result<Option<usize>, Fault> {
        let Self::Http(incoming) = self;
        let mut at = 0;
        loop {
            let (n, step) = incoming.advance(&bytes[at..], |data| response.write(data))?;
            at += n;
            match step {
                Step::Head => incoming.copy_head(response)?,
                Step::More => return Ok(None),
                Step::Done => return Ok(Some(at)),
            }
        }
    }

    /// The connection has ended.
    pub fn end(&mut self) -> Result<(), Fault> {
        match self {
            Self::Http(incoming) => incoming.end(),
        }
    }
}
