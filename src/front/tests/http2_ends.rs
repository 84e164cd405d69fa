//! How connections with HTTP/2 end, and what they wait for.

mod common;
mod http2;

use std::time::Duration;

use common::{OK, Options, front, front_with, upstream};
use http2::*;
use preforkd_http::Limits;

/// Short enough for a test.
const SHORT: Duration = Duration::from_millis(300);

fn options(limits: Limits) -> Options {
    Options {
        limits,
        ..Options::default()
    }
}

#[test]
fn at_a_drain_what_runs_goes_on_and_nothing_is_begun_any_more() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut raw = Raw::new(front.address());
    raw.headers(1, &GET, true);
    let (mut peer, _) = upstream.request();
    front.stop();
    // The first one says that there will be another, so that no request is lost that is on its way.
    let first = raw.find(|frame| frame.kind == GOAWAY);
    assert_eq!(first.goaway(), Some((0x7fff_ffff, 0)));
    let ping = raw.find(|frame| frame.kind == PING && frame.flags == 0);
    raw.headers(3, &GET, true);
    raw.send(PING, ACK, 0, ping.payload);
    let second = raw.find(|frame| frame.kind == GOAWAY);
    assert_eq!(second.goaway(), Some((3, 0)));
    let (mut other, _) = upstream.request();
    for (stream, peer) in [(3, &mut other), (1, &mut peer)] {
        peer.write(OK);
        let end = raw.find(|frame| frame.kind == DATA && frame.flags == END_STREAM);
        assert_eq!((end.stream, &*end.payload), (stream, &b"ok"[..]));
    }
    assert_eq!(raw.ends_with().unwrap_or(0), 0);
}

#[test]
fn an_idle_connection_ends_with_goaway_whatever_frames_come() {
    for (used, timeouts) in [(false, (SHORT, GUARD)), (true, (GUARD, SHORT))] {
        let (upstream, address) = upstream();
        let limits = Limits {
            header_timeout: timeouts.0,
            keepalive_timeout: timeouts.1,
            ..Limits::default()
        };
        let front = front_with(vec![address], options(limits), |_| {});
        let mut raw = Raw::new(front.address());
        if used {
            raw.headers(1, &GET, true);
            upstream.request().0.write(OK);
            raw.find(|frame| frame.kind == DATA && frame.flags == END_STREAM);
        }
        // Each answer of the server is followed by the next frame, until it says that it ends.
        raw.send(PING, 0, 0, [0; 8]);
        loop {
            let frame = raw.frame().expect("GOAWAY before the end");
            match (frame.kind, frame.flags) {
                (GOAWAY, _) => {
                    assert_eq!(frame.goaway(), Some((0x7fff_ffff, 0)));
                    break;
                }
                (PING, ACK) => {
                    std::thread::yield_now();
                    raw.send(PING, 0, 0, [0; 8]);
                }
                _ => {}
            }
        }
        let ping = raw.find(|frame| frame.kind == PING && frame.flags == 0);
        raw.send(PING, ACK, 0, ping.payload);
        let last = raw.find(|frame| frame.kind == GOAWAY);
        assert_eq!(last.goaway(), Some((u32::from(used), 0)));
        assert_eq!(raw.frame(), None);
    }
}

#[test]
fn who_never_says_anything_or_not_all_of_the_preface_is_left() {
    let (_upstream, address) = upstream();
    let limits = Limits {
        header_timeout: SHORT,
        ..Limits::default()
    };
    let front = front_with(vec![address], options(limits), |_| {});
    for begun in ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut raw = Raw::connect(front.address());
        std::io::Write::write_all(&mut raw.stream, begun.as_bytes()).unwrap();
        while raw.frame().is_some() {}
    }
    let mut peer = front.send("PRI * HTTP/2.0\r\n\r\nS");
    assert!(peer.rest().starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_client_that_opens_no_window_is_left_and_the_others_are_not() {
    let (upstream, address) = upstream();
    let limits = Limits {
        write_timeout: SHORT,
        ..Limits::default()
    };
    let front = front_with(vec![address], options(limits), |_| {});
    // 4: INITIAL_WINDOW_SIZE.
    let mut raw = Raw::with(front.address(), &[(4, 0)]);
    raw.headers(1, &GET, true);
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc");
    let reset = raw.find(|frame| frame.reset().is_some());
    assert_eq!((reset.stream, reset.reset()), (1, Some(CANCEL)));
    peer.ends();
    raw.headers(3, &GET, true);
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 204 No Content\r\n\r\n");
    let head = raw.find(|frame| frame.stream == 3);
    assert_eq!((head.kind, head.flags), (HEADERS, END_HEADERS | END_STREAM));
}

#[test]
fn a_body_that_does_not_come_is_answered_408_and_the_client_told_to_stop() {
    let (upstream, address) = upstream();
    let limits = Limits {
        body_timeout: SHORT,
        ..Limits::default()
    };
    let front = front_with(vec![address], options(limits), |_| {});
    let mut client = Client::new(front.address());
    let (pending, mut body) = client.send(post("/"), false);
    client.data(&mut body, "abc".into(), false);
    assert_eq!(client.whole(pending).status, 408);
    let reason = client.run(std::future::poll_fn(|cx| body.poll_reset(cx)));
    assert_eq!(reason.unwrap(), h2::Reason::NO_ERROR);
    assert!(upstream.is_unused());
}

#[test]
fn more_streams_than_may_be_are_refused() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut raw = Raw::new(front.address());
    for number in 0..=128 {
        raw.headers(2 * number + 1, &GET, true);
    }
    let reset = raw.find(|frame| frame.reset().is_some());
    assert_eq!((reset.stream, reset.reset()), (257, Some(REFUSED_STREAM)));
    for _ in 0..128 {
        upstream.request().0.write(OK);
        raw.find(|frame| frame.kind == DATA && frame.flags == END_STREAM);
    }
}

#[test]
fn streams_are_no_connections() {
    let (upstream, address) = upstream();
    let limits = Limits {
        max_connections: 2,
        ..Limits::default()
    };
    let front = front_with(vec![address], options(limits), |_| {});
    let mut raw = Raw::new(front.address());
    for number in 0..5 {
        raw.headers(2 * number + 1, &GET, true);
    }
    let peers: Vec<_> = (0..5).map(|_| upstream.request().0).collect();
    let mut other = front.get();
    upstream.request().0.write(OK);
    assert_eq!(other.message(), common::OK_SEEN);
    for mut peer in peers {
        peer.write(OK);
        raw.find(|frame| frame.kind == DATA && frame.flags == END_STREAM);
    }
}
