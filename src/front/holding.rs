//! Requests that wait until it is known whether they are served. Their bodies are not read meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use preforkd_http::{Call, Note, Output, Rate, Response, Watch};

use crate::layers::auth::checking::Checking;
use crate::layers::gate::{Noted, Refusal, client};
use crate::sites::Sites;

/// The number of the socket of verdicts about passwords; upstreams count from 0.
pub const PASSWORDS: u32 = u32::MAX - 1;

/// The requests that wait.
#[derive(Debug)]
pub struct Holding {
    /// Those that wait for the response to another one.
    collapsed: BTreeMap<u64, (Response, Note)>,
    /// None if no site asks for passwords.
    checking: Option<Checking>,
    held: BTreeMap<u64, (Response, Note)>,
    outputs: VecDeque<(u64, Output)>,
    complaints: Rate,
}

impl Holding {
    /// None of these sites.
    ///
    /// # Errors
    /// There are no descriptors; the whole message.
    pub fn new(sites: &Sites) -> Result<Self, String> {
        let checking = sites.ask().then(Checking::new).transpose();
        Ok(Self {
            checking: checking
                .map_err(|error: io::Error| format!("could not make a pair of sockets: {error}"))?,
            collapsed: BTreeMap::new(),
            held: BTreeMap::new(),
            outputs: VecDeque::new(),
            complaints: Rate::new(5, 10_000_000_000),
        })
    }

    /// The server begins.
    pub fn begin(&mut self, watch: &Watch) {
        if let Some(checking) = &self.checking
            && let Err(error) = watch.add(checking.socket(), PASSWORDS, false)
        {
            log::error!("could not watch for verdicts about passwords: {error}; nobody can log in");
        }
    }

    /// Has a password compared before the request is answered, if one is to be. Gives the response back if it is to be answered now.
    pub fn hold(&mut self, call: &Call<'_>, response: Response) -> Option<Response> {
        let note = call.request.facts().and_then(|facts| facts.note.clone());
        let job = Noted::of(call.request).and_then(Noted::next_job);
        let (Some(note), Some(job), Some(checking)) = (note, job, &mut self.checking) else {
            return Some(response);
        };
        let client = client(call.request, call.origin);
        if checking.ask(call.key, &job, client).is_ok() {
            self.held.insert(call.key, (response, note));
            return None;
        }
        if let Some(left_out) = self.complaints.take(call.now) {
            log::warn!("too many passwords wait to be compared; answering 503{left_out}");
        }
        if let Some(noted) = Noted::of(call.request) {
            noted.refuse(Refusal::busy());
        }
        Some(response)
    }

    /// Takes verdicts about passwords. The requests that have waited for them go their way.
    pub fn take_verdicts(&mut self, sites: &Sites, now: u64) {
        let Some(checking) = &mut self.checking else {
            return;
        };
        while let Some((key, is_right, tickets)) = checking.take() {
            if is_right {
                sites.known().add(key, now);
            }
            for ticket in tickets {
                let Some((response, note)) = self.held.remove(&ticket) else {
                    continue;
                };
                if let Some(noted) = note.get::<Noted>() {
                    noted.compared(is_right);
                }
                self.outputs.push_back((ticket, Output::Again(response)));
            }
        }
    }

    /// The request waits for the response to another one.
    pub fn collapse(&mut self, key: u64, response: Response, note: Note) {
        self.collapsed.insert(key, (response, note));
    }

    /// A request goes its way that has waited for the response to another one. Whether it may wait for one again.
    pub fn release(&mut self, key: u64, may_wait: bool) {
        let Some((response, note)) = self.collapsed.remove(&key) else {
            return;
        };
        if let Some(noted) = note.get::<Noted>().filter(|_| !may_wait) {
            noted.waits_no_more();
        }
        self.outputs.push_back((key, Output::Begins));
        self.outputs.push_back((key, Output::Again(response)));
    }

    /// The client of a request has left; its response, if it waits here.
    pub fn left(&mut self, key: u64) -> Option<Response> {
        if let Some((response, _)) = self.collapsed.remove(&key) {
            return Some(response);
        }
        let (response, _) = self.held.remove(&key)?;
        if let Some(checking) = &mut self.checking {
            checking.left(key);
        }
        Some(response)
    }

    /// Whether there is something to give out.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// See [`preforkd_http::Service::output`].
    pub fn output(&mut self) -> Option<(u64, Output)> {
        self.outputs.pop_front()
    }
}
