//! What the workers of the front have counted for each site.
//!
//! They are numbers that those workers have written: nothing follows from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counters::{self, Counts};
use crate::front::Outline;
use crate::gauges::{self, Upstream as State};

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Front {
    /// Open connections of clients.
    pub connections: u64,
    /// Handshakes of TLS: completed with a new session, completed with an earlier one, failed.
    pub handshakes: [u64; 3],
    /// Requests that were refused before they were understood, or have no site.
    pub no_site: Counts,
    /// The sites.
    pub sites: Vec<Site>,
    /// The upstreams of all sites.
    pub upstreams: Vec<Upstream>,
}

/// A site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Open connections of clients, by the site of their latest request.
    pub connections: u64,
    /// Requests that wait for its upstreams.
    pub waiting: u64,
    /// Addresses to which its routes lead.
    pub upstreams: u64,
    /// Those of them that take requests.
    pub available: u64,
    /// Its routes; the first one is for requests of no route.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Route {
    /// What it is called.
    pub route: String,
    /// What was counted.
    pub counts: Counts,
}

/// An upstream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Requests that wait for it in all workers of the front.
    pub waiting: u64,
    /// Its addresses.
    pub addresses: u64,
    /// Those of them that take requests.
    pub available: u64,
}

/// The memory behind the scoreboard of the front.
pub trait Memory {
    /// The blocks of these keys, of which some may be empty.
    fn counters(&self, keys: &[u64]) -> Vec<Vec<u64>>;
    /// What the worker with this record says of its upstreams and sites.
    fn gauges(&self, record: u32) -> Vec<u64>;
}

/// A worker of the front.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// Its process.
    pub pid: u32,
    /// Its record.
    pub record: u32,
    /// It is to end.
    pub leaves: bool,
}

impl Front {
    /// What these workers have counted, of which so many `connections` are open.
    pub fn read(
        memory: &impl Memory,
        sites: &[Outline],
        workers: &[Worker],
        connections: u64,
    ) -> Self {
        let said: Vec<(Worker, Vec<u64>)> = workers
            .iter()
            .map(|worker| (*worker, memory.gauges(worker.record)))
            .collect();
        let upstreams = upstreams(sites, &said);
        let keys: Vec<u64> = sites.iter().flat_map(keys_of).collect();
        let counts = memory.counters(&keys);
        let mut counts = counts.iter().map(|words| Counts::decode(words));
        let of_site = |site: &Outline| {
            let state = together(site, &upstreams);
            let of = |(worker, words): &(Worker, Vec<u64>)| {
                gauges::connections(words, worker.pid, &site.name)
            };
            let routes = site.routes.iter().map(String::as_str);
            let routes = [""].into_iter().chain(routes).map(|route| Route {
                route: route.to_owned(),
                counts: counts.next().unwrap_or_default(),
            });
            Site {
                name: site.name.clone(),
                connections: said.iter().map(of).sum(),
                waiting: state.waiting,
                upstreams: state.addresses,
                available: state.available,
                routes: routes.collect(),
            }
        };
        let sites = sites.iter().map(of_site).collect();
        let others = memory.counters(&[counters::NO_SITE, counters::HANDSHAKES]);
        let other = |at: usize| others.get(at).map(Vec::as_slice).unwrap_or_default();
        let upstreams = upstreams.iter().map(|(name, state)| Upstream {
            name: (*name).to_owned(),
            waiting: state.waiting,
            addresses: state.addresses,
            available: state.available,
        });
        Self {
            connections,
            handshakes: counters::decode_handshakes(other(1)),
            no_site: Counts::decode(other(0)),
            sites,
            upstreams: upstreams.collect(),
        }
    }
}

/// The keys of the counters of a site and its routes; the first one is for no route.
fn keys_of(site: &Outline) -> impl Iterator<Item = u64> {
    let routes = site.routes.iter().map(String::as_str);
    let routes = [""].into_iter().chain(routes);
    routes.map(|route| counters::key(&site.name, route))
}

/// The states of all upstreams: what waits in all workers together, and the addresses as the worker sees them that sees the fewest of them
/// in order. Those that end do not count.
fn upstreams<'a>(sites: &'a [Outline], said: &[(Worker, Vec<u64>)]) -> BTreeMap<&'a str, State> {
    let names = sites.iter().flat_map(|site| &site.upstreams);
    let mut all: BTreeMap<&str, State> = BTreeMap::new();
    for name in names {
        all.entry(name.as_str()).or_default();
    }
    let mut first = true;
    for (worker, words) in said.iter().filter(|(worker, _)| !worker.leaves) {
        let mut known = false;
        for (name, all) in &mut all {
            if let Some(one) = gauges::read(words, worker.pid, name) {
                known = true;
                all.waiting += one.waiting;
                if first || one.available < all.available {
                    (all.addresses, all.available) = (one.addresses, one.available);
                }
            }
        }
        first &= !known;
    }
    all
}

/// The upstreams of a site, all together.
fn together(site: &Outline, upstreams: &BTreeMap<&str, State>) -> State {
    let of = site
        .upstreams
        .iter()
        .filter_map(|name| upstreams.get(name.as_str()));
    of.fold(State::default(), |sum, one| State {
        waiting: sum.waiting + one.waiting,
        addresses: sum.addresses + one.addresses,
        available: sum.available + one.available,
    })
}
