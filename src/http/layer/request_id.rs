//! A name for each request, so that log lines of proxy, server and application about the same request can be found:
//! that of a trusted proxy, else a new one. The application gets it, and the response has it.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Arrived, Layer, Stages};
use crate::message::facts::Facts;
use crate::message::head::Head;
use crate::proto::reject::Reject;
use crate::serve::timers::now;

const FIELD: &[u8] = b"X-Request-ID";
/// The longest name that is taken from a proxy, in bytes.
const MOST: usize = 128;
/// Bytes of a new name, which nobody can guess.
const BYTES: usize = 16;
/// Random bytes that are taken from the kernel at a time, so that few requests cost a system call.
const STOCK: usize = 256 * BYTES;

/// The names as a layer. Only the loop's thread makes them, so nothing ever waits for the lock.
pub(super) struct RequestId(Mutex<Stock>);

impl RequestId {
    pub fn layer() -> Arc<dyn Layer> {
        Arc::new(Self(Mutex::new(Stock::default())))
    }
}

impl Layer for RequestId {
    fn stages(&self) -> Stages {
        Stages {
            request: true,
            response: true,
            ..Stages::default()
        }
    }

    fn request(&self, arrived: &mut Arrived<'_>) -> Option<Reject> {
        let is_trusted = arrived.facts().trusted;
        let given = arrived.request().field(b"x-request-id");
        let id = match given.filter(|_| is_trusted).and_then(valid) {
            Some(id) => id.into(),
            None => self.0.lock().unwrap_or_else(PoisonError::into_inner).next(),
        };
        arrived.remove_fields(|name| name.eq_ignore_ascii_case(FIELD));
        arrived.facts().request_id = Some(id);
        None
    }

    fn response(&self, facts: &Facts, head: &mut Head) {
        if let Some(id) = &facts.request_id {
            // It is visible ASCII.
            let _ = head.set(FIELD, id.as_bytes());
        }
    }
}

/// A name that can stand in a log line and a field as it is.
fn valid(id: &[u8]) -> Option<&str> {
    let is_valid = (1..=MOST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    str::from_utf8(id).ok().filter(|_| is_valid)
}

/// Random bytes that were not used yet.
#[derive(Default)]
struct Stock(Vec<u8>);

impl Stock {
    /// A new name: hexadecimal digits.
    fn next(&mut self) -> Box<str> {
        if self.0.len() < BYTES {
            self.fill();
        }
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let from = self.0.len() - BYTES;
        let id: String = self
            .0
            .drain(from..)
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(DIGITS[usize::from(digit)]))
            .collect();
        id.into()
    }

    fn fill(&mut self) {
        self.0.resize(STOCK, 0);
        let mut filled = 0;
        while filled < STOCK {
            match getrandom(&mut self.0[filled..], GetRandomFlags::empty()) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    log::error!(
                        "could not get random numbers: {error}; requests have names that can be guessed"
                    );
                    for chunk in self.0[filled..].chunks_mut(BYTES / 2) {
                        let time = now() ^ u64::from(std::process::id()).rotate_left(32);
                        chunk.copy_from_slice(&time.to_le_bytes()[..chunk.len()]);
                    }
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::limits::Limits;
    use crate::message::request::Origin;
    use crate::proto::h1::connection::{Connection, Event};

    /// What the layer makes of a request: its name, and whether the field is gone.
    fn named(field: &str, trusted: bool) -> (String, bool) {
        let mut connection = Connection::new(Limits::default().into());
        connection.receive(format!("GET / HTTP/1.0\r\n{field}\r\n").as_bytes());
        assert!(matches!(connection.advance(), Event::Request));
        connection.facts_mut().trusted = trusted;
        let origin = Origin {
            listener: 0,
            peer: None,
            relayed: None,
        };
        let mut arrived = Arrived {
            connection: &mut connection,
            origin: &origin,
        };
        assert_eq!(RequestId::layer().request(&mut arrived), None);
        let is_gone = arrived.request().field(b"x-request-id").is_none();
        let id = arrived.facts().request_id.clone().expect("it has a name");
        (id.into(), is_gone)
    }

    #[test]
    fn a_trusted_proxy_names_its_requests() {
        let long = "a".repeat(128);
        for id in [
            "a",
            "0af7651916cd43dd8448eb211c80319c",
            "a,b;c=\"~\"",
            &long,
        ] {
            let given = named(&format!("x-request-id: {id}\r\n"), true);
            assert_eq!(given, (id.to_owned(), true));
        }
    }

    #[test]
    fn others_get_new_names() {
        let is_new = |id: &str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let long = format!("X-Request-ID: {}\r\n", "a".repeat(129));
        for (field, trusted) in [
            ("X-Request-ID: a\r\n", false),
            ("", true),
            ("X-Request-ID: \r\n", true),
            ("X-Request-ID: a b\r\n", true),
            ("X-Request-ID: \u{e4}\r\n", true),
            (&long, true),
        ] {
            let (id, is_gone) = named(field, trusted);
            assert!(is_new(&id) && is_gone, "{field} {id}");
        }
    }

    #[test]
    fn no_name_comes_twice() {
        let mut stock = Stock::default();
        let names: BTreeSet<_> = (0..1000).map(|_| stock.next()).collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn the_response_has_the_name_whatever_the_application_says() {
        let mut head = Head::default();
        head.begin(b"200 OK").unwrap();
        head.add(b"x-request-id", b"mine").unwrap();
        let facts = Facts {
            request_id: Some("abc".into()),
            ..Facts::default()
        };
        RequestId::layer().response(&facts, &mut head);
        assert_eq!(
            Vec::from_iter(head.fields()),
            [(&b"X-Request-ID"[..], &b"abc"[..])]
        );
    }
}
