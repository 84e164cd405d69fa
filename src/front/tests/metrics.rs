//! What a worker of the front says of its upstreams.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{GET, OK, Options, front_with, upstream};
use preforkd_front::upstream::address::Address;
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
