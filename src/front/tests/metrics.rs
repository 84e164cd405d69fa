//! What a worker of the front says of its upstreams, and of the connections of its sites.

mod common;
mod http2;
mod sited;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{GET, OK, Options, front_with, upstream};
use preforkd_front::upstream::address::Address;
use preforkd_worker::front::Target;
use preforkd_worker::gauges::{Upstream, WORKER_WORDS, read};

fn place() -> &'static [AtomicU64] {
    let words: Vec<_> = (0..WORKER_WORDS).map(|_| AtomicU64::new(0)).collect();
    words.leak()
}

fn said(place: &[AtomicU64]) -> Option<Upstream> {
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    read(&place.iter().map(load).collect::<Vec<_>>(), 1, "web")
}

fn options(place: &'static [AtomicU64]) -> Options {
    Options {
        gauges: Some(place),
        ..Options::default()
    }
}

#[test]
fn what_waits_is_shown_while_it_waits() {
    let place = place();
    let (upstream, address) = upstream();
    let front = front_with(vec![address], options(place), |settings| {
        settings.limits.most_running = 1;
        settings.limits.queue_length = 1;
    });
    let mut first = front.get();
    let (mut serving, _) = upstream.request();
    let mut second = front.get();
    // When the second one of those has its answer, the worker has waited for events since it took in the first one.
    for _ in 0..2 {
        let refused = front.get().message();
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    }
    let full = Upstream {
        waiting: 1,
        addresses: 1,
        available: 1,
    };
    assert_eq!(said(place), Some(full));
    serving.write(OK);
    assert!(first.message().starts_with("HTTP/1.1 200"));
    serving.message();
    serving.write(OK);
    assert!(second.message().starts_with("HTTP/1.1 200"));
    // It has waited for events since nothing waits any more.
    first.write(GET);
    serving.message();
    let empty = Upstream { waiting: 0, ..full };
    assert_eq!(said(place), Some(empty));
}

#[test]
fn an_address_that_is_left_alone_is_not_available() {
    let place = place();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = Address::Tcp(listener.local_addr().unwrap());
    drop(listener);
    let front = front_with(vec![closed], options(place), |settings| {
        settings.limits.health.max_fails = 1;
    });
    for _ in 0..2 {
        let refused = front.get().message();
        assert!(refused.starts_with("HTTP/1.1 502"), "{refused}");
    }
    let away = Upstream {
        waiting: 0,
        addresses: 1,
        available: 0,
    };
    assert_eq!(said(place), Some(away));
}

#[test]
fn a_connection_is_one_of_its_site_from_its_first_request_on_whatever_it_carries() {
    let answer = Target::Answer {
        status: 200,
        content_type: "text/plain".into(),
        body: "ok".into(),
    };
    let served = sited::serve(
        Default::default(),
        vec![sited::route("/text", answer, Default::default())],
    );
    let silent = served.send("");
    let mut one = served.send("GET /text HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(one.message().starts_with("HTTP/1.1 200"));
    assert_eq!(served.connections(), 1);
    // Two streams at once, one of which stays open.
    let mut client = http2::Client::new(served.address);
    let (waits, _) = client.send(http2::get("/app"), true);
    let (mut upstream, _) = served.upstream.request();
    let (response, _) = client.send(http2::get("/text"), true);
    assert_eq!(client.whole(response).status, 200);
    assert_eq!(served.connections(), 2);
    upstream.write(OK);
    assert_eq!(client.whole(waits).status, 200);
    drop((silent, one));
    drop(client);
    while served.connections() > 0 {}
}
