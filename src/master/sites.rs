//! What the workers of the front have counted for each site, for `preforkd status` and `preforkd metrics`.
//!
//! They are numbers that those workers have written: nothing follows from them.

use log::info;
use preforkd_worker::counters::Counts;
use preforkd_worker::front::Outline;
use preforkd_worker::metrics::sites;
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

    fn read<W: World>(&self, turn: &Turn<W>, workers: &Workers) -> sites::Front {
        let mut connections = 0;
        let children = workers.children.of(&self.name);
        let known = children.filter_map(|(pid, child)| {
            let record = child.record?;
            let age = turn.now.saturating_duration_since(child.asked_for);
            let seen = turn.world.read(&self.name, record, age);
            connections += seen.map_or(0, |seen| seen.connections);
            Some(sites::Worker {
                pid: u32::try_from(pid.as_raw()).unwrap_or_default(),
                record,
                leaves: child.leaves,
            })
        });
        let known: Vec<_> = known.collect();
        let board = Board {
            turn,
            app: &self.name,
        };
        sites::Front::read(&board, self.sites, &known, connections)
    }
}

/// The scoreboard of the front.
struct Board<'a, W> {
    turn: &'a Turn<W>,
    app: &'a Name,
}

impl<W: World> sites::Memory for Board<'_, W> {
    fn counters(&self, keys: &[u64]) -> Vec<Vec<u64>> {
        self.turn.world.counters(self.app, keys)
    }

    fn gauges(&self, record: u32) -> Vec<u64> {
        self.turn.world.gauges(self.app, record)
    }
}

/// A few numbers of each site, for the status.
pub(super) fn summary<W: World>(turn: &Turn<W>, workers: &Workers, plan: &Plan) -> Vec<Value> {
    let Some(front) = metrics(turn, workers, plan) else {
        return Vec::new();
    };
    let summary = front.sites.iter().map(|site| {
        let counts = || site.routes.iter().map(|route| &route.counts);
        json!({
            "name": site.name,
            "connections": site.connections,
            "requests": counts().map(Counts::requests).sum::<u64>(),
            "errors": counts().map(Counts::errors).sum::<u64>(),
            "waiting": site.waiting,
            "upstreams": site.upstreams,
            "available": site.available,
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

/// All that was counted, if there are sites.
pub(super) fn metrics<W: World>(
    turn: &Turn<W>,
    workers: &Workers,
    plan: &Plan,
) -> Option<sites::Front> {
    Some(Front::of(plan)?.read(turn, workers))
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
