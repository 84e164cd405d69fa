//! `max_connections` of a site, in one worker; tests/clients.rs has several.

mod common;
mod http2;
mod sited;

use preforkd_worker::front::{Site, Target};
use preforkd_worker::layers::Layers;
use sited::{Served, field, route, serve_with};

/// A site with this limit, and another one without for the host `other`.
fn limited(most: u32) -> Served {
    let answer = || Target::Answer {
        status: 200,
        content_type: "text/plain".into(),
        body: "ok".into(),
    };
    let layers = Layers {
        max_connections: Some(most),
        deny: vec!["10.0.0.0/8".parse().unwrap()],
        ..Layers::default()
    };
    let closed = Layers {
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        ..Layers::default()
    };
    let routes = vec![
        route("/text", answer(), Layers::default()),
        route("/closed", answer(), closed),
    ];
    serve_with(layers, routes, |settings| {
        settings.sites.push(Site {
            name: "other".into(),
            hosts: vec!["other".into()],
            routes: vec![route("/", answer(), Layers::default())],
            layers: Layers::default(),
            ..settings.sites[0].clone()
        });
    })
}

fn is_served(message: &str) -> bool {
    message.starts_with("HTTP/1.1 200 ")
}

const OTHER: &str = "GET / HTTP/1.1\r\nHost: other\r\n\r\n";
const TEXT: &str = "GET /text HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn one_connection_too_many_is_answered_503_and_closed() {
    let served = limited(3);
    // These are not known to be the site's.
    let _silent = [served.send(""), served.send(OTHER)];
    let mut open = [(); 2].map(|()| served.get("/text", ""));
    for peer in &mut open {
        let answer = peer.message();
        assert!(is_served(&answer) && field(&answer, "Connection").is_none());
        // The next request counts no further connection.
        peer.write(TEXT);
        assert!(is_served(&peer.message()));
    }
    let mut waits = served.get("/app", "");
    let (mut upstream, _) = served.upstream.request();
    for _ in 0..2 {
        let mut refused = served.get("/text", "");
        let answer = refused.message();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert_eq!(field(&answer, "Connection"), Some("close"));
        assert_eq!(field(&answer, "Retry-After"), Some("1"));
        refused.ends();
    }
    // A body that nobody reads makes no difference.
    let mut refused = served.send("POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    assert!(refused.message().starts_with("HTTP/1.1 503 "));
    // Who has one is served, and does not keep it while others want it.
    let [first, mut second] = open;
    second.write(TEXT);
    let answer = second.message();
    assert!(is_served(&answer));
    assert_eq!(field(&answer, "Connection"), Some("close"));
    second.ends();
    let mut third = served.get("/text", "");
    assert!(is_served(&third.message()));
    upstream.write(common::OK);
    assert!(is_served(&waits.message()));
    drop(first);
}

#[test]
fn a_connection_is_no_longer_one_of_a_site_when_it_asks_for_another() {
    let served = limited(2);
    let mut one = served.get("/text", "");
    assert!(is_served(&one.message()));
    let _waits = served.get("/app", "");
    let _running = served.upstream.request();
    assert!(
        served
            .get("/text", "")
            .message()
            .starts_with("HTTP/1.1 503 ")
    );
    one.write(OTHER);
    let answer = one.message();
    assert!(is_served(&answer) && field(&answer, "Connection").is_none());
    let mut next = served.get("/text", "");
    assert!(is_served(&next.message()));
    // It has no right to come back.
    let _waits = served.get("/app", "");
    let _running = served.upstream.request();
    one.write(TEXT);
    assert!(one.message().starts_with("HTTP/1.1 503 "));
    one.ends();
}

#[test]
fn what_the_site_refuses_takes_no_place() {
    let served = limited(1);
    let mut refused = served.get("/closed", "");
    assert!(refused.message().starts_with("HTTP/1.1 403 "));
    let mut other = served.get("/text", "");
    assert!(is_served(&other.message()));
}

#[test]
fn a_connection_with_http_2_counts_for_each_site_until_its_end() {
    let served = limited(1);
    let mut client = http2::Client::new(served.address);
    for (path, host) in [("/text", "a"), ("/", "other"), ("/text", "a")] {
        let request = http::Request::get(format!("http://{host}{path}"));
        let (response, _) = client.send(request.body(()).unwrap(), true);
        assert_eq!(client.whole(response).status, 200);
    }
    let mut refused = http2::Client::new(served.address);
    let (response, _) = refused.send(http2::get("/text"), true);
    assert_eq!(refused.whole(response).status, 503);
    let mut plain = served.get("/text", "");
    assert!(plain.message().starts_with("HTTP/1.1 503 "));
    drop(client);
    // Its connection stays, and the server will see that there is room.
    loop {
        let (response, _) = refused.send(http2::get("/text"), true);
        match refused.whole(response).status {
            503 => {}
            status => break assert_eq!(status, 200),
        }
    }
}
