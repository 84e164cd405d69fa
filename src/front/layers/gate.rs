//! The layer of the server that has the layers of a site see its requests and responses, whatever the protocol and whatever answers.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use preforkd_http::layer::{Arrived, Layer, Page, Stages};
use preforkd_http::{Coder, Facts, Head, Note, Origin, Reject, Request, Response, phrase};

use preforkd_worker::layers::Changes;
use preforkd_worker::purges::Purges;
use rustix::time::{ClockId, clock_gettime};

use super::auth::known::{Known, Secret};
use super::auth::{Credentials, Job, Users};
use super::compression::{Asked, Running};
use super::fields;
use super::forward::Questions;
use super::of_site::OfSite;
use super::rate::Table;
use super::sendfile::Folders;
use super::values::{Kept, Values};
use crate::cache::{PATIENCE, Verdict};
use crate::sites::Sites;

/// There is no route.
const NO_ROUTE: usize = usize::MAX;

/// A request has not waited for the response to another one, or is not to do so again.
const HAS_NOT_WAITED: u64 = u64::MAX;
const WAITS_NO_MORE: u64 = 0;

/// Refuses requests and changes responses.
#[derive(Debug)]
pub struct Gate {
    sites: Arc<Sites>,
    running: Running,
    /// None if no site counts requests.
    table: Option<Table>,
    /// None if no site asks for passwords.
    secret: Option<Arc<Secret>>,
    purges: Option<Purges>,
}

/// What was found out about a request.
#[derive(Debug)]
pub struct Noted {
    site: usize,
    /// The route that it takes, or [`NO_ROUTE`]. The next one counts if a folder does not have a file.
    route: AtomicUsize,
    /// Those whose rules it has passed.
    passed: Mutex<Vec<usize>>,
    refusal: OnceLock<Refusal>,
    table: Option<Table>,
    secret: Option<Arc<Secret>>,
    asked: Asked,
    user: OnceLock<Vec<u8>>,
    /// Passwords that are to be compared before it is served, and what it is told if one is wrong.
    open: Mutex<Vec<(Job, String)>>,
    /// Whom to ask whether it may pass.
    pub questions: Questions,
    cached: OnceLock<Cached>,
    /// Until when it may wait for the response to another request; [`HAS_NOT_WAITED`] or [`WAITS_NO_MORE`].
    patience: AtomicU64,
    /// It has waited for one.
    has_waited: AtomicBool,
    /// If values of the request stand in fields of the response.
    kept: Option<Kept>,
}

/// What the cache has to do with a request.
#[derive(Debug)]
pub enum Cached {
    /// It was answered by a response of this age, in seconds.
    Has(u64),
    /// The same, after it has waited for the response to another request.
    Shares(u64),
    /// The response may be stored.
    Records(Arc<Verdict>),
    /// If it is served, what is stored at this place of [`preforkd_worker::purges`] counts no more.
    Changes(u64),
}

/// Why a request is not served.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The reason, in words that the client may read.
    pub why: &'static str,
    /// Fields of the answer.
    pub fields: Vec<(&'static str, String)>,
    /// What is sent in place of the reason.
    pub page: Option<Arc<Page>>,
}

impl Refusal {
    fn new(status: u16, why: &'static str) -> Self {
        Self {
            status,
            why,
            fields: Vec::new(),
            page: None,
        }
    }

    /// It has shown no user with the right password.
    pub fn unauthorized(challenge: &str) -> Self {
        Self {
            fields: vec![("WWW-Authenticate", challenge.to_owned())],
            ..Self::new(401, "a user and a password are needed")
        }
    }

    /// Too much is being done for others.
    pub fn busy() -> Self {
        Self {
            fields: vec![("Retry-After", "1".to_owned())],
            ..Self::new(503, "too much is being done; try again later")
        }
    }

    /// Answers the request.
    pub fn answer(&self, response: &mut Response) {
        let Self { status, why, .. } = self;
        response.fail(*status, &format!("{status} {}: {why}\n", phrase(*status)));
    }
}

impl Gate {
    /// For these sites, if one of them has layers. Requests are counted in the table.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn layer(
        sites: &Arc<Sites>,
        table: Option<Table>,
        purges: Option<Purges>,
    ) -> io::Result<Option<Arc<dyn Layer>>> {
        if !sites.have_layers() {
            return Ok(None);
        }
        let secret = sites.ask().then(Secret::new).transpose()?;
        Ok(Some(Arc::new(Self {
            sites: sites.clone(),
            running: Running::default(),
            table,
            secret: secret.map(Arc::new),
            purges,
        })))
    }

    /// What was noted, the layers of the site, and the route.
    fn noted<'a>(&'a self, facts: &'a Facts) -> Option<(&'a Noted, &'a OfSite, Option<usize>)> {
        let noted = facts.note.as_ref()?.get::<Noted>()?;
        Some((noted, self.sites.layers(noted.site)?, noted.route()))
    }
}

impl Layer for Gate {
    fn stages(&self) -> Stages {
        Stages {
            request: true,
            response: true,
            ..Stages::default()
        }
    }

    fn request(&self, arrived: &mut Arrived<'_>) -> Option<Reject> {
        let (request, origin) = (arrived.request(), *arrived.origin());
        let layered = self.sites.layered(request, &origin)?;
        let layers = layered.layers;
        let client = client(request, &origin);
        let route = layered.has_route.then(|| layered.routes[0]);
        let asking = Asking {
            request,
            client,
            table: self.table,
        };
        let mut refusal = asking.check(layers, None).err();
        for route in &layered.routes {
            refusal = refusal.or_else(|| asking.check(layers, Some(*route)).err());
        }
        let codings = layers.codings(route);
        // The next route may have others.
        let asked = match layers.compresses {
            true => Asked::read(request, codings),
            false => Asked::default(),
        };
        let has_body = has_body(request);
        let noted = Noted {
            site: layered.site,
            route: AtomicUsize::new(route.unwrap_or(NO_ROUTE)),
            passed: Mutex::default(),
            table: self.table,
            secret: self.secret.clone(),
            refusal: OnceLock::new(),
            asked,
            user: OnceLock::new(),
            open: Mutex::default(),
            questions: Questions::default(),
            cached: OnceLock::new(),
            patience: AtomicU64::new(HAS_NOT_WAITED),
            has_waited: AtomicBool::new(false),
            kept: (layers.fills_responses).then(|| Values::of(request, &origin).keep()),
        };
        if refusal.is_none() {
            let routes = [None]
                .into_iter()
                .chain(layered.routes.iter().map(|&route| Some(route)));
            // Where a route is taken, it says whether the site counts.
            let routes = routes.skip(usize::from(!layered.routes.is_empty()));
            let asked = routes.clone().filter_map(|route| layers.asked(route));
            noted.questions.add(asked);
            let users = routes.filter_map(|route| layers.users(route));
            refusal = noted.ask(users, request, self.sites.known()).err();
        }
        let reject = refusal.as_ref().filter(|_| has_body);
        // Without the body nothing after it can be understood.
        let reject = reject.map(|refusal| Reject::with(refusal.status, refusal.why));
        let max_body = layers.max_body(route);
        noted.add_passed(&layered.routes);
        if let Some(refusal) = refusal {
            noted.refuse(refusal);
        }
        arrived.facts().note = Some(Note::new(noted));
        reject.or_else(|| arrived.limit_body(max_body?))
    }

    fn response(&self, facts: &Facts, head: &mut Head) {
        let Some((noted, layers, route)) = self.noted(facts) else {
            return;
        };
        if let Some(cached) = noted.cached.get() {
            cached.see(head, self.purges);
        }
        let refusal = noted.refusal.get();
        for (name, value) in refusal.iter().flat_map(|refusal| &refusal.fields) {
            let _ = head.set(name.as_bytes(), value.as_bytes());
        }
        let values = noted.kept.as_ref().map(|kept| kept.with(facts));
        for rules in layers.rules(route) {
            match &values {
                Some(values) => fields::change(head, &values.fill(&rules.changes)),
                None => fields::change(head, &rules.changes),
            }
        }
    }

    fn coder(&self, facts: &Facts, head: &mut Head, length: Option<u64>) -> Option<Box<dyn Coder>> {
        let (noted, layers, route) = self.noted(facts)?;
        if layers.codings(route).is_empty() {
            return None;
        }
        self.running.coder(&noted.asked, head, length)
    }

    fn page(&self, facts: &Facts, status: u16) -> Option<Arc<Page>> {
        let (noted, layers, route) = self.noted(facts)?;
        let refusal = noted.refusal.get();
        let own = refusal.filter(|refusal| refusal.status == status);
        own.and_then(|refusal| refusal.page.clone())
            .or_else(|| layers.page(route, status))
    }
}

impl Cached {
    /// The head of the response has come, and nothing was changed in it.
    fn see(&self, head: &mut Head, purges: Option<Purges>) {
        match self {
            // RFC 9211.
            Self::Has(age) => {
                let _ = head.set(b"Age", age.to_string().as_bytes());
                let _ = head.add(b"Cache-Status", b"preforkd; hit");
            }
            Self::Shares(age) => {
                let _ = head.set(b"Age", age.to_string().as_bytes());
                let _ = head.add(b"Cache-Status", b"preforkd; fwd=miss; collapsed");
            }
            Self::Records(verdict) => {
                verdict.judge(head);
                let _ = head.add(b"Cache-Status", b"preforkd; fwd=miss");
            }
            // RFC 9111 section 4.4.
            Self::Changes(place) => {
                if let Some(purges) = purges
                    && (200..400).contains(&head.status())
                {
                    purges.purge(*place);
                }
            }
        }
    }
}

impl Noted {
    /// What was noted of a request; none if its site has no layers.
    pub fn of(request: Request<'_>) -> Option<&Self> {
        request.facts()?.note.as_ref()?.get()
    }

    /// Whether the request is not served, or not yet.
    pub fn is_held(&self) -> bool {
        self.refusal.get().is_some() || self.next_job().is_some() || self.questions.next().is_some()
    }

    /// The number of its site.
    pub fn site(&self) -> usize {
        self.site
    }

    /// Why it is not served.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.get()
    }

    /// It is not served. The first reason counts.
    pub fn refuse(&self, refusal: Refusal) {
        let _ = self.refusal.set(refusal);
    }

    /// What the cache has to do with it.
    pub fn note_cached(&self, cached: Cached) {
        let _ = self.cached.set(cached);
    }

    /// Until when it may wait for the response to another request, from now on.
    pub fn patience(&self, now: u64) -> u64 {
        match self.patience.load(Ordering::Relaxed) {
            HAS_NOT_WAITED => now.saturating_add(PATIENCE),
            until => until,
        }
    }

    /// It waits until this time at most.
    pub fn waits(&self, until: u64) {
        self.patience.store(until, Ordering::Relaxed);
        self.has_waited.store(true, Ordering::Relaxed);
    }

    /// It waits for no other response.
    pub fn waits_no_more(&self) {
        self.patience.store(WAITS_NO_MORE, Ordering::Relaxed);
    }

    /// Whether it has waited for the response to another request.
    pub fn has_waited(&self) -> bool {
        self.has_waited.load(Ordering::Relaxed)
    }

    /// The number of its site, if responses to it are kept.
    pub fn caching_site(&self, sites: &Sites) -> Option<usize> {
        let layers = sites.layers(self.site)?;
        layers.caches(self.route()).then_some(self.site)
    }

    /// The user, unless the request is refused: the password may be wrong then.
    pub fn served_user(&self) -> Option<&[u8]> {
        self.user().filter(|_| self.refusal().is_none())
    }

    /// The user whose password was right.
    pub fn user(&self) -> Option<&[u8]> {
        self.user.get().map(Vec::as_slice)
    }

    /// What changes in the head of the request on its way to an upstream. It gets the fields that were copied from answers.
    pub fn changes<'a>(
        &self,
        sites: &'a Sites,
        copied: Option<&'a Changes>,
        request: Request<'_>,
        origin: &Origin,
    ) -> Vec<Cow<'a, Changes>> {
        let Some(layers) = sites.layers(self.site) else {
            return Vec::new();
        };
        let given = [&layers.strip].into_iter().chain(copied);
        let given = given.filter(|changes| !changes.is_empty());
        let rules = layers.rules(self.route());
        let written = rules.map(|rules| &rules.request_changes);
        let written = written.filter(|changes| !changes.is_empty());
        let values = Values::of(request, origin);
        let filled = written.map(|changes| values.fill(changes));
        given.map(Cow::Borrowed).chain(filled).collect()
    }

    /// The names of the fields that are set or added in the head of the request, whatever their values, in lower case.
    pub fn set_fields(&self, sites: &Sites) -> Vec<Vec<u8>> {
        let layers = sites.layers(self.site).into_iter();
        let rules = layers.flat_map(|layers| layers.rules(self.route()));
        let changes = rules.map(|rules| &rules.request_changes);
        let fields = changes.flat_map(|changes| changes.set.iter().chain(&changes.add));
        let names = fields.map(|(name, _)| name.to_ascii_lowercase().into_bytes());
        names.collect()
    }

    /// The folders of which the application may have files sent.
    pub fn sendfile<'a>(&self, sites: &'a Sites) -> Option<&'a Arc<Folders>> {
        sites.layers(self.site)?.sendfile(self.route())
    }

    /// The password that is to be compared next.
    pub fn next_job(&self) -> Option<Job> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.first().map(|(job, _)| job.clone())
    }

    /// That password was compared.
    pub fn compared(&self, is_right: bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_empty() {
            return;
        }
        let (_, challenge) = open.remove(0);
        if !is_right {
            open.clear();
            self.refuse(Refusal::unauthorized(&challenge));
        }
    }

    /// Asks for a password of these users. Those that are not known to be right are noted.
    fn ask<'a>(
        &self,
        users: impl Iterator<Item = &'a Users>,
        request: Request<'_>,
        known: &Known,
    ) -> Result<(), Refusal> {
        let mut credentials = None;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for users in users {
            let (Some(secret), shown) = (&self.secret, credentials.take()) else {
                break;
            };
            let shown = shown.or_else(|| Credentials::read(request));
            let Some(shown) = shown else {
                return Err(Refusal::unauthorized(users.challenge()));
            };
            let job = users.job(&shown, secret);
            let is_new = open.iter().all(|(other, _)| other.key != job.key);
            if is_new && !known.has(&job.key, now()) {
                open.push((job, users.challenge().to_owned()));
            }
            let _ = self.user.set(shown.user.clone());
            credentials = Some(shown);
        }
        Ok(())
    }

    fn add_passed(&self, routes: &[usize]) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.extend_from_slice(routes);
    }

    fn has_passed(&self, route: usize) -> bool {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.contains(&route)
    }

    fn route(&self) -> Option<usize> {
        Some(self.route.load(Ordering::Relaxed)).filter(|route| *route != NO_ROUTE)
    }

    /// Another route than the first one answers, if a folder did not have the file. It may have to wait then.
    ///
    /// # Errors
    /// Its rules refuse the request.
    pub fn take_route(
        &self,
        sites: &Sites,
        route: usize,
        request: Request<'_>,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        self.route.store(route, Ordering::Relaxed);
        let Some(layers) = sites.layers(self.site) else {
            return Ok(());
        };
        if self.has_passed(route) {
            return Ok(());
        }
        let asking = Asking {
            request,
            client: client(request, origin),
            table: self.table,
        };
        asking.check(layers, Some(route))?;
        self.add_passed(&[route]);
        self.questions.add(layers.asked(Some(route)).into_iter());
        let users = layers.users(Some(route));
        self.ask(users.into_iter(), request, sites.known())?;
        let most = layers.max_body(Some(route)).unwrap_or(u64::MAX);
        match request.body_length().unwrap_or(0) > most {
            true => Err(Refusal::new(413, "request body too large")),
            false => Ok(()),
        }
    }
}

/// The client's address, as the proxies that are trusted tell it.
pub fn client(request: Request<'_>, origin: &Origin) -> Option<IpAddr> {
    let told = request.facts().and_then(|facts| facts.client);
    let client = told.or(origin.peer.map(|peer| peer.ip()));
    client.map(|client| client.to_canonical())
}

/// Whether a body follows the head.
pub fn has_body(request: Request<'_>) -> bool {
    request.field(b"transfer-encoding").is_some()
        || request
            .field(b"content-length")
            .is_some_and(|length| length.iter().any(|&digit| digit != b'0'))
}

/// A request that wants to pass.
struct Asking<'a> {
    request: Request<'a>,
    client: Option<IpAddr>,
    table: Option<Table>,
}

impl Asking<'_> {
    /// Whether the rules of the site, or those of a route, let it pass.
    fn check(&self, layers: &OfSite, route: Option<usize>) -> Result<(), Refusal> {
        let rules = layers.rules(route);
        let Some(rules) = rules.last() else {
            return Ok(());
        };
        if !rules.access.allows(self.client) {
            return Err(Refusal::new(403, "not from this address"));
        }
        if let Some(maintenance) = &rules.maintenance
            && let Some(page) = maintenance.answer(self.client)
        {
            let retry_after = ("Retry-After", maintenance.retry_after.to_string());
            return Err(Refusal {
                fields: vec![retry_after],
                page: Some(page.clone()),
                ..Refusal::new(503, "it is being maintained; try again later")
            });
        }
        for limit in &rules.limits {
            let value = limit.field().and_then(|name| self.request.field(name));
            let Some(table) = &self.table else {
                break;
            };
            if let Err(seconds) = table.count(limit, self.client, value, now() / 1000) {
                return Err(Refusal {
                    fields: vec![("Retry-After", seconds.to_string())],
                    ..Refusal::new(429, "too many requests; try again later")
                });
            }
        }
        Ok(())
    }
}

/// The time that all workers have alike, in nanoseconds.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}
