//! `max_connections` of a site: how many connections it has open in all workers of the front together.
//!
//! Whose a connection is shows in its requests: with HTTP/1.1 it counts for the site of its latest one, and with HTTP/2 for each site of which
//! it has carried one, until it is closed. Before its first request it counts for none. Where a site has as many as it may have, connections
//! with HTTP/1.1 are closed after their responses, so that those who wait do not wait for idle ones.

use std::sync::{Arc, Mutex, PoisonError};

use preforkd_http::{Rate, Reject, Request};
use preforkd_worker::front::Settings;
use preforkd_worker::running::{Claim, Place, Running};

use crate::layers::gate::{Noted, Refusal, now};

const WHY: &str = "the site has too many connections open";

/// The limits of all sites.
#[derive(Debug)]
pub struct Crowds {
    /// By the numbers of the sites.
    sites: Vec<Option<Limit>>,
    complaints: Mutex<Rate>,
}

#[derive(Debug)]
struct Limit {
    name: String,
    most: u64,
    place: Place,
}

/// What an open connection counts for; what it carries has a share in it.
#[derive(Debug)]
pub struct Member {
    of: Arc<Crowds>,
    /// The numbers of the sites.
    sites: Mutex<Vec<usize>>,
}

impl Crowds {
    /// Those of the sites of these settings; none if no site has a limit.
    ///
    /// # Errors
    /// There is no memory in which those of this site could be counted.
    pub fn new(settings: &Settings, running: Option<Running>) -> Result<Option<Arc<Self>>, &str> {
        let mut sites = Vec::new();
        for site in &settings.sites {
            let Some(most) = site.layers.max_connections else {
                sites.push(None);
                continue;
            };
            let place = running.and_then(|running| running.place("site", &site.name));
            sites.push(Some(Limit {
                name: site.name.clone(),
                most: most.into(),
                place: place.ok_or(&*site.name)?,
            }));
        }
        let is_limited = sites.iter().any(Option::is_some);
        Ok(is_limited.then(|| {
            Arc::new(Self {
                sites,
                complaints: Mutex::new(Rate::new(1, 10_000_000_000)),
            })
        }))
    }

    /// A connection has come.
    pub fn begin(of: &Arc<Self>) -> Arc<Member> {
        Arc::new(Member {
            of: of.clone(),
            sites: Mutex::default(),
        })
    }

    fn limit(&self, site: usize) -> Option<&Limit> {
        self.sites.get(site)?.as_ref()
    }

    fn end(&self, site: usize) {
        if let Some(limit) = self.limit(site) {
            limit.place.end();
        }
    }

    fn complain(&self, limit: &Limit) {
        let complaints = self.complaints.lock();
        let mut complaints = complaints.unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = complaints.take(now()) {
            log::warn!(
                "refused a request: site={} has {} connections open, which is its max_connections (raise it if there may be more); \
                 answering 503{left_out}",
                limit.name,
                limit.most
            );
        }
    }
}

impl Member {
    /// The head of a request has come, and its site is known if that has a limit. Others than that one count no more if `only` one can be
    /// served at a time. The answer if the site has too many connections.
    pub fn takes(&self, request: Request<'_>, only: bool) -> Option<Reject> {
        let noted = Noted::of(request);
        // What is refused needs no place.
        let served = noted.filter(|noted| noted.refusal().is_none());
        let site = served.map(Noted::site);
        let limit = site.and_then(|site| Some((site, self.of.limit(site)?)));
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if only {
            sites.retain(|&other| {
                let stays = limit.is_some_and(|(site, _)| site == other);
                if !stays {
                    self.of.end(other);
                }
                stays
            });
        }
        let (site, limit) = limit.filter(|(site, _)| !sites.contains(site))?;
        if limit.place.take(limit.most) == Claim::Taken {
            sites.push(site);
            return None;
        }
        self.of.complain(limit);
        if let Some(noted) = noted {
            noted.refuse(Refusal::busy());
        }
        Some(Reject::with(503, WHY))
    }

    /// Whether a site for which it counts has no room for another.
    pub fn is_in_the_way(&self) -> bool {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let mut limits = sites.iter().filter_map(|site| self.of.limit(*site));
        limits.any(|limit| limit.place.all() >= limit.most)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let sites = self.sites.get_mut();
        for site in sites.unwrap_or_else(PoisonError::into_inner) {
            self.of.end(*site);
        }
    }
}
