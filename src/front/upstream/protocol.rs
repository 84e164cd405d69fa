//! What upstreams speak. The one place that knows the protocols; everything else about a connection is the same for all.

use preforkd_http::{Expected, Fault, Incoming, Response, Step};

/// What has come of the bytes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is to come.
    More,
    /// It is complete; so many of the bytes belong to it.
    Done(usize),
    /// The head of a change to another protocol, and bytes after it. Everything that comes is passed on as it is.
    Switched,
}

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

    /// A response is expected.
    pub fn expect(&mut self, expected: Expected) {
        match self {
            Self::Http(incoming) => incoming.expect(expected),
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

    /// Reads `bytes` into the response. If the request has not arrived whole, the connection to the client ends with the response.
    pub fn read(
        &mut self,
        bytes: &[u8],
        response: &mut Response,
        is_whole: bool,
    ) -> Result<Progress, Fault> {
        let Self::Http(incoming) = self;
        let (mut at, mut progress) = (0, Progress::More);
        loop {
            let (n, step) = incoming.advance(&bytes[at..], |data| response.write(data))?;
            at += n;
            match step {
                Step::Interim => incoming.copy_interim(response)?,
                Step::Head => {
                    if !is_whole {
                        response.close();
                    }
                    incoming.copy_head(response)?;
                }
                Step::Switch => {
                    incoming.copy_switch(response)?;
                    progress = Progress::Switched;
                }
                Step::More => return Ok(progress),
                Step::Done => {
                    for (name, value) in incoming.trailers() {
                        response.trailer(name, value);
                    }
                    return Ok(Progress::Done(at));
                }
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
