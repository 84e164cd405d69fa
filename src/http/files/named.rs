//! Files that applications name in place of the body of a response: `X-Accel-Redirect` and `X-Sendfile`.
//!
//! What an application says here is data: often a part of it was chosen by a client. So a name never leads out of its folder, as with the
//! names of static files.

use std::io;

use rustix::io::Errno;

use super::Files;
use super::answer::{Found, What};
use super::lookup::{Miss, is_local};
use crate::exchange::Part;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::serve::timers::Instant;

/// Fields of the application that speak of the body that it has not sent. They follow from the file instead.
const OF_BODY: [&[u8]; 6] = [
    b"content-length",
    b"content-encoding",
    b"content-range",
    b"accept-ranges",
    b"etag",
    b"last-modified",
];

const LOCATION: &[u8] = b"x-accel-redirect";
const PATH: &[u8] = b"x-sendfile";

/// Whether a field of this name asks for a file to be sent.
pub fn sends_file(name: &[u8]) -> bool {
    [LOCATION, PATH]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}

/// What a response names in place of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sending {
    /// A path as in a URL (`X-Accel-Redirect`).
    Location(Vec<u8>),
    /// A path of the file system (`X-Sendfile`).
    Path(Vec<u8>),
    /// More than one.
    Ambiguous,
}

impl Sending {
    /// Takes it out of a response whose head was begun and not finished, together with the fields that speak of the body. None if it names
    /// nothing.
    pub fn take(response: &mut Response) -> Option<Self> {
        if response.started() {
            return None;
        }
        let head = response.head_mut();
        let mut named = head.fields().filter(|(name, _)| sends_file(name));
        let (name, value) = named.next()?;
        let sending = match named.next() {
            Some(_) => Self::Ambiguous,
            None if name.eq_ignore_ascii_case(PATH) => Self::Path(value.to_vec()),
            None => Self::Location(value.to_vec()),
        };
        drop(named);
        for name in [LOCATION, PATH].iter().chain(&OF_BODY) {
            head.remove(name);
        }
        Some(sending)
    }
}

/// A file of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The number of the mapping.
    pub mapping: usize,
    /// The names below its folder that are meant, decoded; the first one that is there counts.
    pub names: Vec<Vec<u8>>,
}

impl Files {
    /// Answers with the file that an application has named. The fields of the response, whose head was begun, stay.
    pub(crate) fn send(
        &mut self,
        named: &NamedFile,
        request: Request<'_>,
        response: Response,
        now: Instant,
    ) -> (Response, Option<Part>) {
        Found(self.named(named, now)).answer(request, response)
    }

    fn named(&mut self, named: &NamedFile, now: Instant) -> What {
        let number = named.mapping;
        if number >= self.mappings.len() {
            return What::Nothing(404);
        }
        let mut miss = Miss::Nothing;
        for name in named.names.iter().filter(|name| is_local(name)) {
            self.name.clear();
            self.name.extend_from_slice(name);
            miss = match self.kept(number, now) {
                Ok(kept) => return What::File(kept, self.mappings[number].fields.clone()),
                Err(miss) => miss,
            };
            if !matches!(miss, Miss::Nothing | Miss::Folder) {
                break;
            }
        }
        let name = named.names.first().map(Vec::as_slice).unwrap_or_default();
        let path = self.mappings[number].path_of(name, "");
        let missing = io::Error::from(Errno::NOENT);
        let (error, status, consequence) = match &miss {
            Miss::Nothing | Miss::Folder => (&missing, 404, "answering 404"),
            Miss::Outside(place) => {
                let consequence = "answering 404";
                self.complaints.note_link(now, &path, place, consequence);
                return What::Nothing(404);
            }
            Miss::Denied(error) => (error, 403, "answering 403"),
            Miss::Failed(error) => (error, 500, "answering 500"),
        };
        self.complaints.note_named(now, &path, error, consequence);
        What::Nothing(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(&str, &str)]) -> Response {
        let mut response = Response::new(true, false, true);
        response.begin(b"200 OK").unwrap();
        for (name, value) in fields {
            response.field(name.as_bytes(), value.as_bytes()).unwrap();
        }
        response
    }

    #[test]
    fn a_head_names_one_file_and_the_field_is_gone() {
        for (fields, expected) in [
            (&[("X-A", "1")][..], None),
            (
                &[("x-accel-redirect", "/a")],
                Some(Sending::Location(b"/a".into())),
            ),
            (&[("X-SendFile", "/a")], Some(Sending::Path(b"/a".into()))),
            (
                &[("X-Sendfile", "/a"), ("X-Accel-Redirect", "/a")],
                Some(Sending::Ambiguous),
            ),
            (
                &[("X-Sendfile", "/a"), ("x-sendfile", "/b")],
                Some(Sending::Ambiguous),
            ),
        ] {
            let mut response = response(fields);
            assert_eq!(Sending::take(&mut response), expected, "{fields:?}");
            assert_eq!(Sending::take(&mut response), None);
        }
        let mut response = response(&[
            ("Content-Length", "5"),
            ("ETag", "\"x\""),
            ("X-Sendfile", "/a"),
            ("Set-Cookie", "a"),
            ("Content-Encoding", "gzip"),
        ]);
        assert!(Sending::take(&mut response).is_some());
        let head = response.head_mut();
        let left: Vec<_> = head.fields().collect();
        assert_eq!(left, [(&b"Set-Cookie"[..], &b"a"[..])]);
        assert_eq!(head.content_length(), None);
    }
}
