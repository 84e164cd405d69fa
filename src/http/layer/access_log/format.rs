//! A format that was compiled: what is the same in all lines is text, and each value has its limit, so that a line fits into one write.

use std::io::Write as _;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use preforkd_worker::access_format::{Field, Format, Piece, Style};

use super::escape::{Escape, Value};
use super::{Ended, LINE, Worker};
use crate::message::date;
use crate::message::facts::Note;
use crate::message::request::Request;

/// The longest credentials that are looked at, in bytes of base64.
const CREDENTIALS: usize = 512;
/// The longest name of an app, in bytes.
const APP: usize = 40;

enum Part {
    Text(Box<[u8]>),
    Value(Field, usize),
}

/// A compiled format.
pub(super) struct Compiled {
    parts: Vec<Part>,
    style: Style,
    needs: Needs,
}

/// The request fields that are looked for.
#[derive(Default)]
struct Needs {
    referer: bool,
    agent: bool,
    authorization: bool,
    host: bool,
}

/// Those that were found.
#[derive(Default)]
struct Found<'a> {
    referer: Option<&'a [u8]>,
    agent: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
}

impl Compiled {
    pub fn new(format: Format, worker: &Worker) -> Self {
        let style = format.style;
        let parts: Vec<Part> = format
            .pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text) => Part::Text(text.into_bytes().into()),
                Piece::Field(field) => match worker.constant(field, style) {
                    Some(text) => Part::Text(text.into_bytes().into()),
                    None => Part::Value(field, 0),
                },
            })
            .collect();
        let mut compiled = Self {
            needs: Needs::of(&parts),
            parts,
            style,
        };
        compiled.set_limits();
        compiled
    }

    /// Divides the room of a line among the values that a client determines.
    fn set_limits(&mut self) {
        let mut room = LINE - 1;
        let mut shares = 0;
        for part in &self.parts {
            match part {
                Part::Text(text) => room = room.saturating_sub(text.len()),
                Part::Value(field, _) => match share(*field) {
                    Err(length) => room = room.saturating_sub(length),
                    Ok(share) => shares += share,
                },
            }
        }
        for part in &mut self.parts {
            if let Part::Value(field, most) = part
                && let Ok(share) = share(*field)
            {
                *most = room * share / shares;
            }
        }
    }

    /// Writes a line and its end.
    pub fn write(&self, out: &mut Vec<u8>, entry: &Ended<'_>) {
        let found = match &entry.request {
            Some(request) => self.needs.find(request),
            None => Found::default(),
        };
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Value(field, most) => self.value(out, *field, *most, entry, &found),
            }
        }
        out.push(b'\n');
    }

    fn value(
        &self,
        out: &mut Vec<u8>,
        field: Field,
        most: usize,
        entry: &Ended<'_>,
        found: &Found<'_>,
    ) {
        let request = entry.request.as_ref();
        match field {
            Field::Client => self.client(out, entry),
            Field::Time => time(out),
            Field::TimeIso => {
                let now = humantime::format_rfc3339_millis(SystemTime::now());
                // Writing to memory cannot fail, here and below.
                let _ = match self.style {
                    Style::Json => write!(out, "\"{now}\""),
                    Style::Combined | Style::Text => write!(out, "{now}"),
                };
            }
            Field::Status => drop(write!(out, "{}", entry.status)),
            Field::Bytes => drop(write!(out, "{}", entry.bytes)),
            Field::TimeTaken => self.seconds(out, entry.microseconds),
            Field::TimeWaited => self.seconds(out, entry.waited),
            Field::Request => match request {
                Some(request) => {
                    let mut value = self.begin(out, most);
                    value.add(request.method());
                    value.add(b" ");
                    value.add(request.target());
                    value.add(b" ");
                    value.add(protocol(request));
                    value.end();
                }
                None => self.known(out, entry.line, most),
            },
            Field::Method => self.known(out, request.map(Request::method), most),
            Field::Path => self.known(out, request.map(Request::path), most),
            Field::Query => {
                let query = request.map(Request::query);
                self.known(out, query.filter(|query| !query.is_empty()), most);
            }
            Field::Protocol => self.known(out, request.map(protocol), most),
            Field::Host => {
                let told = request
                    .and_then(Request::facts)
                    .and_then(|facts| facts.host.as_deref());
                let host = told.or(request.and_then(Request::authority)).or(found.host);
                self.known(out, host, most);
            }
            Field::Referer => self.known(out, found.referer, most),
            Field::Agent => self.known(out, found.agent, most),
            Field::User => {
                let note = request.and_then(Request::facts);
                let note = note.and_then(|facts| facts.note.as_ref());
                let mut room = [0; CREDENTIALS];
                let known = note.and_then(Note::user);
                let user = match (known, found.authorization) {
                    (None, Some(authorization)) => user(authorization, &mut room),
                    _ => known,
                };
                self.known(out, user, most);
            }
            Field::RequestId => {
                let facts = request.and_then(Request::facts);
                let id = facts.and_then(|facts| facts.request_id.as_deref());
                self.known(out, id.map(str::as_bytes), most);
            }
            // These are text by now.
            Field::App | Field::Worker | Field::Generation | Field::Pid => {}
        }
    }

    fn begin<'a>(&self, out: &'a mut Vec<u8>, most: usize) -> Value<'a> {
        Value::begin(out, escape(self.style), most)
    }

    /// A value, or that there is none.
    fn known(&self, out: &mut Vec<u8>, bytes: Option<&[u8]>, most: usize) {
        match bytes {
            Some(bytes) => {
                let mut value = self.begin(out, most);
                value.add(bytes);
                value.end();
            }
            None => out.extend_from_slice(match self.style {
                Style::Json => b"null",
                Style::Combined | Style::Text => b"-",
            }),
        }
    }

    fn client(&self, out: &mut Vec<u8>, entry: &Ended<'_>) {
        let facts = entry.request.as_ref().and_then(Request::facts);
        let told = facts.and_then(|facts| facts.client);
        match told.or(entry.origin.peer.map(|peer| peer.ip())) {
            // A listener for both families sees IPv4 clients as IPv6; a log that is searched wants one form.
            Some(client) => {
                let client = client.to_canonical();
                let _ = match self.style {
                    Style::Json => write!(out, "\"{client}\""),
                    Style::Combined | Style::Text => write!(out, "{client}"),
                };
            }
            None => self.known(out, None, 0),
        }
    }

    fn seconds(&self, out: &mut Vec<u8>, microseconds: u64) {
        let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
        let _ = match self.style {
            Style::Combined => write!(out, "{seconds}.{:03}", rest / 1000),
            Style::Text | Style::Json => write!(out, "{seconds}.{rest:06}"),
        };
    }
}

fn escape(style: Style) -> Escape {
    match style {
        Style::Json => Escape::Json,
        Style::Combined | Style::Text => Escape::Text,
    }
}

/// The share that the value of a field has of a line; of a value that no client determines, its greatest length instead.
fn share(field: Field) -> Result<usize, usize> {
    Ok(match field {
        Field::Request => 8,
        Field::Path | Field::Query => 6,
        Field::Referer | Field::Agent => 4,
        Field::Host | Field::User | Field::RequestId => 2,
        Field::Method | Field::Protocol => 1,
        Field::Client => return Err("\"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255\"".len()),
        Field::Time => return Err("23/Nov/2026:04:39:23 +0000".len()),
        Field::TimeIso => return Err("\"2026-11-23T04:39:23.000Z\"".len()),
        Field::Status => return Err(5),
        Field::Bytes => return Err(20),
        Field::TimeTaken | Field::TimeWaited => return Err(21),
        Field::App | Field::Worker | Field::Generation | Field::Pid => return Err(0),
    })
}

impl Worker {
    /// A value that is the same in all lines.
    fn constant(&self, field: Field, style: Style) -> Option<String> {
        Some(match field {
            Field::App => {
                let mut out = Vec::new();
                let mut value = Value::begin(&mut out, escape(style), APP);
                value.add(self.app.as_bytes());
                value.end();
                String::from_utf8_lossy(&out).into_owned()
            }
            Field::Worker => self.slot.to_string(),
            Field::Generation => self.generation.to_string(),
            Field::Pid => std::process::id().to_string(),
            _ => return None,
        })
    }
}

impl Needs {
    fn of(parts: &[Part]) -> Self {
        let mut needs = Self::default();
        for part in parts {
            match part {
                Part::Value(Field::Referer, _) => needs.referer = true,
                Part::Value(Field::Agent, _) => needs.agent = true,
                Part::Value(Field::User, _) => needs.authorization = true,
                Part::Value(Field::Host, _) => needs.host = true,
                _ => {}
            }
        }
        needs
    }

    /// The first field of each name.
    fn find<'a>(&self, request: &Request<'a>) -> Found<'a> {
        let mut found = Found::default();
        for (name, value) in request.fields() {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            let place = match name.len() {
                4 if self.host && is(b"host") => &mut found.host,
                7 if self.referer && is(b"referer") => &mut found.referer,
                10 if self.agent && is(b"user-agent") => &mut found.agent,
                13 if self.authorization && is(b"authorization") => &mut found.authorization,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        found
    }
}

fn protocol(request: &Request<'_>) -> &'static [u8] {
    request.protocol().as_bytes()
}

/// When the response ended, in the form of the combined format.
fn time(out: &mut Vec<u8>) {
    // An IMF-fixdate: "Mon, 23 Nov 2026 04:39:23 GMT".
    let date = date::now();
    for (part, after) in [(5..7, "/"), (8..11, "/"), (12..16, ":"), (17..25, " +0000")] {
        out.extend_from_slice(&date[part]);
        out.extend_from_slice(after.as_bytes());
    }
}

/// The user of basic authentication (RFC 7617 section 2).
fn user<'a>(authorization: &[u8], room: &'a mut [u8; CREDENTIALS]) -> Option<&'a [u8]> {
    let (scheme, credentials) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || credentials.len() > CREDENTIALS {
        return None;
    }
    let length = STANDARD
        .decode_slice(credentials.trim_ascii(), &mut room[..])
        .ok()?;
    let pair = &room[..length];
    let colon = memchr::memchr(b':', pair)?;
    Some(&pair[..colon]).filter(|user| !user.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::limits::Limits;
    use crate::message::request::Origin;
    use crate::proto::h1::connection::{Connection, Event};

    fn compiled(format: &str) -> Compiled {
        let worker = Worker {
            app: "shop".into(),
            slot: 3,
            generation: 7,
        };
        Compiled::new(Format::parse(format).expect(format), &worker)
    }

    fn ended<'a>(origin: &'a Origin, request: Option<Request<'a>>) -> Ended<'a> {
        Ended {
            origin,
            request,
            line: None,
            status: 404,
            bytes: 12,
            microseconds: 1_234_567,
            waited: 89,
        }
    }

    fn line_of(
        format: &str,
        peer: SocketAddr,
        head: &[u8],
        with: impl Fn(&mut Connection),
    ) -> String {
        let mut connection = Connection::new(Limits::default().into());
        connection.receive(head);
        assert!(matches!(connection.advance(), Event::Request));
        with(&mut connection);
        let origin = Origin {
            listener: 0,
            peer: Some(peer),
            relayed: None,
        };
        let mut out = Vec::new();
        compiled(format).write(&mut out, &ended(&origin, Some(connection.request())));
        let line = String::from_utf8(out).expect("UTF-8");
        assert!(line.len() <= LINE && line.matches('\n').count() == 1);
        line.trim_end().to_owned()
    }

    fn line(format: &str, head: &[u8]) -> String {
        line_of(format, ([203, 0, 113, 7], 5).into(), head, |_| {})
    }

    const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nhost: a.example\r\nUser-Agent: curl/8\r\nX: y\r\nuser-agent: z\r\nAuthorization: Basic bWU6c2VjcmV0\r\n\r\n";

    #[test]
    fn a_line_has_the_combined_form_and_the_time_taken() {
        let line = line("combined", HEAD);
        let (before, after) = line.split_once("] ").expect("a date");
        assert_eq!(after, "\"GET /a?b HTTP/1.1\" 404 12 \"-\" \"curl/8\" 1.234");
        let (peer, date) = before.split_once('[').expect("a date");
        assert_eq!(peer, "203.0.113.7 - me ");
        let form = |text: &str| Vec::from_iter(text.chars().map(|c| c.is_ascii_digit()));
        assert_eq!(form(&date[..2]), form("23"));
        assert_eq!(form(&date[7..]), form("2026:04:39:23 +0000"), "{date}");
    }

    #[test]
    fn each_field_has_its_value() {
        for (format, expected) in [
            ("{client} {status} {time_taken}", "203.0.113.7 404 1.234567"),
            ("{method}|{path}|{query}|{protocol}", "GET|/a|b|HTTP/1.1"),
            ("{{{host}}} {referer}", "{a.example} -"),
            ("{agent} {user} {request_id}", "curl/8 me -"),
            ("{bytes} {time_waited}", "12 0.000089"),
            ("{app}/{worker}/{generation}", "shop/3/7"),
        ] {
            assert_eq!(line(format, HEAD), expected);
        }
        let pid = std::process::id().to_string();
        assert_eq!(line("{pid}", HEAD), pid);
        let iso = line("{time_iso}", HEAD);
        let age = humantime::parse_rfc3339(&iso).expect(&iso).elapsed();
        assert!(age.unwrap_or_default().as_secs() < 60, "{iso}");
    }

    #[test]
    fn what_layers_have_said_stands_above_what_was_sent() {
        let line = line_of(
            "{client} {host} {request_id}",
            ([10, 0, 0, 1], 5).into(),
            HEAD,
            |connection| {
                let facts = connection.facts_mut();
                facts.client = Some(IpAddr::from([203, 0, 113, 9]));
                facts.host = Some(b"shop.example".as_slice().into());
                facts.request_id = Some("abc".into());
            },
        );
        assert_eq!(line, "203.0.113.9 shop.example abc");
    }

    #[test]
    fn a_client_of_ipv4_is_named_alike_whatever_listens() {
        for (peer, name) in [
            ("203.0.113.7:5", "203.0.113.7"),
            ("[::ffff:203.0.113.7]:5", "203.0.113.7"),
            ("[2001:db8::7]:5", "2001:db8::7"),
        ] {
            let line = line_of(
                "{client}",
                peer.parse().unwrap(),
                b"GET / HTTP/1.0\r\n\r\n",
                |_| {},
            );
            assert_eq!(line, name);
        }
    }

    #[test]
    fn json_has_a_value_or_null_for_each_name() {
        let text = line(
            "json",
            b"GET /\" HTTP/1.0\r\nUser-Agent: \xc3\xbca\\\"\xff\r\n\r\n",
        );
        let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
        for (name, expected) in [
            ("client", serde_json::json!("203.0.113.7")),
            ("user", serde_json::Value::Null),
            ("request", serde_json::json!("GET /\" HTTP/1.0")),
            ("method", serde_json::json!("GET")),
            ("agent", serde_json::json!("üa\\\"\\xFF")),
            ("status", serde_json::json!(404)),
            ("time_taken", serde_json::json!(1.234567)),
            ("time_waited", serde_json::json!(0.000089)),
            ("app", serde_json::json!("shop")),
            ("worker", serde_json::json!(3)),
            ("generation", serde_json::json!(7)),
        ] {
            assert_eq!(value[name], expected, "{name} in {text}");
        }
        let origin = Origin {
            listener: 0,
            peer: None,
            relayed: None,
        };
        let mut entry = ended(&origin, None);
        entry.line = Some(b"\x16\x03\x01\x00");
        let mut out = Vec::new();
        compiled("json").write(&mut out, &entry);
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value["request"], "\u{16}\u{3}\u{1}\0");
        assert!(value["client"].is_null() && value["method"].is_null());
    }

    #[test]
    fn a_client_cannot_forge_lines_or_fields() {
        let forged = line(
            "combined",
            b"GET /\"x HTTP/1.0\r\nUser-Agent: a\\\" \xe9\t\r\n\r\n",
        );
        let expected = "\"GET /\\x22x HTTP/1.0\" 404 12 \"-\" \"a\\x5C\\x22 \\xE9\" 1.234";
        assert!(forged.ends_with(expected), "{forged}");
    }

    #[test]
    fn the_longest_line_fits_into_one_write() {
        let long = "\"".repeat(5000);
        let head = format!(
            "GET /{long}?{long} HTTP/1.1\r\nHost: a\r\nUser-Agent: {long}\r\nReferer: {long}\r\n\r\n"
        );
        let most = "{request}{path}{query}{agent}{referer}".repeat(8);
        for format in [
            "combined",
            "json",
            &most,
            &format!("{}{}", "x".repeat(900), "{request}"),
        ] {
            let line = line(format, head.as_bytes());
            assert!(line.contains("..."), "{format}");
            if format == "json" {
                serde_json::from_str::<serde_json::Value>(&line).expect(&line);
            }
        }
    }

    #[test]
    fn the_user_is_that_of_basic_authentication() {
        for (authorization, expected) in [
            ("Basic bWU6c2VjcmV0", Some("me")),
            ("basic  bWU6c2VjcmV0 ", Some("me")),
            ("Basic bWU6", Some("me")),
            ("Basic bWU=", None),
            ("Basic OnNlY3JldA==", None),
            ("Basic !!!!", None),
            ("Basic", None),
            ("Bearer bWU6c2VjcmV0", None),
            (&format!("Basic {}", "bWU6".repeat(1000)), None),
        ] {
            let mut room = [0; CREDENTIALS];
            let found = user(authorization.as_bytes(), &mut room);
            assert_eq!(found, expected.map(str::as_bytes), "{authorization}");
        }
    }
}
