//! What upstreams speak. The one place that knows the protocols; everything else about a connection is the same for all.
//!
//! A request becomes a message (`write`) and the body that follows it ([`Upload`]); `Reader` makes a response of what comes back.

use std::sync::Arc;

use preforkd_http::{
    Body, Expected, Fault, Incoming, Note, Origin, Outgoing, Request, Response, Step, write_request,
};

use crate::h2::client;
use crate::layers::forward::Asked;
use crate::layers::sendfile::Folders;

mod cgi;
#[cfg(any(test, fuzzing))]
pub mod drive;
mod fastcgi;
mod said;
mod scgi;
mod upload;
mod uwsgi;
mod variables;

pub use preforkd_worker::front::Protocol;
pub use upload::Upload;
pub use variables::Script;

/// How a request is passed on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passing<'a> {
    /// How it is changed on the way.
    pub outgoing: Outgoing<'a>,
    /// The file that answers, for an interpreter of files.
    pub script: Option<&'a Script>,
    /// The folders of which the response may name files.
    pub folders: Option<&'a Arc<Folders>>,
    /// It is the question whether the request may pass that this was noted of.
    pub asked: Option<(&'a Note, &'a Arc<Asked>)>,
}

impl<'a> From<Outgoing<'a>> for Passing<'a> {
    fn from(outgoing: Outgoing<'a>) -> Self {
        Self {
            outgoing,
            ..Self::default()
        }
    }
}

/// Why a request cannot be said in a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The protocol has a limit that the head exceeds.
    TooLong,
    /// A NUL in the decoded path would end it.
    Nul,
    /// The protocol has no form for the host or the target.
    NoForm,
}

impl Refused {
    /// The answer.
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Self::TooLong => (431, "431 Request Header Fields Too Large\n"),
            Self::Nul | Self::NoForm => (400, "400 Bad Request\n"),
        }
    }
}

/// Whether a request is a call of gRPC, to an upstream that answers such.
pub(super) fn is_call(protocol: Protocol, request: Request<'_>) -> bool {
    protocol.is_framed() && request.field(b"content-type").is_some_and(client::is_grpc)
}

/// Appends a request to `out`. Its body follows as an [`Upload`]. With `keep` the upstream should keep the connection.
///
/// # Errors
/// It cannot be said in this protocol.
pub(super) fn write(
    protocol: Protocol,
    out: &mut Vec<u8>,
    request: Request<'_>,
    origin: &Origin,
    passing: Passing<'_>,
    keep: bool,
) -> Result<(), Refused> {
    let Passing {
        outgoing, script, ..
    } = passing;
    let pair = match protocol {
        Protocol::Http => {
            write_request(out, request, origin, outgoing);
            return Ok(());
        }
        Protocol::H2c => {
            write_request(out, request, origin, outgoing);
            return match client::can_say(out) {
                true => Ok(()),
                false => Err(Refused::NoForm),
            };
        }
        Protocol::FastCgi => fastcgi::pair,
        Protocol::Scgi => scgi::pair,
        Protocol::Uwsgi => uwsgi::pair,
    };
    let mut variables = Vec::with_capacity(1024);
    let mut has_nul = false;
    variables::each(request, origin, outgoing, script, |name, value| {
        has_nul |= value.contains(&0);
        pair(&mut variables, name, value);
    });
    if has_nul {
        return Err(Refused::Nul);
    }
    match protocol {
        Protocol::Http | Protocol::H2c | Protocol::FastCgi => fastcgi::begin(out, &variables, keep),
        Protocol::Scgi => scgi::begin(out, &variables, request.body_length().unwrap_or(0)),
        Protocol::Uwsgi => uwsgi::begin(out, &variables)?,
    }
    Ok(())
}

/// The body of a request as the protocol sends it.
pub(super) fn upload(protocol: Protocol, body: Body, length: u64) -> Upload {
    match protocol {
        Protocol::FastCgi => Upload::records(body, length),
        Protocol::Http | Protocol::H2c | Protocol::Scgi | Protocol::Uwsgi => {
            Upload::plain(body, length)
        }
    }
}

/// What has come of the bytes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is to come.
    More,
    /// It is complete; so many of the bytes belong to it.
    Done(usize),
    /// The head is there, is not finished, and is to be looked at. So many bytes were taken.
    Judged(usize),
    /// The head of a change to another protocol, and bytes after it. Everything that comes is passed on as it is.
    Switched,
}

/// Reads the responses of one connection.
#[derive(Debug)]
pub(super) enum Reader {
    /// HTTP, and what is like it or was made like it.
    Http(Incoming),
    FastCgi(Box<fastcgi::Reader>),
    Scgi(Box<scgi::Reader>),
}

impl Reader {
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http | Protocol::H2c | Protocol::Uwsgi => Self::Http(Incoming::default()),
            Protocol::FastCgi => Self::FastCgi(Box::new(fastcgi::Reader::new(false))),
            Protocol::Scgi => Self::Scgi(Box::new(scgi::Reader::new(false))),
        }
    }

    /// A response is expected.
    pub fn expect(&mut self, expected: Expected) {
        match self {
            Self::Http(incoming) => incoming.expect(expected),
            Self::FastCgi(reader) => **reader = fastcgi::Reader::new(expected.head_only),
            Self::Scgi(reader) => **reader = scgi::Reader::new(expected.head_only),
        }
    }

    /// Whether a byte of the response has come.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Http(incoming) => incoming.has_begun(),
            Self::FastCgi(reader) => reader.has_begun(),
            Self::Scgi(reader) => reader.has_begun(),
        }
    }

    /// Whether the head that is there names a file to be sent in place of the body.
    pub fn sends_file(&self) -> bool {
        matches!(self, Self::Http(incoming) if incoming.sends_file())
    }

    /// Whether another request may follow the response.
    pub fn keeps_connection(&self) -> bool {
        match self {
            Self::Http(incoming) => incoming.keeps_connection(),
            Self::FastCgi(reader) => reader.keeps_connection(),
            // The end of the connection is that of the response.
            Self::Scgi(_) => false,
        }
    }

    /// What the application has written for the log since it was asked last.
    pub fn said(&mut self) -> Vec<String> {
        match self {
            Self::FastCgi(reader) => reader.said(),
            Self::Http(_) | Self::Scgi(_) => Vec::new(),
        }
    }

    /// Reads `bytes` into the response. A head that names a file to be sent in place of the body is not finished, and the body is dropped. If the request has not arrived whole, the connection to the client ends with the response.
    pub fn read(
        &mut self,
        bytes: &[u8],
        response: &mut Response,
        is_whole: bool,
    ) -> Result<Progress, Fault> {
        let incoming = match self {
            Self::Http(incoming) => incoming,
            Self::FastCgi(reader) => {
                let read = reader.read(bytes, response)?;
                return Ok(read.map_or(Progress::More, Progress::Done));
            }
            Self::Scgi(reader) => return reader.read(bytes, response).map(|()| Progress::More),
        };
        let (mut at, mut progress) = (0, Progress::More);
        loop {
            let is_dropped = incoming.sends_file() || incoming.is_judged() && !response.started();
            let (n, step) = incoming.advance(&bytes[at..], |data| {
                if !is_dropped {
                    response.write(data);
                }
            })?;
            at += n;
            match step {
                Step::Interim => incoming.copy_interim(response)?,
                Step::Head => {
                    if !is_whole {
                        response.close();
                    }
                    incoming.copy_head(response)?;
                    if incoming.is_judged() {
                        return Ok(Progress::Judged(at));
                    }
                }
                Step::Switch => {
                    incoming.copy_switch(response)?;
                    progress = Progress::Switched;
                }
                Step::More => return Ok(progress),
                Step::Done if is_dropped => return Ok(Progress::Done(at)),
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
            Self::FastCgi(reader) => reader.end(),
            Self::Scgi(reader) => reader.end(),
        }
    }
}

/// Reads a whole message, as it has come from an upstream, into another response. Its trailers follow if they may.
///
/// # Errors
/// It is not whole.
pub fn replay(
    protocol: Protocol,
    message: &[u8],
    trailers: bool,
    response: &mut Response,
) -> Result<(), Fault> {
    let mut reader = Reader::new(protocol);
    reader.expect(Expected {
        head_only: false,
        upgrade: false,
        trailers,
        judged: false,
    });
    match reader.read(message, response, true)? {
        Progress::Done(_) => Ok(()),
        Progress::More | Progress::Switched | Progress::Judged(_) => reader.end(),
    }
}

#[cfg(test)]
mod tests;
