//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use super::sites::{Front, Route};
use super::{App, Cause, Metrics, STATES};
use crate::census::Phase;
use crate::counters::{BOUNDS, Counts, Histogram};
use crate::scoreboard::LATENCY_BUCKETS;

/// The names of the classes of responses.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The buckets of an app's latency that have a line: those below have less than 256 microseconds, and those above more than 4 s.
const SHOWN: std::ops::Range<usize> = 8..LATENCY_BUCKETS - 1;

/// The text.
pub fn text(metrics: &Metrics) -> String {
    let mut text = Text(String::new());
    text.master(metrics);
    text.apps(&metrics.apps);
    if let Some(front) = &metrics.front {
        text.front(front);
    }
    text.0
}

impl Text {
    fn master(&mut self, metrics: &Metrics) {
        self.begin("preforkd_info", "gauge", "The version of the master.");
        self.sample("preforkd_info", &label("version", &metrics.version), 1);
        self.begin(
            "preforkd_phase",
            "gauge",
            "What the master is doing: 1 for that.",
        );
        for phase in Phase::ALL {
            let is_it = phase.name() == metrics.phase;
            self.sample(
                "preforkd_phase",
                &label("phase", phase.name()),
                u8::from(is_it),
            );
        }
        let none = String::new();
        self.gauges(
            "preforkd_generation",
            "The generation that runs, 0 before the first one.",
            [(&none, metrics.generation)].into_iter(),
        );
        self.gauges(
            "preforkd_ready",
            "Whether /readyz says 200.",
            [(&none, metrics.is_ready.into())].into_iter(),
        );
    }

    fn apps(&mut self, apps: &[App]) {
        let apps: Vec<_> = apps
            .iter()
            .map(|app| (label("app", &app.name), app))
            .collect();
        self.of_apps(
            &apps,
            "preforkd_app_generation",
            "The generation that an app runs.",
            |app| Some(app.generation),
        );
        self.of_apps(
            &apps,
            "preforkd_app_workers_wanted",
            "Workers that an app is to have.",
            |app| Some(app.wanted),
        );
        let name = "preforkd_app_workers";
        self.begin(name, "gauge", "Workers of an app by their state.");
        for (labels, app) in &apps {
            for (state, number) in STATES.iter().zip(app.workers) {
                self.sample(name, &format!("{labels},state=\"{state}\""), number);
            }
        }
        let name = "preforkd_app_worker_ends_total";
        self.begin(name, "counter", "Workers that have ended, by the cause.");
        for (labels, app) in &apps {
            for (cause, number) in Cause::ALL.iter().zip(app.sums.ends) {
                self.sample(
                    name,
                    &format!("{labels},cause=\"{}\"", cause.name()),
                    number,
                );
            }
        }
        let name = "preforkd_app_requests_total";
        self.begin(name, "counter", "Requests that workers have answered, or broken off before the head of a response (status none).");
        for (labels, app) in &apps {
            for (class, number) in CLASSES.iter().zip(app.sums.responses) {
                self.sample(name, &format!("{labels},status=\"{class}\""), number);
            }
        }
        let name = "preforkd_app_request_duration_seconds";
        self.begin(
            name,
            "histogram",
            "From the whole request to the end of its response.",
        );
        for (labels, app) in &apps {
            self.latency(name, labels, &app.sums.latency, app.sums.time);
        }
        let name = "preforkd_app_sent_bytes_total";
        self.begin(
            name,
            "counter",
            "Bytes that workers have written to clients.",
        );
        for (labels, app) in &apps {
            self.sample(name, labels, app.sums.bytes);
        }
        self.of_apps(
            &apps,
            "preforkd_app_requests_running",
            "Threads that run a request.",
            |app| Some(app.running),
        );
        self.of_apps(
            &apps,
            "preforkd_app_connections",
            "Open connections.",
            |app| Some(app.connections),
        );
        self.of_apps(
            &apps,
            "preforkd_app_accept_queue_length",
            "Connections that no worker has accepted yet.",
            |app| app.queue,
        );
        self.of_apps(
            &apps,
            "preforkd_app_memory_bytes",
            "Resident memory of all workers that is no file; pages that they share since a fork count for each.",
            |app| app.memory,
        );
        let name = "preforkd_app_cpu_seconds_total";
        self.begin(name, "counter", "Processor time of all workers.");
        for (labels, app) in &apps {
            self.sample(name, labels, seconds(app.sums.cpu));
        }
    }

    /// A gauge that some apps have.
    fn of_apps(
        &mut self,
        apps: &[(String, &App)],
        name: &str,
        help: &str,
        value: impl Fn(&App) -> Option<u64>,
    ) {
        let samples = apps
            .iter()
            .filter_map(|(labels, app)| Some((labels, value(app)?)));
        let samples: Vec<_> = samples.collect();
        if !samples.is_empty() {
            self.gauges(name, help, samples.into_iter());
        }
    }

    /// The buckets of a scoreboard, which are powers of two in microseconds.
    fn latency(&mut self, name: &str, labels: &str, buckets: &[u64; LATENCY_BUCKETS], sum: u64) {
        let mut count = buckets[..SHOWN.start].iter().sum::<u64>();
        for bucket in SHOWN {
            count += buckets[bucket];
            let labels = format!("{labels},le=\"{}\"", seconds(1 << bucket));
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        count += buckets[SHOWN.end..].iter().sum::<u64>();
        self.sample(
            &format!("{name}_bucket"),
            &format!("{labels},le=\"+Inf\""),
            count,
        );
        self.sample(&format!("{name}_sum"), labels, seconds(sum));
        self.sample(&format!("{name}_count"), labels, count);
    }

    fn front(&mut self, front: &Front) {
        let mut all = vec![(String::from("site=\"\",route=\"\""), &front.no_site)];
        for site in &front.sites {
            for Route { route, counts } in &site.routes {
                let labels = format!("{},{}", label("site", &site.name), label("route", route));
                all.push((labels, counts));
            }
        }
        self.begin(
        "preforkd_site_requests_total",
        "counter",
        "Requests that were answered, or broken off before the head of a response (status none).",
    );
        for (labels, counts) in &all {
            for (class, number) in CLASSES.iter().zip(counts.responses) {
                let labels = format!("{labels},status=\"{class}\"");
                self.sample("preforkd_site_requests_total", &labels, number);
            }
        }
        self.begin(
            "preforkd_site_response_body_bytes_total",
            "counter",
            "Bytes of the bodies of responses.",
        );
        for (labels, counts) in &all {
            self.sample(
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
            self.begin(name, "histogram", help);
            for (labels, counts) in &all {
                self.histogram(name, labels, times(counts));
            }
        }
        let sites = &front.sites;
        let sites: Vec<_> = sites
            .iter()
            .map(|site| (label("site", &site.name), site))
            .collect();
        self.gauges(
            "preforkd_site_connections",
            "Open connections of clients, by the site of their latest request.",
            sites
                .iter()
                .map(|(labels, site)| (labels, site.connections)),
        );
        self.gauges(
            "preforkd_site_upstreams",
            "Addresses to which the routes of a site lead.",
            sites.iter().map(|(labels, site)| (labels, site.upstreams)),
        );
        self.gauges(
            "preforkd_site_upstreams_available",
            "Those of them that take requests.",
            sites.iter().map(|(labels, site)| (labels, site.available)),
        );
        let upstreams = &front.upstreams;
        let upstreams: Vec<_> = upstreams
            .iter()
            .map(|one| (label("upstream", &one.name), one))
            .collect();
        self.gauges(
            "preforkd_upstream_queue_length",
            "Requests that wait for an upstream.",
            upstreams.iter().map(|(labels, one)| (labels, one.waiting)),
        );
        self.gauges(
            "preforkd_upstream_addresses",
            "Addresses of an upstream.",
            upstreams
                .iter()
                .map(|(labels, one)| (labels, one.addresses)),
        );
        self.gauges(
            "preforkd_upstream_addresses_available",
            "Those of them that take requests.",
            upstreams
                .iter()
                .map(|(labels, one)| (labels, one.available)),
        );
        self.gauges(
            "preforkd_front_connections",
            "Open connections of clients.",
            [(&String::new(), front.connections)].into_iter(),
        );
        let name = "preforkd_front_tls_handshakes_total";
        self.begin(name, "counter", "Handshakes of TLS with clients.");
        for (result, number) in ["full", "resumed", "failed"].iter().zip(front.handshakes) {
            self.sample(name, &format!("result=\"{result}\""), number);
        }
    }
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
        let front = json!({
            "connections": 2,
            "handshakes": [5, 4, 1],
            "no_site": Counts::default(),
            "sites": [{"name": "shop", "connections": 6, "waiting": 0, "upstreams": 2, "available": 1, "routes": [{"route": "/a\"b\\\n", "counts": counts}]}],
            "upstreams": [{"name": "web", "waiting": 3, "addresses": 2, "available": 1}],
        });
        let mut app = App {
            name: "we\"b".into(),
            generation: 4,
            wanted: 3,
            workers: [1, 2, 3, 4],
            queue: Some(9),
            memory: Some(4096),
            ..App::default()
        };
        app.sums.ended(Cause::Hung);
        (app.sums.responses[2], app.sums.cpu, app.sums.time) = (7, 2_500_000, 1_000_001);
        (
            app.sums.latency[0],
            app.sums.latency[8],
            app.sums.latency[23],
        ) = (1, 2, 4);
        Metrics {
            version: "1.0".into(),
            phase: "reloading".into(),
            generation: 5,
            is_ready: true,
            apps: vec![app],
            front: serde_json::from_value(front).expect("the form of the master"),
        }
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
        assert_eq!(seen.len(), 28, "{seen:?}");
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
            "preforkd_info{version=\"1.0\"} 1",
            "preforkd_phase{phase=\"ready\"} 0",
            "preforkd_phase{phase=\"reloading\"} 1",
            "preforkd_ready 1",
            r#"preforkd_app_workers{app="we\"b",state="busy"} 3"#,
            r#"preforkd_app_worker_ends_total{app="we\"b",cause="hung"} 1"#,
            r#"preforkd_app_requests_total{app="we\"b",status="2xx"} 7"#,
            r#"preforkd_app_request_duration_seconds_bucket{app="we\"b",le="0.000256"} 3"#,
            r#"preforkd_app_request_duration_seconds_bucket{app="we\"b",le="4.194304"} 3"#,
            r#"preforkd_app_request_duration_seconds_bucket{app="we\"b",le="+Inf"} 7"#,
            r#"preforkd_app_request_duration_seconds_sum{app="we\"b"} 1.000001"#,
            r#"preforkd_app_accept_queue_length{app="we\"b"} 9"#,
            r#"preforkd_app_memory_bytes{app="we\"b"} 4096"#,
            r#"preforkd_app_cpu_seconds_total{app="we\"b"} 2.5"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_nobody_has_is_left_out() {
        let mut metrics = example();
        metrics.front = None;
        let app = &mut metrics.apps[0];
        (app.queue, app.memory) = (None, None);
        let text = text(&metrics);
        for name in [
            "preforkd_site",
            "preforkd_front",
            "preforkd_app_accept_queue",
            "preforkd_app_memory",
        ] {
            assert!(!text.contains(name), "{name}");
        }
        assert!(text.contains("preforkd_app_workers_wanted"));
    }
}
