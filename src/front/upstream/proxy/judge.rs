//! Answers to the question whether a request may pass.

use std::sync::Arc;

use preforkd_http::{Note, Output};

use super::super::Instant;
use super::super::dispatch::Ticket;
use super::super::failure::Failure;
use super::super::protocol::Progress;
use super::Proxy;
use crate::layers::forward::{Asked, Verdict, verdict};
use crate::layers::gate::Noted;

/// What is asked of a request, and what was noted of that.
#[derive(Debug)]
pub(super) struct Judge {
    note: Note,
    asked: Arc<Asked>,
}

impl Judge {
    pub fn new(note: &Note, asked: &Arc<Asked>) -> Self {
        Self {
            note: note.clone(),
            asked: asked.clone(),
        }
    }
}

impl Proxy {
    /// The head of an answer has come, and these bytes after it.
    pub(super) fn judge(&mut self, token: u32, ticket: Ticket, rest: &[u8], now: Instant) {
        let (Some(connection), Some(exchange)) =
            (self.connections.get(token), self.exchanges.get(ticket))
        else {
            return;
        };
        let Some(judge) = exchange.judge.take() else {
            return;
        };
        let response = &mut exchange.response;
        let status = response.head().status();
        match verdict(status) {
            _ if connection.reader.sends_file() => {
                let why = "it names a file in its answer to forward_auth".into();
                self.failed(token, Failure::Verdict(why), now);
            }
            Verdict::Passes => {
                if let Some(user) = judge.asked.user(response.head()) {
                    judge.note.set_user(user);
                }
                if let Some(noted) = judge.note.get::<Noted>() {
                    noted.questions.passes(&judge.asked, response.head());
                }
                response.discard();
                // Nobody wants its body.
                let left_over = match connection.reader.read(rest, response, true) {
                    Ok(Progress::Done(taken)) => Some(rest.len() - taken),
                    _ => None,
                };
                if let Some(exchange) = self.put_away(token, ticket, left_over, now) {
                    let output = Output::Again(exchange.response);
                    self.outputs.push_back((ticket, output));
                    self.keep_message(exchange.message);
                }
            }
            Verdict::Refused => {
                response.finish(None);
                self.take_in(token, ticket, rest, now);
            }
            Verdict::Unclear => {
                let why = format!(
                    "it answered forward_auth with status {status} (2xx lets a request pass; 401, 403 and 3xx refuse it)"
                );
                self.failed(token, Failure::Verdict(why), now);
            }
        }
    }
}
