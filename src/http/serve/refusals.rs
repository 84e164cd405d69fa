//! Why requests are refused, for the operator: one line a second, and a few at once, as anybody can cause refusals. Those that a key
//! of the configuration has caused are counted apart, so that scanners do not hide them.

use std::net::IpAddr;

use super::client::Client;
use crate::layer::access_log::escape::shown;
use crate::message::request::{Origin, Request};
use crate::net::transport::Transport;
use crate::proto::reject::Reject;
use crate::rate::{LeftOut, Rate, SECOND};
use crate::serve::timers::Instant;

/// So many lines may come at once after a while without any, and then one a second.
const BURST: u64 = 5;
/// The most bytes of a request line that are shown.
const LINE: usize = 200;

/// What was said of refusals.
pub(super) struct Refusals {
    /// Because of a key.
    keys: Rate,
    /// For other reasons.
    others: Rate,
    /// Connections begin with a PROXY header.
    proxy_protocol: bool,
}

impl Refusals {
    pub fn new(proxy_protocol: bool) -> Self {
        let rate = || Rate::new(BURST, SECOND);
        Self {
            keys: rate(),
            others: rate(),
            proxy_protocol,
        }
    }

    /// Says why the request that is there or arriving is refused.
    pub fn tell(&mut self, now: Instant, client: &Client<impl Transport>, reject: Reject) {
        // Other failures of the server are told where they happen.
        if !reject.is_of_client() {
            return;
        }
        let rate = match reject.raise {
            Some(_) => &mut self.keys,
            None => &mut self.others,
        };
        let Some(left_out) = rate.take(now) else {
            return;
        };
        let line = line(client, reject, self.proxy_protocol, left_out);
        match reject.raise {
            Some(_) => log::warn!("{line}"),
            // Nothing on this side can be changed about it.
            None => log::info!("{line}"),
        }
    }

    /// Says why a connection is refused on which no request can come.
    #[cold]
    pub fn tell_of_connection(&mut self, now: Instant, origin: &Origin, why: &str) {
        if let Some(left_out) = self.others.take(now) {
            let from = name(origin.peer.map(|peer| peer.ip()));
            log::info!("refused a connection of {from}: {why}{left_out}");
        }
    }

    /// Counts those of which nothing was said, as soon as that may be.
    #[inline(always)]
    pub fn tell_rest(&mut self, now: Instant) {
        if self.keys.left_out() | self.others.left_out() > 0 {
            self.count(now);
        }
    }

    #[cold]
    fn count(&mut self, now: Instant) {
        for rate in [&mut self.keys, &mut self.others] {
            if rate.left_out() > 0
                && let Some(LeftOut(more)) = rate.is_free(now).then(|| rate.take(now)).flatten()
            {
                log::info!("refused {more} more requests since the last line about a refusal");
            }
        }
    }
}

fn line(
    client: &Client<impl Transport>,
    reject: Reject,
    proxy_protocol: bool,
    left_out: LeftOut,
) -> String {
    let connection = &client.connection;
    let facts = connection.understood().as_ref().and_then(Request::facts);
    let peer = client.link.origin.peer.map(|peer| peer.ip());
    let from = name(facts.and_then(|facts| facts.client).or(peer));
    let request = match connection.line() {
        [] => String::new(),
        line => format!(": \"{}\"", shown(line, LINE)),
    };
    let advice = match (reject.raise, connection.line()) {
        (Some(key), _) => format!(" (raise `{key}` if such requests are to be served)"),
        // A TLS record with a handshake: RFC 8446 section 5.1.
        (None, [0x16, 3, ..]) => " (the client speaks TLS, and plain HTTP is spoken here)".into(),
        (None, line) if line.starts_with(b"PROXY ") && proxy_protocol => {
            " (a PROXY header was there before, and only one is read)".into()
        }
        (None, line) if line.starts_with(b"PROXY ") => {
            " (a proxy sends the PROXY protocol: set `proxy_protocol` to true)".into()
        }
        _ => String::new(),
    };
    let Reject { status, why, .. } = reject;
    format!("refused a request of {from}{request}: {status} {why}{advice}{left_out}")
}

fn name(address: Option<IpAddr>) -> String {
    match address {
        Some(address) => address.to_canonical().to_string(),
        None => "a client on a Unix socket".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::limits::Limits;
    use crate::net::plain::Plain;
    use crate::proto::h1::connection::{Connection, Event};
    use crate::serve::client::Link;

    fn refused(input: &[u8], peer: Option<&str>) -> (Client<Plain>, Reject) {
        let limits = Limits {
            max_head: 100,
            max_body: 10,
            ..Limits::default()
        };
        let mut connection = Connection::new(Arc::new(limits));
        connection.receive(input);
        let Event::Reject(reject) = connection.advance() else {
            panic!("not refused")
        };
        let origin = Origin {
            listener: 0,
            peer: peer.map(|peer| peer.parse().unwrap()),
            relayed: None,
        };
        let (socket, _) = UnixStream::pair().unwrap();
        let client = Client {
            connection: Box::new(connection),
            link: Box::new(Link::new(Plain::over(socket.into(), false), origin)),
        };
        (client, reject)
    }

    #[test]
    fn the_line_names_client_request_reason_and_key() {
        for (input, peer, expected) in [
            (
                &b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n"[..],
                Some("203.0.113.7:5"),
                "refused a request of 203.0.113.7: \"POST /up HTTP/1.1\": 413 request body too large (raise `max_body` if such requests are to be served)",
            ),
            (
                b"\x16\x03\x01\xff",
                Some("[::ffff:203.0.113.7]:5"),
                "refused a request of 203.0.113.7: \"\\x16\\x03\\x01\\xFF\": 400 malformed request line (the client speaks TLS, and plain HTTP is spoken here)",
            ),
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                None,
                "refused a request of a client on a Unix socket: \"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\": 400 malformed request line (a proxy sends the PROXY protocol: set `proxy_protocol` to true)",
            ),
            (
                b"GET / HTTP/1.1\r\n\r\n",
                None,
                "refused a request of a client on a Unix socket: \"GET / HTTP/1.1\": 400 no Host",
            ),
        ] {
            let (client, reject) = refused(input, peer);
            assert_eq!(line(&client, reject, false, LeftOut(0)), expected);
            let with_headers = expected.replace(
                "(a proxy sends the PROXY protocol: set `proxy_protocol` to true)",
                "(a PROXY header was there before, and only one is read)",
            );
            assert_eq!(line(&client, reject, true, LeftOut(0)), with_headers);
        }
        let (client, reject) = refused(format!("GET /{}", "a".repeat(300)).as_bytes(), None);
        let line = line(&client, reject, false, LeftOut(3));
        assert!(
            line.contains("414") && line.contains("`max_head`"),
            "{line}"
        );
        assert!(
            line.ends_with("; 3 more since the last such line"),
            "{line}"
        );
    }

    #[test]
    fn a_few_lines_come_at_once_and_then_one_a_second_which_counts_the_others() {
        let (client, reject) = refused(b"\0", None);
        let mut refusals = Refusals::new(false);
        for _ in 0..BURST {
            refusals.tell(SECOND, &client, reject);
            assert_eq!(refusals.others.left_out(), 0);
        }
        for (now, more) in [
            (SECOND, 1),
            (2 * SECOND - 1, 2),
            (2 * SECOND, 0),
            (2 * SECOND, 1),
        ] {
            refusals.tell(now, &client, reject);
            assert_eq!(refusals.others.left_out(), more, "{now}");
        }
        // Of another kind.
        let (client, reject) = refused(&[b'a'; 200], None);
        refusals.tell(2 * SECOND, &client, reject);
        assert_eq!(
            (refusals.keys.left_out(), refusals.others.left_out()),
            (0, 1)
        );
        refusals.tell_rest(3 * SECOND - 1);
        assert_eq!(refusals.others.left_out(), 1);
        refusals.tell_rest(3 * SECOND);
        assert_eq!(refusals.others.left_out(), 0);
        assert!(!refusals.others.is_free(3 * SECOND));
    }
}
