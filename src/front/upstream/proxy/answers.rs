//! What the client gets when an upstream gives no response, and what the log says of it.

use std::io::{self, Read};

use preforkd_http::{Output, Response};

use super::super::Instant;
use super::super::address::Address;
use super::super::dispatch::{Change, Place, Ticket};
use super::super::failure::Failure;
use super::super::protocol::Upload;
use super::{KEPT_MESSAGE, KEPT_MESSAGES, Proxy, Upstream};

/// Appends a body of `length` bytes.
pub(super) fn append(message: &mut Vec<u8>, body: &mut Upload, length: u64) -> io::Result<()> {
    match body.take(length).read_to_end(message)? as u64 == length {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Answers with the failure, or breaks the response off, and logs it.
pub(super) fn fail(
    of: &mut Upstream,
    place: Option<Place>,
    failure: &Failure,
    response: &mut Response,
    now: Instant,
) {
    if let Some(left_out) = of.complaints.take(now) {
        let mut spots = of.spots.iter();
        let spot = spots.find(|spot| Some(spot.place) == place);
        let line = complaint(
            &of.settings.name,
            spot.map(|spot| &spot.address),
            failure,
            response.started(),
        );
        log::error!("{line}{left_out}");
    }
    let status = failure.status();
    let text = match failure {
        Failure::NotRunning | Failure::NobodyLeft => NOT_RUNNING,
        Failure::QueueTimeout if of.spots.is_empty() => NOT_READY,
        _ => text(status),
    };
    response.fail(status, text);
}

/// The words for the log.
fn complaint(name: &str, address: Option<&Address>, failure: &Failure, started: bool) -> String {
    let address = address.map(|address| format!(" address={address}"));
    let address = address.unwrap_or_default();
    match started {
        false => format!(
            "could not get a response: {name}{address}: {failure}; answering {}",
            failure.status()
        ),
        true => format!(
            "could not get the rest of a response: {name}{address}: {failure}; breaking it off"
        ),
    }
}

const NOT_RUNNING: &str = "503 Service Unavailable: the application is not running\n";
const NOT_READY: &str = "503 Service Unavailable: the application is not ready; try again later\n";

/// What the client may know of it.
fn text(status: u16) -> &'static str {
    match status {
        502 => "502 Bad Gateway: the application gave no valid response\n",
        503 => "503 Service Unavailable: too much is being done; try again later\n",
        504 => "504 Gateway Timeout: the application did not respond in time\n",
        _ => "500 Internal Server Error\n",
    }
}

/// Logs what an application has written beside its response.
pub(super) fn log_said(of: &Upstream, lines: &[String]) {
    for line in lines {
        log::warn!(
            "{}: written to the standard error of FastCGI: {line}",
            of.settings.name
        );
    }
}

/// Logs that an address is left alone, or is not any more.
pub(super) fn note(of: &Upstream, place: Place, change: Change) {
    let name = &of.settings.name;
    let Some(spot) = of.spots.iter().find(|spot| spot.place == place) else {
        return;
    };
    let address = &spot.address;
    match change {
        Change::Same => {}
        Change::Away => {
            let (fails, pause) = (
                of.settings.limits.health.max_fails,
                of.settings.limits.health.pause,
            );
            log::warn!(
                "{name} address={address} failed {fails} times in a row; sending it no requests for {pause:?} as long as there are other \
                 addresses"
            );
        }
        Change::Back => log::info!("{name} address={address} responds again"),
    }
}

impl Proxy {
    /// Answers a request with the failure.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        place: Option<Place>,
        failure: &Failure,
        now: Instant,
    ) {
        if let Some(mut exchange) = self.exchanges.remove(ticket) {
            self.held -= exchange.waiting;
            if !exchange.is_whole() {
                exchange.response.close();
            }
            let of = &mut self.upstreams[exchange.upstream];
            fail(of, place, failure, &mut exchange.response, now);
            self.finish(ticket, exchange.response, exchange.message);
        }
    }

    /// Gives out a response that has ended.
    pub(super) fn finish(&mut self, ticket: Ticket, response: Response, message: Vec<u8>) {
        self.outputs.push_back((ticket, Output::Done(response)));
        self.keep_message(message);
    }

    /// Keeps the memory of a message for the next one.
    pub(super) fn keep_message(&mut self, mut message: Vec<u8>) {
        if message.capacity() <= KEPT_MESSAGE && self.messages.len() < KEPT_MESSAGES {
            message.clear();
            self.messages.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_who_where_what_and_what_follows() {
        let address = Address::Unix("/run/web.sock".into());
        assert_eq!(
            complaint("app=web", Some(&address), &Failure::NoAnswer, false),
            "could not get a response: app=web address=unix:/run/web.sock: it closed the connection without a response; answering 502"
        );
        assert_eq!(
            complaint("app=web", None, &Failure::QueueFull, false),
            "could not get a response: app=web: too many requests wait for it; answering 503"
        );
        assert_eq!(
            complaint("app=web", None, &Failure::NotRunning, false),
            "could not get a response: app=web: it is not running; answering 503"
        );
        let error = io::Error::from_raw_os_error(104);
        assert_eq!(
            complaint("app=web", Some(&address), &Failure::Lost(error), true),
            "could not get the rest of a response: app=web address=unix:/run/web.sock: the connection broke: Connection reset by peer \
             (os error 104); breaking it off"
        );
    }
}
