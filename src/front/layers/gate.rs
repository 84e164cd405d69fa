//! The layer of the server that has the layers of a site see its requests and responses, whatever the protocol and whatever answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use preforkd_http::layer::{Arrived, Layer, Page, Stages};
use preforkd_http::{Coder, Facts, Head, Note, Origin, Reject, Request, Response, phrase};

use rustix::time::{ClockId, clock_gettime};

use super::compression::{Asked, Running};
use super::fields;
use super::of_site::OfSite;
use super::rate::Table;
use crate::sites::Sites;

/// There is no route.
const NO_ROUTE: usize = usize::MAX;

/// Refuses requests and changes responses.
#[derive(Debug)]
pub struct Gate {
    sites: Arc<Sites>,
    running: Running,
    /// None if no site counts requests.
    table: Option<Table>,
}

/// What was found out about a request.
#[derive(Debug)]
pub struct Noted {
    site: usize,
    /// The route that it takes, or [`NO_ROUTE`]. The next one counts if a folder does not have a file.
    route: AtomicUsize,
    /// Those whose rules it has passed.
    passed: Vec<usize>,
    refusal: Option<Refusal>,
    table: Option<Table>,
    asked: Asked,
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

    /// Answers the request.
    pub fn answer(&self, response: &mut Response) {
        let Self { status, why, .. } = self;
        response.fail(*status, &format!("{status} {}: {why}\n", phrase(*status)));
    }
}

impl Gate {
    /// For these sites, if one of them has layers. Requests are counted in the table.
    pub fn layer(sites: &Arc<Sites>, table: Option<Table>) -> Option<Arc<dyn Layer>> {
        sites.have_layers().then(|| {
            Arc::new(Self {
                sites: sites.clone(),
                running: Running::default(),
                table,
            }) as Arc<dyn Layer>
        })
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
        let reject = refusal.as_ref().filter(|_| has_body);
        // Without the body nothing after it can be understood.
        let reject = reject.map(|refusal| Reject::with(refusal.status, refusal.why));
        let max_body = layers.max_body(route);
        let noted = Noted {
            site: layered.site,
            route: AtomicUsize::new(route.unwrap_or(NO_ROUTE)),
            passed: layered.routes,
            table: self.table,
            refusal,
            asked,
        };
        arrived.facts().note = Some(Note::new(noted));
        reject.or_else(|| arrived.limit_body(max_body?))
    }

    fn response(&self, facts: &Facts, head: &mut Head) {
        let Some((noted, layers, route)) = self.noted(facts) else {
            return;
        };
        for (name, value) in noted.refusal.iter().flat_map(|refusal| &refusal.fields) {
            let _ = head.set(name.as_bytes(), value.as_bytes());
        }
        for rules in layers.rules(route) {
            fields::change(head, &rules.changes);
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
        let refusal = noted.refusal.as_ref();
        let own = refusal.filter(|refusal| refusal.status == status);
        own.and_then(|refusal| refusal.page.clone())
            .or_else(|| layers.page(route, status))
    }
}

impl Noted {
    /// What was noted of a request; none if its site has no layers.
    pub fn of(request: Request<'_>) -> Option<&Self> {
        request.facts()?.note.as_ref()?.get()
    }

    /// Whether the request is not served.
    pub fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// Why not.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    fn route(&self) -> Option<usize> {
        Some(self.route.load(Ordering::Relaxed)).filter(|route| *route != NO_ROUTE)
    }

    /// Another route than the first one answers, if a folder did not have the file.
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
        if self.passed.contains(&route) {
            return Ok(());
        }
        let asking = Asking {
            request,
            client: client(request, origin),
            table: self.table,
        };
        asking.check(layers, Some(route))?;
        let most = layers.max_body(Some(route)).unwrap_or(u64::MAX);
        match request.body_length().unwrap_or(0) > most {
            true => Err(Refusal::new(413, "request body too large")),
            false => Ok(()),
        }
    }
}

/// The client's address, as the proxies that are trusted tell it.
fn client(request: Request<'_>, origin: &Origin) -> Option<IpAddr> {
    let told = request.facts().and_then(|facts| facts.client);
    let client = told.or(origin.peer.map(|peer| peer.ip()));
    client.map(|client| client.to_canonical())
}

/// Whether a body follows the head.
fn has_body(request: Request<'_>) -> bool {
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
            if let Err(seconds) = table.count(limit, self.client, value, now()) {
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
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}
