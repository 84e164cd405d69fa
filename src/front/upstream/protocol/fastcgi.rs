//! FastCGI 1.0 (the specification of Open Market, 29 April 1996) in the role of the web server: records out and in, without a socket. Each
//! connection has one request at a time, whose number is always the same.

use preforkd_http::{Fault, Response};

use super::cgi::Answer;
use super::said::Said;

const VERSION: u8 = 1;
/// The number of every request.
const REQUEST: u16 = 1;
/// The most bytes of a record's content.
const MOST: usize = 0xffff;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

const RESPONDER: u16 = 1;
const KEEP_CONN: u8 = 1;

/// The head of a record of ours, without padding.
fn header(kind: u8, length: u16) -> [u8; 8] {
    let ([id0, id1], [length0, length1]) = (REQUEST.to_be_bytes(), length.to_be_bytes());
    [VERSION, kind, id0, id1, length0, length1, 0, 0]
}

/// The head of a record with so many bytes of the request's body; without any it ends the body.
pub fn stdin(length: u16) -> [u8; 8] {
    header(STDIN, length)
}

/// Appends one variable to `pairs` (section 3.4).
pub fn pair(pairs: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length @ 0..=127) => pairs.push(length),
            _ => {
                // No text of a request is that long: its head has a limit.
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX) | 1 << 31;
                pairs.extend_from_slice(&length.to_be_bytes());
            }
        }
    }
    pairs.extend_from_slice(name);
    pairs.extend_from_slice(value);
}

/// Appends the beginning of a request with these variables. Its body follows, in records that begin with [`stdin`].
pub fn begin(out: &mut Vec<u8>, pairs: &[u8], keep: bool) {
    let [role0, role1] = RESPONDER.to_be_bytes();
    let flags = if keep { KEEP_CONN } else { 0 };
    out.extend_from_slice(&header(BEGIN_REQUEST, 8));
    out.extend_from_slice(&[role0, role1, flags, 0, 0, 0, 0, 0]);
    // A variable may lie in two records.
    for part in pairs.chunks(MOST) {
        out.extend_from_slice(&header(PARAMS, part.len() as u16));
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&header(PARAMS, 0));
}

/// What lies in the bytes of an upstream.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Stdout(&'a [u8]),
    /// The application writes nothing more.
    StdoutEnd,
    Stderr(&'a [u8]),
    /// The request has ended (section 5.5).
    End,
    /// Nothing yet.
    Nothing,
}

/// Takes records apart. Split at any byte, the parts say the same.
#[derive(Debug, Default)]
struct Records {
    header: [u8; 8],
    /// Bytes of the header that are there.
    have: usize,
    content: usize,
    padding: usize,
    /// The body of END_REQUEST.
    end: Vec<u8>,
}

impl Records {
    /// Takes bytes from the front of `bytes`: how many, and what they are.
    fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Part<'a>), Fault> {
        if self.have < self.header.len() {
            let n = bytes.len().min(self.header.len() - self.have);
            self.header[self.have..][..n].copy_from_slice(&bytes[..n]);
            self.have += n;
            if self.have == self.header.len() {
                self.begin()?;
            }
            let part = match self.header {
                [_, STDOUT, _, _, 0, 0, ..] if self.have == self.header.len() => Part::StdoutEnd,
                _ => Part::Nothing,
            };
            self.close();
            return Ok((n, part));
        }
        if self.content > 0 {
            let n = bytes.len().min(self.content);
            self.content -= n;
            let content = &bytes[..n];
            let part = match self.header[1] {
                STDOUT => Part::Stdout(content),
                STDERR => Part::Stderr(content),
                _ => {
                    self.end.extend_from_slice(content);
                    Part::Nothing
                }
            };
            return self.closed(n, part);
        }
        let n = bytes.len().min(self.padding);
        self.padding -= n;
        self.closed(n, Part::Nothing)
    }

    /// A header is there.
    fn begin(&mut self) -> Result<(), Fault> {
        let [version, kind, id0, id1, length0, length1, padding, _] = self.header;
        if version != VERSION {
            return Err(Fault::new("it does not speak FastCGI 1"));
        }
        if u16::from_be_bytes([id0, id1]) != REQUEST {
            return Err(Fault::new("a record of FastCGI is for another request"));
        }
        self.content = u16::from_be_bytes([length0, length1]).into();
        self.padding = padding.into();
        match kind {
            STDOUT | STDERR => Ok(()),
            END_REQUEST if self.content == 8 => Ok(()),
            END_REQUEST => Err(Fault::new("the last record of FastCGI has a wrong length")),
            _ => Err(Fault::new("a record of FastCGI has an unexpected type")),
        }
    }

    /// Gives out a part, or the end of the request if the record is over that says so.
    fn closed<'a>(&mut self, n: usize, part: Part<'a>) -> Result<(usize, Part<'a>), Fault> {
        let is_over = self.content == 0 && self.padding == 0;
        let is_end = is_over && self.header[1] == END_REQUEST;
        self.close();
        if !is_end {
            return Ok((n, part));
        }
        match self.end.get(4) {
            Some(0) => Ok((n, Part::End)),
            Some(1) => Err(Fault::new("it takes one request at a time on a connection")),
            Some(2) => Err(Fault::new("it is overloaded, as it says")),
            _ => Err(Fault::new("it does not take the role of a responder")),
        }
    }

    /// Expects the next header if the record is over.
    fn close(&mut self) {
        if self.have == self.header.len() && self.content == 0 && self.padding == 0 {
            self.have = 0;
        }
    }
}

/// The response to one request.
#[derive(Debug)]
pub struct Reader {
    records: Records,
    answer: Answer,
    said: Said,
    begun: bool,
    stdout_ended: bool,
    ended: bool,
}

impl Reader {
    /// Of a request that is HEAD or not.
    pub fn new(head_only: bool) -> Self {
        Self {
            records: Records::default(),
            answer: Answer::new(head_only, false),
            said: Said::default(),
            begun: false,
            stdout_ended: false,
            ended: false,
        }
    }

    /// Whether a byte has come.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the connection can serve another request, if the upstream was asked to keep it.
    pub fn keeps_connection(&self) -> bool {
        self.ended && !self.answer.has_surplus()
    }

    /// What the application has written to its standard error since.
    pub fn said(&mut self) -> Vec<String> {
        self.said.lines()
    }

    /// Reads `bytes` into the response. How many belong to it, if it is complete.
    ///
    /// # Errors
    /// See [`Fault`]. Nothing more is read then.
    pub fn read(&mut self, bytes: &[u8], response: &mut Response) -> Result<Option<usize>, Fault> {
        self.begun |= !bytes.is_empty();
        let mut at = 0;
        while at < bytes.len() {
            let (n, part) = self.records.next(&bytes[at..])?;
            at += n;
            match part {
                Part::Stdout(_) if self.stdout_ended => {
                    return Err(Fault::new("it goes on after the end of the response"));
                }
                Part::Stdout(data) => self.answer.advance(data, response)?,
                Part::StdoutEnd => self.stdout_ended = true,
                Part::Stderr(text) => self.said.take(text),
                Part::End => {
                    self.said.end();
                    self.answer.end()?;
                    self.ended = true;
                    return Ok(Some(at));
                }
                Part::Nothing => {}
            }
        }
        Ok(None)
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// The response is not complete.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.said.end();
        match self.ended || self.stdout_ended || self.answer.is_whole() {
            true => self.answer.end(),
            false => Err(Fault::new(
                "it closed the connection before the end of the request",
            )),
        }
    }
}
