//! Why requests are refused, for the operator: one line a second, and a few at once, as anybody can cause refusals. Those that a key
//! of the configuration has caused are counted apart, so that scanners do not hide them.

use super::client::Client;
use crate::layer::access_log::escape::shown;
use crate::message::request::Request;
use crate::proto::reject::Reject;
use crate::serve::timers::Instant;

/// The time in which one more line may come, in nanoseconds.
const PAUSE: Instant = 1_000_000_000;
/// So many lines may come at once after a while without any.
const BURST: Instant = 5;
/// The most bytes of a request line that are shown.
const LINE: usize = 200;

/// What was said of refusals.
#[derive(Default)]
pub(super) struct Refusals {
    /// Because of a key.
    keys: Rate,
    /// For other reasons.
    others: Rate,
}

/// How many lines may come.
#[derive(Default)]
struct Rate {
    /// When all that was said would have been due, at one line for each [`PAUSE`].
    due: Instant,
    /// Refusals of which nothing was said.
    more: u64,
}

impl Refusals {
    /// Says why the request that is there or arriving is refused.
    pub fn tell(&mut self, now: Instant, client: &Client, reject: Reject) {
        // Other failures of the server are told where they happen.
        if !reject.is_of_client() {
            return;
        }
        let rate = match reject.raise {
            Some(_) => &mut self.keys,
            None => &mut self.others,
        };
        if !rate.take(now) {
            return;
        }
        let line = line(client, reject, std::mem::take(&mut rate.more));
        match reject.raise {
            Some(_) => log::warn!("{line}"),
            // Nothing on this side can be changed about it.
            None => log::info!("{line}"),
        }
    }

    /// Counts those of which nothing was said, as soon as that may be.
    #[inline(always)]
    pub fn tell_rest(&mut self, now: Instant) {
        if self.keys.more | self.others.more > 0 {
            self.count(now);
        }
    }

    #[cold]
    fn count(&mut self, now: Instant) {
        for rate in [&mut self.keys, &mut self.others] {
            if rate.more > 0 && rate.may_speak(now) {
                rate.take(now);
                let more = std::mem::take(&mut rate.more);
                log::info!("refused {more} more requests since the last line about a refusal");
            }
        }
    }
}

impl Rate {
    fn may_speak(&self, now: Instant) -> bool {
        self.due <= now + (BURST - 1) * PAUSE
    }

    /// Whether a line may come; if not, it is counted.
    fn take(&mut self, now: Instant) -> bool {
        if !self.may_speak(now) {
            self.more += 1;
            return false;
        }
        self.due = self.due.max(now) + PAUSE;
        true
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
            relayed: None,
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
    fn a_few_lines_come_at_once_and_then_one_a_second_which_counts_the_others() {
        let (client, reject) = refused(b"\0", None);
        let mut refusals = Refusals::default();
        for _ in 0..BURST {
            refusals.tell(PAUSE, &client, reject);
            assert_eq!(refusals.others.more, 0);
        }
        for (now, more) in [
            (PAUSE, 1),
            (2 * PAUSE - 1, 2),
            (2 * PAUSE, 0),
            (2 * PAUSE, 1),
        ] {
            refusals.tell(now, &client, reject);
            assert_eq!(refusals.others.more, more, "{now}");
        }
        // Of another kind.
        let (client, reject) = refused(&[b'a'; 200], None);
        refusals.tell(2 * PAUSE, &client, reject);
        assert_eq!((refusals.keys.more, refusals.others.more), (0, 1));
        refusals.tell_rest(3 * PAUSE - 1);
        assert_eq!(refusals.others.more, 1);
        refusals.tell_rest(3 * PAUSE);
        assert_eq!(refusals.others.more, 0);
        assert!(!refusals.others.may_speak(3 * PAUSE));
    }
}
