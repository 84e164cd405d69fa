//! Responses that are kept in memory and given to others: RFC 9111.
//!
//! What a response says (`terms`, by its `directives`) decides, never its name: a response without a time of its own is not stored. What could
//! give one user the response of another is not stored either: responses that set a cookie, and those to requests with credentials, a certificate,
//! or a user that a layer has found. A response is stored as it came from the upstream and read anew for each client, so the layers see it as if the
//! application had answered. While one is being fetched, others wait for it (`fetches`). The responses of a front worker are its own (`store`); what
//! was purged, all of them see ([`preforkd_worker::purges`]).

use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use preforkd_http::{Call, Head, Request, Response, is_unmodified};
use preforkd_worker::purges::{Purges, Seen};

use self::asked::Asked;
use self::fetches::{Arrival, End, Fetches, Fetching, Released};
use self::store::{Found, Store, Stored};
use self::terms::Terms;
use crate::upstream::Instant;
use crate::upstream::protocol::{Protocol, replay};

pub use self::fetches::PATIENCE;

pub mod asked;
mod directives;
mod fetches;
mod store;
mod terms;

/// Fields of a response that 304 repeats (RFC 9110 section 15.4.5), and by which clients ask.
const FIELDS: [&[u8]; 7] = [
    b"etag",
    b"last-modified",
    b"cache-control",
    b"content-location",
    b"date",
    b"expires",
    b"vary",
];

/// Names and values of fields.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The cache of one worker.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    fetches: Fetches,
    purges: Purges,
}

/// What the cache has to do with a request.
#[derive(Debug)]
pub enum Look {
    /// This answers it.
    Has(Arc<Stored>),
    /// Nothing that it has; the response is recorded.
    Records(Box<Recording>),
    /// Nothing yet: another request is about to get a response that may answer it, too. It comes again, at this time at the latest.
    Waits(Instant),
    /// Nothing.
    Aside,
}

/// What the head of a response says, as soon as it has come.
#[derive(Debug)]
pub struct Verdict {
    has_cookie: bool,
    /// The fields that the front sets in requests, in lower case.
    set: Vec<Vec<u8>>,
    said: OnceLock<Said>,
}

/// What the head of a response has said.
#[derive(Debug)]
enum Said {
    /// It may be stored.
    Stores(Terms, Fields),
    /// It is for one client only.
    Apart,
    /// It speaks of a failure, which the next one may not.
    Failed,
}

/// A response while it comes.
#[derive(Debug)]
pub struct Recording {
    asked: Asked,
    seen: Seen,
    verdict: Arc<Verdict>,
    protocol: Protocol,
    message: Vec<u8>,
    most: usize,
    came: u64,
    /// Others get the stale response as long as this is there.
    _asks: Option<Arc<()>>,
    /// Others wait for the response.
    fetching: Option<Fetching>,
    has_told: bool,
}

impl Cache {
    /// With so many bytes.
    pub fn new(size: usize, purges: Purges) -> Self {
        Self {
            store: Store::new(size),
            fetches: Fetches::default(),
            purges,
        }
    }

    /// Looks for a response to a request of the site with this number and name, whose upstream speaks this protocol. It may wait `until` then. `set`
    /// tells the names of the fields that the front sets in its head, in lower case.
    pub fn look(
        &mut self,
        call: &Call<'_>,
        site: (usize, &str),
        protocol: Protocol,
        until: Instant,
        set: impl FnOnce() -> Vec<Vec<u8>>,
    ) -> Look {
        let Some(asked) = Asked::of(call.request, call.origin, site) else {
            return Look::Aside;
        };
        let now = call.now;
        let seen = self.purges.look(asked.places);
        let asks = match self.store.find(&asked, seen, now) {
            Found::Fresh(stored) | Found::Stale(stored) => return Look::Has(stored),
            Found::Nothing(_) if !asked.stores => return Look::Aside,
            Found::Nothing(asks) => asks,
        };
        let fetching = match asks {
            // Others get what is stale.
            Some(_) => None,
            None => match self.fetches.arrive(call.key, &asked, seen, until, now) {
                Arrival::Waits(until) => return Look::Waits(until),
                Arrival::Fetches(fetching) => Some(fetching),
                Arrival::Alone => None,
            },
        };
        let verdict = Arc::new(Verdict {
            has_cookie: asked.field(b"cookie").is_some(),
            set: set(),
            said: OnceLock::new(),
        });
        Look::Records(Box::new(Recording {
            asked,
            seen,
            verdict,
            protocol,
            message: Vec::new(),
            most: self.store.most_each(),
            came: now,
            _asks: asks,
            fetching,
            has_told: false,
        }))
    }

    /// Stores a response that was recorded whole.
    pub fn keep(&mut self, mut recording: Recording, now: Instant) {
        let fetching = recording.fetching.take();
        let Some(Said::Stores(terms, fields)) = recording.verdict.said.get() else {
            return;
        };
        self.fetches.stored(&recording.asked, terms, now);
        let value = |name: &Vec<u8>| recording.asked.field(name).map(<[u8]>::to_vec);
        let stored = Stored {
            message: recording.message,
            protocol: recording.protocol,
            values: terms.vary.iter().map(value).collect(),
            terms: terms.clone(),
            fields: fields.clone(),
            came: recording.came,
            seen: recording.seen,
        };
        self.store.store(&recording.asked, stored);
        if let Some(fetching) = fetching {
            fetching.ends(End::Stored);
        }
    }

    /// The client of a request that waits has left.
    pub fn left(&mut self, ticket: u64) {
        self.fetches.left(ticket);
    }

    /// Those that need not wait any more, and come again.
    pub fn released(&mut self, now: Instant) -> Vec<Released> {
        self.fetches.released(now)
    }

    /// When to ask for those that need not wait any more.
    pub fn deadline(&self) -> Instant {
        self.fetches.deadline()
    }
}

impl Verdict {
    /// Judges the head of the response, before anything was changed in it.
    pub fn judge(&self, head: &Head) {
        let judge = || {
            let terms = Terms::of(head, self.has_cookie, SystemTime::now());
            let is_set = |terms: &Terms| terms.vary.iter().any(|name| self.set.contains(name));
            let terms = match terms.filter(|terms| !is_set(terms)) {
                Some(terms) => terms,
                None if head.status() >= 500 => return Said::Failed,
                None => return Said::Apart,
            };
            let fields = head.fields().filter(|(name, _)| {
                let mut wanted = FIELDS.iter();
                wanted.any(|other| name.eq_ignore_ascii_case(other))
            });
            let fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec()));
            Said::Stores(terms, fields.collect())
        };
        self.said.get_or_init(judge);
    }
}

impl Recording {
    /// What its head says.
    pub fn verdict(&self) -> &Arc<Verdict> {
        &self.verdict
    }

    /// The response begins, perhaps once more.
    pub fn begin(&mut self) {
        self.message.clear();
    }

    /// Bytes have come; `has_head` if the head was complete by then. Whether it is still worth to go on.
    pub fn take(&mut self, bytes: &[u8], has_head: bool, now: u64) -> bool {
        if self.message.is_empty() {
            self.came = now;
        }
        self.message.extend_from_slice(bytes);
        let has_room = self.message.len() <= self.most;
        if !has_room {
            self.end(End::TooLarge);
        }
        if !has_head || mem::replace(&mut self.has_told, true) {
            return has_room;
        }
        match (self.verdict.said.get(), &self.fetching) {
            (Some(Said::Stores(terms, _)), Some(fetching)) => fetching.has_head(terms),
            (Some(Said::Stores(..)), None) => {}
            (Some(Said::Apart), _) => {
                self.end(End::Apart);
                return false;
            }
            (Some(Said::Failed) | None, _) => return false,
        }
        has_room
    }

    /// Nobody waits for it any more.
    fn end(&mut self, end: End) {
        if let Some(fetching) = self.fetching.take() {
            fetching.ends(end);
        }
    }

    /// The client has left.
    pub fn left(mut self) {
        self.end(End::Left);
    }

    /// What is sent is a file that the response names.
    pub fn sends_file(mut self) {
        self.end(End::Apart);
    }
}

/// Answers a request with what is stored for it.
pub fn answer(stored: &Stored, request: Request<'_>, response: &mut Response) {
    let field = |name: &[u8]| {
        let mut fields = stored.fields.iter();
        let field = fields.find(|(other, _)| other.eq_ignore_ascii_case(name));
        field.map(|(_, value)| &value[..])
    };
    if is_unmodified(request, field(b"etag"), field(b"last-modified")) {
        let mut begun = response.begin(b"304 Not Modified");
        for (name, value) in &stored.fields {
            begun = begun.and_then(|()| response.field(name, value));
        }
        if begun.is_ok() {
            response.finish(None);
            return response.end();
        }
        response.discard();
    }
    let trailers = request.takes_trailers();
    if replay(stored.protocol, &stored.message, trailers, response).is_err() {
        return response.fail(500, "500 Internal Server Error\n");
    }
    response.end();
}

#[cfg(test)]
mod tests;
