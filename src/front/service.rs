//! What becomes of a request: the sites choose, and what is chosen answers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use preforkd_http::{
    Body, Call, Origin, Outgoing, Output, Rate, Ready, Request, Response, Service, Taking, Watch,
};
use preforkd_worker::front::{self, Settings, Target};
use preforkd_worker::gauges::Gauges;
use preforkd_worker::purges::Purges;
use preforkd_worker::running::Running;

use crate::answer::{answer, folder};
use crate::cache::asked::place;
use crate::cache::{self, Cache, Look};
use crate::counting::States;
use crate::holding::{Holding, PASSWORDS};
use crate::layers::forward::Asked;
use crate::layers::gate::{Cached, Noted, has_body};
use crate::path::Normal;
use crate::proofs;
use crate::scripts::{Found, Scripts};
use crate::sites::{Choice, Sites};
use crate::updates::Updates;
use crate::upstream::address::Address;
use crate::upstream::news;
use crate::upstream::protocol::{Passing, Script};
use crate::upstream::proxy::{At, Proxy};
use crate::upstream::settings::Settings as UpstreamSettings;
use crate::upstream::{Instant, NEVER};

/// The host that an upstream is told when a client names none, as in HTTP/1.0.
const NO_HOST: &[u8] = b"localhost";

/// Answers the requests of all sites.
#[derive(Debug)]
pub struct Front {
    sites: Arc<Sites>,
    path: Normal,
    proxy: Proxy,
    /// The numbers of the upstreams by their names.
    numbers: BTreeMap<String, usize>,
    /// The addresses of those that the settings name, by their numbers.
    fixed: BTreeMap<usize, Vec<At>>,
    /// The scripts that answer for upstreams, by their numbers.
    scripts: BTreeMap<usize, Scripts>,
    complaints: Rate,
    updates: Updates,
    running: Option<Running>,
    states: Option<States>,
    holding: Holding,
    /// None if there is no memory that tells what was purged.
    cache: Option<Cache>,
    /// The time of this turn.
    now: Instant,
}

/// The number of the socket of updates; the proxy counts from 0.
const UPDATES: u32 = u32::MAX;

impl Front {
    /// For these sites, which were made of the settings.
    ///
    /// # Errors
    /// An address of an upstream is not valid, or there are no descriptors; the whole message.
    pub fn new(sites: Arc<Sites>, settings: &Settings, updates: Updates) -> Result<Self, String> {
        let mut proxy = Proxy::default();
        let (mut numbers, mut scripts) = (BTreeMap::new(), BTreeMap::new());
        let mut fixed = BTreeMap::new();
        for (name, upstream) in &settings.upstreams {
            let parse = |text: &String| {
                let address = Address::parse(text).ok_or_else(|| {
                    format!("could not read the settings: app={name}: {text} is no address of an upstream")
                });
                Ok::<_, String>(At {
                    address: address?,
                    at_a_time: usize::MAX,
                })
            };
            let mut how = upstream_settings(name, upstream);
            how.upgraded_timeout = settings.upgrade_timeout;
            let number = proxy.add(how);
            if let Some(of) = &upstream.speech.scripts {
                scripts.insert(number, Scripts::new(of));
            }
            if !upstream.is_told {
                let addresses: Result<Vec<_>, _> = upstream.addresses.iter().map(parse).collect();
                let addresses = addresses?;
                proxy.set_addresses(number, &addresses, 0);
                fixed.insert(number, addresses);
            }
            numbers.insert(name.clone(), number);
        }
        Ok(Self {
            holding: Holding::new(&sites)?,
            sites,
            path: Normal::default(),
            proxy,
            numbers,
            fixed,
            scripts,
            complaints: Rate::new(5, 10_000_000_000),
            updates,
            running: None,
            states: None,
            cache: None,
            now: 0,
        })
    }

    /// Counts what runs and what waits together with the other workers of the front, who are woken by writing to this descriptor; and notes
    /// for the master what it has heard.
    pub fn share(&mut self, running: Running, wake: Option<OwnedFd>) {
        self.running = Some(running);
        self.proxy.share(running, wake);
    }

    /// Tells how its upstreams are, which are there in the order of the settings.
    pub fn tell(&mut self, gauges: Gauges) {
        let numbers = self.numbers.values().copied().collect();
        self.states = Some(States::new(gauges, numbers));
    }

    /// Keeps responses in so many bytes, of routes that say so.
    pub fn cache(&mut self, size: u64, purges: Purges) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.cache = Some(Cache::new(size, purges));
    }

    /// What the cache has to do with a request that goes to this upstream.
    fn look(&mut self, number: usize, call: &Call<'_>, noted: Option<&Noted>) -> Look {
        let site = noted.and_then(|noted| noted.caching_site(&self.sites));
        let (Some(cache), Some(noted), Some(site)) = (&mut self.cache, noted, site) else {
            return Look::Aside;
        };
        let (request, name) = (call.request, self.sites.name(site));
        if is_safe(request.method()) {
            let protocol = self.proxy.protocol(number);
            let set = || noted.set_fields(&self.sites);
            let until = noted.patience(call.now);
            return cache.look(call, (site, name), protocol, until, set);
        }
        noted.note_cached(Cached::Changes(place(request)));
        Look::Aside
    }

    /// A request waits for the response to another one, until this time at most.
    fn collapse(
        &mut self,
        call: &Call<'_>,
        until: Instant,
        mut response: Response,
    ) -> Option<Response> {
        let note = call.request.facts().and_then(|facts| facts.note.clone());
        let (Some(noted), Some(note)) = (Noted::of(call.request), note) else {
            response.fail(500, "500 Internal Server Error\n");
            return Some(response);
        };
        noted.waits(until);
        self.holding.collapse(call.key, response, note);
        None
    }

    /// The script for a request that goes to this upstream, if it runs scripts, or the answer.
    fn script(
        &mut self,
        number: usize,
        call: &Call<'_>,
        (stripped, rewrite): (usize, Option<&[u8]>),
        mut response: Response,
    ) -> Result<(Option<Script>, Response), Response> {
        let Some(scripts) = self.scripts.get(&number) else {
            return Ok((None, response));
        };
        let path = call.request.path().get(stripped..).unwrap_or_default();
        match scripts.find(&[rewrite.unwrap_or_default(), path].concat()) {
            Ok(Found::Script(script)) => return Ok((Some(script), response)),
            Ok(Found::Folder) => folder(call.request, &mut response),
            Ok(Found::Nothing) => response.fail(404, "404 Not Found\n"),
            Err(error) => {
                if let Some(left_out) = self.complaints.take(call.now) {
                    let root = scripts.root().display();
                    log::error!(
                        "could not look for a script below {root}: {error}; answering 500{left_out}"
                    );
                }
                response.fail(500, "500 Internal Server Error\n");
            }
        }
        Err(response)
    }

    /// Asks whether a request may pass. The answer is the client's, unless it may.
    fn ask(
        &mut self,
        asked: &Arc<Asked>,
        call: Call<'_>,
        mut response: Response,
    ) -> Option<Response> {
        let facts = call.request.facts();
        let note = facts.and_then(|facts| facts.note.as_ref());
        let (Some(&number), Some(note)) = (self.numbers.get(&asked.upstream), note) else {
            response.fail(500, "500 Internal Server Error\n");
            return Some(response);
        };
        if has_body(call.request) {
            // If it may not pass, nobody reads its body.
            response.close();
        }
        let passing = Passing {
            outgoing: Outgoing {
                default_host: NO_HOST,
                changes: &[&asked.strip],
                question: Some(&asked.target),
                ..Outgoing::default()
            },
            asked: Some((note, asked)),
            ..Passing::default()
        };
        let call = Call {
            body: Body::default(),
            streamed: false,
            ..call
        };
        self.proxy.call(number, call, passing, response)
    }

    /// What a request of a certificate authority is answered with, whatever its host and what the sites do with others.
    fn proof(&mut self, request: Request<'_>, now: u64) -> Option<Arc<str>> {
        proofs::token(request)?;
        let proofs = self.updates.proofs();
        proofs.find(request).or_else(|| {
            // The authority was told to ask after it was sent, and may have been faster.
            self.hear(now);
            proofs.find(request)
        })
    }

    /// Takes in what the master has told.
    fn hear(&mut self, now: u64) {
        self.updates.take();
        while let Some(ready) = self.updates.next_upstream() {
            // Others may be named in the settings of other front workers only.
            if let Some(&number) = self.numbers.get(&ready.app) {
                let told = news::places(&ready);
                // What has one address for all its workers has it until it is stopped.
                let places = match self.fixed.get(&number) {
                    Some(fixed) if told.is_empty() && !ready.refuses => fixed,
                    _ => &told,
                };
                self.proxy.refuse(number, ready.refuses);
                self.proxy.set_addresses(number, places, now);
            }
        }
        // From here on nothing goes to a worker that was taken out.
        if let Some(running) = &self.running {
            running.has_taken(self.updates.number());
        }
        if self.updates.is_over() {
            self.proxy.expect_no_more(now);
        }
    }
}

/// Who is asked next whether this request may pass.
fn next_question(noted: Option<&Noted>) -> Option<Arc<Asked>> {
    noted?.questions.next()
}

/// Whether a request with this method changes nothing: RFC 9110 section 9.2.1.
fn is_safe(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
}

/// How the front uses an upstream.
fn upstream_settings(name: &str, upstream: &front::Upstream) -> UpstreamSettings {
    // No app has a name with a colon.
    let is_ours = !name.contains(':');
    let shown = match is_ours {
        true => format!("app={name}"),
        false => format!("upstream={name}"),
    };
    let mut settings = UpstreamSettings::of(shown, upstream);
    settings.is_ours = is_ours;
    settings.protocol = upstream.speech.protocol;
    if !settings.protocol.is_http() {
        // A kept connection takes a process of php-fpm away from all others, and the other protocols end it with the response.
        settings.keep = Duration::ZERO;
    }
    settings
}

impl Service for Front {
    fn begin(&mut self, watch: Watch) {
        if let Some(socket) = self.updates.socket()
            && let Err(error) = watch.add(socket, UPDATES, false)
        {
            log::error!("could not watch the socket of updates: {error}; later ones are not seen");
        }
        self.holding.begin(&watch);
        self.proxy.begin(watch);
        self.hear(0);
    }

    fn call(&mut self, call: Call<'_>, mut response: Response) -> Option<Response> {
        let request = call.request;
        if let Some(answer) = self.proof(request, call.now) {
            proofs::answer(&answer, &mut response);
            return Some(response);
        }
        let noted = Noted::of(request);
        if noted.is_some_and(Noted::is_held) {
            response = self.holding.hold(&call, response)?;
        }
        if let Some(refusal) = noted.and_then(Noted::refusal) {
            refusal.answer(&mut response);
            return Some(response);
        }
        if let Some(asked) = next_question(noted) {
            return self.ask(&asked, call, response);
        }
        let choice = self.sites.choose(request, call.origin, &mut self.path);
        if let (Some(noted), Choice::Target { route, .. }) = (noted, choice)
            && let Err(refusal) = noted.take_route(&self.sites, route, request, call.origin)
        {
            // Its fields are added to the head.
            noted.refuse(refusal.clone());
            refusal.answer(&mut response);
            return Some(response);
        }
        // The route that it takes now may ask for another password.
        if noted.is_some_and(Noted::is_held) {
            response = self.holding.hold(&call, response)?;
            if let Some(refusal) = noted.and_then(Noted::refusal) {
                refusal.answer(&mut response);
                return Some(response);
            }
            if let Some(asked) = next_question(noted) {
                return self.ask(&asked, call, response);
            }
        }
        if let Choice::Target {
            target: Target::Upstream(name),
            stripped,
            rewrite,
            ..
        } = choice
            && let Some(&number) = self.numbers.get(name)
        {
            let rewrite = rewrite.map(<[u8]>::to_vec);
            let recording = match self.look(number, &call, noted) {
                Look::Has(stored) => {
                    if let Some(noted) = noted {
                        let age = stored.age(call.now);
                        noted.note_cached(match noted.has_waited() {
                            true => Cached::Shares(age),
                            false => Cached::Has(age),
                        });
                    }
                    cache::answer(&stored, request, &mut response);
                    return Some(response);
                }
                Look::Records(recording) => {
                    if let Some(noted) = noted {
                        noted.note_cached(Cached::Records(recording.verdict().clone()));
                    }
                    Some(recording)
                }
                Look::Waits(until) => return self.collapse(&call, until, response),
                Look::Aside => None,
            };
            let rewrite = rewrite.as_deref();
            return match self.script(number, &call, (stripped, rewrite), response) {
                Ok((script, response)) => {
                    let copied = noted.and_then(|noted| noted.questions.copied());
                    let copied = copied.as_ref();
                    let changes =
                        noted.map(|noted| noted.changes(&self.sites, copied, request, call.origin));
                    let changes = changes.unwrap_or_default();
                    let changes: Vec<_> = changes.iter().map(AsRef::as_ref).collect();
                    let outgoing = Outgoing {
                        strip: stripped,
                        rewrite,
                        default_host: NO_HOST,
                        changes: &changes,
                        ..Outgoing::default()
                    };
                    let script = script.as_ref();
                    let folders = noted.and_then(|noted| noted.sendfile(&self.sites));
                    let passing = Passing {
                        outgoing,
                        script,
                        folders,
                        asked: None,
                    };
                    let key = call.key;
                    let answered = self.proxy.call(number, call, passing, response);
                    if let Some(recording) = recording {
                        self.proxy.record(key, recording);
                    }
                    answered
                }
                Err(answered) => Some(answered),
            };
        }
        if answer(choice, request, &mut response).is_err() {
            response.discard();
            response.fail(500, "500 Internal Server Error\n");
        }
        Some(response)
    }

    fn taking(&mut self, request: Request<'_>, origin: &Origin) -> Taking {
        // Its body is not read before it is known whether it is served.
        if Noted::of(request).is_some_and(Noted::is_held) {
            return Taking::Streamed;
        }
        let taker = self.sites.taker(request, origin, &mut self.path);
        let number = taker.and_then(|(name, streams)| Some((*self.numbers.get(name)?, streams)));
        number.map_or(Taking::Whole, |(number, streams)| {
            self.proxy.taking(number, request, streams)
        })
    }

    fn body(&mut self, key: u64, bytes: Vec<u8>, ended: bool, now: u64) -> bool {
        self.proxy.body(key, &bytes, ended, now)
    }

    fn trailers(&mut self, key: u64, lines: &[u8]) {
        self.proxy.trailers(key, lines);
    }

    fn left(&mut self, key: u64, now: u64) -> Option<Response> {
        let held = self.holding.left(key);
        if let Some(cache) = self.cache.as_mut().filter(|_| held.is_some()) {
            cache.left(key);
        }
        held.or_else(|| self.proxy.left(key, now))
    }

    fn waiting(&mut self, key: u64, bytes: usize, now: u64) {
        self.proxy.waiting(key, bytes, now);
    }

    fn event(&mut self, token: u32, ready: Ready, now: u64) {
        match token {
            UPDATES => self.hear(now),
            PASSWORDS => self.holding.take_verdicts(&self.sites, now),
            _ => self.proxy.event(token, ready, now),
        }
    }

    fn turn(&mut self, now: u64) {
        self.proxy.turn(now);
        self.now = now;
    }

    fn deadline(&self) -> u64 {
        // This is asked when all is done, before the loop waits.
        if let Some(states) = &self.states {
            states.note(&self.proxy);
        }
        if self.holding.has_output() {
            return 0;
        }
        let cache = self.cache.as_ref().map_or(NEVER, Cache::deadline);
        self.proxy.deadline().min(cache)
    }

    fn output(&mut self) -> Option<(u64, Output)> {
        if let Some(cache) = &mut self.cache {
            while let Some(recording) = self.proxy.recorded() {
                cache.keep(recording, self.now);
            }
            for released in cache.released(self.now) {
                self.holding.release(released.ticket, released.may_wait);
            }
        }
        self.holding.output().or_else(|| self.proxy.output())
    }
}
