//! Why requests are refused, for the operator: one line a second at most, as anybody can cause refusals.

use super::client::Client;
use crate::layer::access_log::escape::shown;
use crate::message::request::Request;
use crate::proto::reject::Reject;
use crate::serve::timers::Instant;

/// The time between two lines, in nanoseconds.
const PAUSE: Instant = 1_000_000_000;
/// The most bytes of a request line that are shown.
const LINE: usize = 200;

/// When the next line may come.
#[derive(Default)]
pub(super) struct Refusals {
    next: Instant,
    /// Refusals since the last line.
    more: u64,
}

impl Refusals {
    /// Says why the request that is there or arriving is refused.
    pub fn tell(&mut self, now: Instant, client: &Client, reject: Reject) {
        // Other failures of the server are told where they happen.
        if !reject.is_of_client() {
            return;
        }
        if now < self.next {
            self.more += 1;
            return;
        }
        self.next = now + PAUSE;
        let line = line(client, reject, std::mem::take(&mut self.more));
        match reject.raise {
            Some(_) => log::warn!("{line}"),
            // Nothing on this side can be changed about it.
            None => log::info!("{line}"),
        }
    }
}

fn line(client: &Client, reject: Reject, more: u64) -> String {
    let connection = &client.connection;
    let facts = connection.understood().as_ref().and_then(Request::facts);
    let peer = client.link.origin.peer.map(|peer| peer.ip());
    let from = match facts.and_then(|facts| facts.client).or(peer) {
        Some(address) => address.to_canonical().to_string(),
        None => "a client on a Unix socket".to_owned(),
    };
    let request = match connection.line() {
        [] => String::new(),
        line => format!(": \"{}\"", shown(line, LINE)),
    };
    let advice = match reject.raise {
        Some(key) => format!(" (raise `{key}` if such requests are to be served)"),
        None => String::new(),
    };
    let more = match more {
        0 => String::new(),
        more => format!("; {more} more since the last line about a refusal"),
    };
    let Reject { status, why, .. } = reject;
    format!("refused a request of {from}{request}: {status} {why}{advice}{more}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::limits::Limits;
    use crate::message::request::Origin;
    use crate::proto::h1::connection::{Connection, Event};
    use crate::serve::client::Link;

    fn refused(input: &[u8], peer: Option<&str>) -> (Client, Reject) {
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
        };
        let (socket, _) = UnixStream::pair().unwrap();
        let client = Client {
            connection: Box::new(connection),
            link: Box::new(Link::new(socket.into(), origin)),
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
                "refused a request of 203.0.113.7: \"\\x16\\x03\\x01\\xFF\": 400 malformed request line",
            ),
            (
                b"GET / HTTP/1.1\r\n\r\n",
                None,
                "refused a request of a client on a Unix socket: \"GET / HTTP/1.1\": 400 no Host",
            ),
        ] {
            let (client, reject) = refused(input, peer);
            assert_eq!(line(&client, reject, 0), expected);
        }
        let (client, reject) = refused(format!("GET /{}", "a".repeat(300)).as_bytes(), None);
        let line = line(&client, reject, 3);
        assert!(
            line.contains("414") && line.contains("`max_head`"),
            "{line}"
        );
        assert!(
            line.ends_with("; 3 more since the last line about a refusal"),
            "{line}"
        );
    }

    #[test]
    fn there_is_one_line_a_second_and_the_next_one_counts_the_others() {
        let (client, reject) = refused(b"\0", None);
        let mut refusals = Refusals::default();
        for (now, more) in [
            (5, 0),
            (6, 1),
            (PAUSE + 4, 2),
            (PAUSE + 5, 0),
            (2 * PAUSE, 1),
        ] {
            refusals.tell(now, &client, reject);
            assert_eq!(refusals.more, more, "{now}");
        }
    }
}
