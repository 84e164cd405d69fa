//! What the workers of the front have counted for each site, for `preforkd status` and `preforkd metrics`.
//!
//! They are numbers that those workers have written: nothing follows from them.

use std::collections::BTreeMap;

use log::info;
use preforkd_worker::counters::{self, Counts};
use preforkd_worker::front::Outline;
use preforkd_worker::gauges::{self, Upstream};
use preforkd_worker::purges;
use serde_json::{Value, json};

use super::turn::Turn;
use super::workers::Workers;
use super::world::World;
use crate::plan::Plan;
use crate::release::Name;

/// The app that serves sites, and what it serves.
struct Front<'a> {
    name: Name,
    sites: &'a [Outline],
}

impl<'a> Front<'a> {
    fn of(plan: &'a Plan) -> Option<Self> {
        let (name, app) = plan.apps.iter().find(|(_, app)| !app.sites.is_empty())?;
        Some(Self {
            name: name.as_str().into(),
            sites: &app.sites,
        })
    }

    /// The counters of all sites, in their order; for each those of its routes, the first of which is for no route.
    fn counts<W: World>(&self, turn: &Turn<W>) -> Vec<Vec<Counts>> {
        let keys_of = |site: &Outline| -> Vec<u64> {
            let routes = site.routes.iter().map(String::as_str);
            let routes = [""].into_iter().chain(routes);
            routes
                .map(|route| counters::key(&site.name, route))
                .collect()
        };
        let keys: Vec<_> = self.sites.iter().flat_map(keys_of).collect();
        let read = turn.world.counters(&self.name, &keys);
        let mut read = read.iter().map(|words| Counts::decode(words));
        let of_site = |site: &Outline| read.by_ref().take(site.routes.len() + 1).collect();
        self.sites.iter().map(of_site).collect()
    }

    /// The states of all upstreams: what waits in all workers of the front together, and the addresses as the worker sees them that sees
    /// the fewest of them in order.
    fn upstreams<W: World>(
        &self,
        turn: &Turn<W>,
        workers: &Workers,
    ) -> BTreeMap<&'a str, Upstream> {
        let names = self.sites.iter().flat_map(|site| &site.upstreams);
        let mut all: BTreeMap<&str, Upstream> = BTreeMap::new();
        for name in names {
            all.entry(name.as_str()).or_default();
        }
        let mut first = true;
        for (pid, child) in workers.children.of(&self.name) {
            let Some(record) = child.record.filter(|_| !child.leaves) else {
                continue;
            };
            let words = turn.world.gauges(&self.name, record);
            let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
            let mut said = false;
            for (name, all) in &mut all {
                if let Some(one) = gauges::read(&words, pid, name) {
                    said = true;
                    all.waiting += one.waiting;
                    if first || one.available < all.available {
                        (all.addresses, all.available) = (one.addresses, one.available);
                    }
                }
            }
            first &= !said;
        }
        all
    }

    /// The open connections of all sites, in their order, also those of workers that end.
    fn visits<W: World>(&self, turn: &Turn<W>, workers: &Workers) -> Vec<u64> {
        let mut all = vec![0; self.sites.len()];
        for (pid, child) in workers.children.of(&self.name) {
            let Some(record) = child.record else {
                continue;
            };
            let words = turn.world.gauges(&self.name, record);
            let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
            for (all, site) in all.iter_mut().zip(self.sites) {
                *all += gauges::connections(&words, pid, &site.name);
            }
        }
        all
    }

    fn connections<W: World>(&self, turn: &Turn<W>, workers: &Workers) -> u64 {
        let children = workers.children.of(&self.name);
        let of_child = children.filter_map(|(_, child)| {
            let age = turn.now.saturating_duration_since(child.asked_for);
            let seen = turn.world.read(&self.name, child.record?, age)?;
            Some(seen.connections)
        });
        of_child.sum()
    }
}

/// The upstreams of a site, all together.
fn together(site: &Outline, upstreams: &BTreeMap<&str, Upstream>) -> Upstream {
    let of = site
        .upstreams
        .iter()
        .filter_map(|name| upstreams.get(name.as_str()));
    of.fold(Upstream::default(), |sum, one| Upstream {
        waiting: sum.waiting + one.waiting,
        addresses: sum.addresses + one.addresses,
        available: sum.available + one.available,
    })
}

/// A few numbers of each site, for the status.
pub(super) fn summary<W: World>(turn: &Turn<W>, workers: &Workers, plan: &Plan) -> Vec<Value> {
    let Some(front) = Front::of(plan) else {
        return Vec::new();
    };
    let (counts, upstreams) = (front.counts(turn), front.upstreams(turn, workers));
    let sites = front.sites.iter().zip(counts);
    let sites = sites.zip(front.visits(turn, workers));
    let summary = sites.map(|((site, counts), connections)| {
        let state = together(site, &upstreams);
        json!({
            "name": site.name,
            "connections": connections,
            "requests": counts.iter().map(Counts::requests).sum::<u64>(),
            "errors": counts.iter().map(Counts::errors).sum::<u64>(),
            "waiting": state.waiting,
            "upstreams": state.addresses,
            "available": state.available,
        })
    });
    summary.collect()
}

/// Has the front forget what it keeps: everything, or what is of these sites and URLs. What it has forgotten, in words.
///
/// # Errors
/// There is no such site, or the memory cannot be written.
pub(super) fn purge<W: World>(
    turn: &Turn<W>,
    plan: Option<&Plan>,
    what: &[String],
) -> Result<String, String> {
    let front = plan.and_then(Front::of);
    let front = front.ok_or("there is no site, so nothing is kept")?;
    let mut places = Vec::new();
    for word in what {
        let is_site = || front.sites.iter().any(|site| site.name == *word);
        places.push(match target(word) {
            Some((host, target)) => purges::of_target(host.as_bytes(), target.as_bytes()),
            None if is_site() => purges::of_site(word),
            None => {
                return Err(format!(
                    "there is no site \"{word}\" (name a site, or write a URL with http:// or https://)"
                ));
            }
        });
    }
    if what.is_empty() {
        places.push(purges::of_all());
    }
    let written = turn.world.purge(&front.name, &places);
    written.map_err(|error| format!("cannot write to the memory of the front: {error}"))?;
    let shown = match what {
        [] => "all responses that were kept".to_owned(),
        what => format!("the responses that were kept for {}", what.join(", ")),
    };
    info!("control: purged {shown}");
    Ok(format!("purged {shown}"))
}

/// The host and the target of a URL.
fn target(url: &str) -> Option<(&str, String)> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    let slash = if target.starts_with('/') { "" } else { "/" };
    Some((host, format!("{slash}{target}")))
}

/// All that was counted.
pub(super) fn metrics<W: World>(turn: &Turn<W>, workers: &Workers, plan: &Plan) -> Value {
    let Some(front) = Front::of(plan) else {
        return json!({});
    };
    let (counts, upstreams) = (front.counts(turn), front.upstreams(turn, workers));
    let others = turn
        .world
        .counters(&front.name, &[counters::NO_SITE, counters::HANDSHAKES]);
    let other = |at: usize| others.get(at).map(Vec::as_slice).unwrap_or_default();
    let sites = front.sites.iter().zip(counts);
    let sites = sites.zip(front.visits(turn, workers));
    let sites = sites.map(|((site, counts), connections)| {
        let state = together(site, &upstreams);
        let routes = site.routes.iter().map(String::as_str);
        let routes = [""].into_iter().chain(routes).zip(counts);
        let routes = routes.map(|(route, counts)| json!({"route": route, "counts": counts}));
        json!({
            "name": site.name,
            "connections": connections,
            "upstreams": state.addresses,
            "available": state.available,
            "routes": routes.collect::<Vec<_>>(),
        })
    });
    let sites: Vec<_> = sites.collect();
    let upstreams = upstreams.iter().map(|(name, state)| {
        json!({
            "name": name,
            "waiting": state.waiting,
            "addresses": state.addresses,
            "available": state.available,
        })
    });
    json!({
        "connections": front.connections(turn, workers),
        "handshakes": counters::decode_handshakes(other(1)),
        "no_site": Counts::decode(other(0)),
        "sites": sites,
        "upstreams": upstreams.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn a_url_has_a_host_and_a_target_as_clients_send_them() {
        for (url, expected) in [
            ("https://a.example/x?y#z", Some(("a.example", "/x?y"))),
            ("http://a.example:8080", Some(("a.example:8080", "/"))),
            ("http://a.example?x", Some(("a.example", "/?x"))),
            ("shop", None),
        ] {
            let expected = expected.map(|(host, target): (&str, &str)| (host, target.to_owned()));
            assert_eq!(target(url), expected, "{url}");
        }
    }
}
