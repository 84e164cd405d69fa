//! What the front has counted, in the text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use preforkd_worker::counters::{BOUNDS, Counts, Histogram};
use serde::Deserialize;

/// The answer of the master to `metrics`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metrics {
    connections: u64,
    /// Completed with a new session, completed with an earlier one, failed.
    handshakes: [u64; 3],
    no_site: Counts,
    sites: Vec<Site>,
    upstreams: Vec<Upstream>,
}

#[derive(Debug, Deserialize)]
struct Site {
    name: String,
    connections: u64,
    upstreams: u64,
    available: u64,
    routes: Vec<Route>,
}

#[derive(Debug, Deserialize)]
struct Route {
    route: String,
    counts: Counts,
}

#[derive(Debug, Deserialize)]
struct Upstream {
    name: String,
    waiting: u64,
    addresses: u64,
    available: u64,
}

/// The names of the classes of responses.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The text. A master without sites has nothing to say.
pub fn text(metrics: &Metrics) -> String {
    let mut text = Text(String::new());
    if metrics.sites.is_empty() {
        return text.0;
    }
    let mut all = vec![(String::from("site=\"\",route=\"\""), &metrics.no_site)];
    for site in &metrics.sites {
        for Route { route, counts } in &site.routes {
            let labels = format!("{},{}", label("site", &site.name), label("route", route));
            all.push((labels, counts));
        }
    }
    text.begin(
        "preforkd_site_requests_total",
        "counter",
        "Requests that were answered, or broken off before the head of a response (status none).",
    );
    for (labels, counts) in &all {
        for (class, number) in CLASSES.iter().zip(counts.responses) {
            let labels = format!("{labels},status=\"{class}\"");
            text.sample("preforkd_site_requests_total", &labels, number);
        }
    }
    text.begin(
        "preforkd_site_response_body_bytes_total",
        "counter",
        "Bytes of the bodies of responses.",
    );
    for (labels, counts) in &all {
        text.sample(
            "preforkd_site_response_body_bytes_total",
            labels,
            counts.bytes,
        );
    }
    type Times = fn(&Counts) -> &Histogram;
    let histograms: [(&str, &str, Times); 2] = [
        (
            "preforkd_site_request_duration_seconds",
            "From the whole request to the end of its response.",
            |counts| &counts.taken,
        ),
        (
            "preforkd_site_request_wait_seconds",
            "The part of it for which the request waited for a worker.",
            |counts| &counts.waited,
        ),
    ];
    for (name, help, times) in histograms {
        text.begin(name, "histogram", help);
        for (labels, counts) in &all {
            text.histogram(name, labels, times(counts));
        }
    }
    let sites = &metrics.sites;
    let sites: Vec<_> = sites
        .iter()
        .map(|site| (label("site", &site.name), site))
        .collect();
    text.gauges(
        "preforkd_site_connections",
        "Open connections of clients, by the site of their latest request.",
        sites
            .iter()
            .map(|(labels, site)| (labels, site.connections)),
    );
    text.gauges(
        "preforkd_site_upstreams",
        "Addresses to which the routes of a site lead.",
        sites.iter().map(|(labels, site)| (labels, site.upstreams)),
    );
    text.gauges(
        "preforkd_site_upstreams_available",
        "Those of them that take requests.",
        sites.iter().map(|(labels, site)| (labels, site.available)),
    );
    let upstreams = &metrics.upstreams;
    let upstreams: Vec<_> = upstreams
        .iter()
        .map(|one| (label("upstream", &one.name), one))
        .collect();
    text.gauges(
        "preforkd_upstream_queue_length",
        "Requests that wait for an upstream.",
        upstreams.iter().map(|(labels, one)| (labels, one.waiting)),
    );
    text.gauges(
        "preforkd_upstream_addresses",
        "Addresses of an upstream.",
        upstreams
            .iter()
            .map(|(labels, one)| (labels, one.addresses)),
    );
    text.gauges(
        "preforkd_upstream_addresses_available",
        "Those of them that take requests.",
        upstreams
            .iter()
            .map(|(labels, one)| (labels, one.available)),
    );
    text.gauges(
        "preforkd_front_connections",
        "Open connections of clients.",
        [(&String::new(), metrics.connections)].into_iter(),
    );
    let name = "preforkd_front_tls_handshakes_total";
    text.begin(name, "counter", "Handshakes of TLS with clients.");
    for (result, number) in ["full", "resumed", "failed"].iter().zip(metrics.handshakes) {
        text.sample(name, &format!("result=\"{result}\""), number);
    }
    text.0
}

/// A label, with what its value may not contain escaped.
fn label(name: &str, value: &str) -> String {
    let mut label = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => label.push_str("\\\\"),
            '"' => label.push_str("\\\""),
            '\n' => label.push_str("\\n"),
            c => label.push(c),
        }
    }
    label.push('"');
    label
}

/// A text that grows. Writing to a string cannot fail.
struct Text(String);

impl Text {
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (&'a String, u64)>,
    ) {
        self.begin(name, "gauge", help);
        for (labels, value) in samples {
            self.sample(name, labels, value);
        }
    }

    /// The buckets of a histogram count all that is not longer than their bound.
    fn histogram(&mut self, name: &str, labels: &str, times: &Histogram) {
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound));
        let bounds = bounds.chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, number) in bounds.zip(times.buckets) {
            count += number;
            let labels = format!("{labels},le=\"{bound}\"");
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(times.sum));
        self.sample(&format!("{name}_count"), labels, count);
    }
}

/// Microseconds as seconds.
fn seconds(microseconds: u64) -> String {
    let (whole, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    match rest {
        0 => whole.to_string(),
        rest => format!("{whole}.{rest:06}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> Metrics {
        let mut counts = Counts {
            responses: [0, 0, 3, 0, 0, 1],
            bytes: 17,
            ..Counts::default()
        };
        counts.taken.buckets[..2].copy_from_slice(&[3, 1]);
        counts.taken.sum = 4_200_001;
        let metrics = json!({
            "connections": 2,
            "handshakes": [5, 4, 1],
            "no_site": Counts::default(),
            "sites": [{"name": "shop", "connections": 6, "upstreams": 2, "available": 1, "routes": [{"route": "/a\"b\\\n", "counts": counts}]}],
            "upstreams": [{"name": "web", "waiting": 3, "addresses": 2, "available": 1}],
        });
        serde_json::from_value(metrics).expect("the form of the master")
    }

    #[test]
    fn each_metric_has_a_type_and_its_samples_stand_together() {
        let text = text(&example());
        let mut family = "";
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().expect("a name");
                assert!(seen.insert(name), "{name} stands there twice");
                family = name;
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} is not of {family}");
                let (_, value) = line.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert_eq!(seen.len(), 12, "{seen:?}");
    }

    #[test]
    fn numbers_are_in_base_units_buckets_add_up_and_labels_are_escaped() {
        let text = text(&example());
        let route = r#"site="shop",route="/a\"b\\\n""#;
        for line in [
            &*format!("preforkd_site_requests_total{{{route},status=\"2xx\"}} 3"),
            &*format!("preforkd_site_requests_total{{{route},status=\"5xx\"}} 1"),
            &*format!("preforkd_site_request_duration_seconds_bucket{{{route},le=\"0.001\"}} 3"),
            &*format!("preforkd_site_request_duration_seconds_bucket{{{route},le=\"0.0025\"}} 4"),
            &*format!("preforkd_site_request_duration_seconds_bucket{{{route},le=\"30\"}} 4"),
            &*format!("preforkd_site_request_duration_seconds_bucket{{{route},le=\"+Inf\"}} 4"),
            &*format!("preforkd_site_request_duration_seconds_sum{{{route}}} 4.200001"),
            &*format!("preforkd_site_request_duration_seconds_count{{{route}}} 4"),
            "preforkd_site_upstreams_available{site=\"shop\"} 1",
            "preforkd_upstream_queue_length{upstream=\"web\"} 3",
            "preforkd_site_connections{site=\"shop\"} 6",
            "preforkd_front_connections 2",
            "preforkd_front_tls_handshakes_total{result=\"resumed\"} 4",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[test]
    fn without_sites_there_is_nothing() {
        let metrics = serde_json::from_str("{}").expect("no sites");
        assert_eq!(text(&metrics), "");
    }
}
