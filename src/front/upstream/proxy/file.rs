//! Responses that name a file to be sent in place of their body.

use preforkd_http::{Output, Sending};

use super::super::Instant;
use super::super::dispatch::Ticket;
use super::super::failure::Failure;
use super::Proxy;
use crate::layers::sendfile::shown;

impl Proxy {
    /// The head of such a response has come. What follows of its body is not waited for: some applications declare the length of the file and
    /// send nothing.
    pub(super) fn send_file(
        &mut self,
        token: u32,
        ticket: Ticket,
        left_over: Option<usize>,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(ticket) else {
            return;
        };
        if let Some(recording) = exchange.recording.take() {
            recording.sends_file();
        }
        let sending = Sending::take(&mut exchange.response);
        let found = match (&exchange.folders, sending) {
            (Some(folders), Some(sending)) => folders.find(sending),
            (None, Some(sending)) => Err(not_allowed(&sending)),
            (_, None) => Err("the head of the response is not complete".into()),
        };
        match found {
            Ok(named) => {
                if let Some(exchange) = self.put_away(token, ticket, left_over, now) {
                    let output = Output::File(exchange.response, named);
                    self.outputs.push_back((ticket, output));
                    self.keep_message(exchange.message);
                }
            }
            Err(why) => self.failed(token, Failure::File(why), now),
        }
    }
}

/// The words for the log.
fn not_allowed(sending: &Sending) -> String {
    let (field, path) = match sending {
        Sending::Location(path) => ("X-Accel-Redirect", path),
        Sending::Path(path) => ("X-Sendfile", path),
        Sending::Ambiguous => return "it names files in X-Accel-Redirect and X-Sendfile".into(),
    };
    let shown = shown(path);
    format!(
        "{field} names the file {shown}, but the site has no `sendfile` (add it, or have the application send its files itself)"
    )
}
