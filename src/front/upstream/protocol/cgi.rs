//! The response of a program with a CGI-like interface (RFC 3875 section 6): bytes in, a head and a body out. FastCGI wraps it into
//! records, SCGI sends it as it is.

use preforkd_http::{Fault, MOST_FIELDS, Response, is_hop_by_hop, sends_file};

/// The most bytes of the head.
const MAX_HEAD: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of the body are missing, if its length is known.
    Body(Option<u64>),
    Failed(Fault),
}

/// A response that arrives.
#[derive(Debug)]
pub struct Answer {
    state: State,
    head: Vec<u8>,
    /// Where the line begins that arrives.
    line: usize,
    /// It may begin with the status line of HTTP, as some programs do that speak SCGI.
    may_be_http: bool,
    /// No body follows, whatever the head says of it.
    head_only: bool,
    has_surplus: bool,
}

impl Answer {
    /// One whose request was HEAD or not.
    pub fn new(head_only: bool, may_be_http: bool) -> Self {
        Self {
            state: State::Head,
            head: Vec::new(),
            line: 0,
            may_be_http,
            head_only,
            has_surplus: false,
        }
    }

    /// Whether more came than `Content-Length` says.
    pub fn has_surplus(&self) -> bool {
        self.has_surplus
    }

    /// Takes bytes in, and writes what they say into the response.
    ///
    /// # Errors
    /// The head is malformed or too long. Nothing more is taken.
    pub fn advance(&mut self, bytes: &[u8], response: &mut Response) -> Result<(), Fault> {
        let result = self.take(bytes, response);
        if let Err(fault) = result {
            self.state = State::Failed(fault);
        }
        result
    }

    fn take(&mut self, mut bytes: &[u8], response: &mut Response) -> Result<(), Fault> {
        while self.state == State::Head {
            let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
                return self.append(bytes);
            };
            let (line, rest) = bytes.split_at(end + 1);
            self.append(line)?;
            bytes = rest;
            let line = &self.head[self.line..];
            if matches!(line, b"\n" | b"\r\n") {
                let body = parse(&self.head[..self.line], self.may_be_http, response)?;
                self.state = State::Body(if self.head_only { None } else { body });
                self.head = Vec::new();
            } else {
                self.line = self.head.len();
            }
        }
        match &mut self.state {
            State::Body(Some(left)) => {
                let length = bytes.len() as u64;
                self.has_surplus |= length > *left;
                *left = left.saturating_sub(length);
                write(bytes, response);
                Ok(())
            }
            State::Body(None) => {
                write(bytes, response);
                Ok(())
            }
            State::Failed(fault) => Err(*fault),
            State::Head => Ok(()),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.head.len() + bytes.len() > MAX_HEAD {
            return Err(Fault::new("the head of the response is too long"));
        }
        self.head.extend_from_slice(bytes);
        Ok(())
    }

    /// The program says that it has ended, or has closed the connection.
    ///
    /// # Errors
    /// The response is not complete.
    pub fn end(&self) -> Result<(), Fault> {
        match self.state {
            State::Head if self.head.is_empty() => Err(Fault::new("it ended without a response")),
            State::Head => Err(Fault::new("it ended within the head of the response")),
            State::Body(Some(1..)) => Err(Fault::new(
                "the response is shorter than its Content-Length",
            )),
            State::Body(_) => Ok(()),
            State::Failed(fault) => Err(fault),
        }
    }

    /// Whether all bytes have come that `Content-Length` speaks of.
    pub fn is_whole(&self) -> bool {
        self.state == State::Body(Some(0))
    }
}

/// A body whose head names a file in its place is dropped.
fn write(bytes: &[u8], response: &mut Response) {
    if response.started() {
        response.write(bytes);
    }
}

/// Writes a head into the response; one that names a file to be sent is not finished. The length of the body, if it says one.
fn parse(head: &[u8], may_be_http: bool, response: &mut Response) -> Result<Option<u64>, Fault> {
    let lines = head.split(|&b| b == b'\n');
    let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut status = None;
    if may_be_http && head.starts_with(b"HTTP/1.") {
        let line = lines.next().unwrap_or_default();
        let (version, rest) = line.split_at_checked(9).unwrap_or_default();
        if !matches!(version, b"HTTP/1.0 " | b"HTTP/1.1 ") {
            return Err(Fault::new("the status line is malformed"));
        }
        status = Some(rest);
    }
    let (mut length, mut location, mut number_of_fields) = (None, None, 0);
    let (mut fields, mut is_file) = (Vec::new(), false);
    for line in lines.filter(|line| !line.is_empty()) {
        number_of_fields += 1;
        if number_of_fields > MOST_FIELDS {
            return Err(Fault::new("the response has too many header fields"));
        }
        let colon = line.iter().position(|&b| b == b':');
        let colon = colon.ok_or(Fault::new("a line of the head has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(b"status") {
            if status.replace(value).is_some() {
                return Err(Fault::new("there is more than one status"));
            }
            continue;
        }
        if is(b"content-length") {
            let digits = str::from_utf8(value).unwrap_or_default();
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse::<u64>().ok().filter(|_| is_number);
            let number = number.ok_or(Fault::new("Content-Length is not a number"))?;
            if length.replace(number).is_some() {
                return Err(Fault::new("there is more than one Content-Length"));
            }
        }
        if is(b"transfer-encoding") {
            return Err(Fault::new("Transfer-Encoding in a response of CGI"));
        }
        if is(b"location") {
            location = Some(value);
        }
        is_file |= sends_file(name);
        // What a script says of a connection is not about ours.
        if !is_hop_by_hop(name) {
            fields.push((name, value));
        }
    }
    if number_of_fields == 0 && status.is_none() {
        return Err(Fault::new("the head of the response is empty"));
    }
    // RFC 3875 section 6.2.3. A path (section 6.2.2) is for the client too: it asks for it, and gets what we would have answered.
    let usual: &[u8] = match location {
        Some(_) => b"302 Found",
        None => b"200 OK",
    };
    let status = status.unwrap_or(usual);
    let begun = response.begin(status);
    begun.map_err(|_| Fault::new("the status is not three digits and a reason"))?;
    for (name, value) in fields {
        let added = response.field(name, value);
        added.map_err(|_| Fault::new("the response has an invalid header field"))?;
    }
    // RFC 9110 sections 15.3.5 and 15.4.5: such a response has no body, whatever length it names.
    let has_body = !matches!(response_code(status), Some(204 | 304));
    if !is_file {
        response.finish(None);
    }
    Ok(length.filter(|_| has_body))
}

fn response_code(status: &[u8]) -> Option<u16> {
    str::from_utf8(status.get(..3)?).ok()?.parse().ok()
}
