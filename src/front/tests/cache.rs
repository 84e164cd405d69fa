//! `cache`: responses that are kept and given to others.

mod common;
mod sited;

use std::os::fd::AsFd;

use common::Peer;
use preforkd_http::Response;
use preforkd_worker::layers::{Changes, Layers};
use preforkd_worker::purges;
use rustix::event::{PollFd, PollFlags, poll};
use sited::{Served, field, serve};

fn caching() -> Layers {
    Layers {
        cache: Some(true),
        ..Layers::default()
    }
}

/// A response with this body, and these fields.
fn response(fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
}

/// Asks, has the upstream answer, and returns what the client gets.
fn passed(served: &Served, path: &str, fields: &str, answer: &str) -> String {
    let mut client = served.get(path, fields);
    let (mut app, _) = served.upstream.request();
    app.write(answer);
    client.message()
}

/// Asks, and returns what the client gets without that the upstream is asked.
fn kept(served: &Served, path: &str, fields: &str) -> String {
    let message = served.get(path, fields).message();
    assert!(served.upstream.is_unused());
    message
}

/// Whether the upstream is asked before the client gets a response.
fn asks(served: &Served, client: &Peer) -> bool {
    let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut fds = [
        readable(served.upstream.listener.as_fd()),
        readable(client.stream.as_fd()),
    ];
    poll(&mut fds, None).unwrap();
    !fds[0].revents().is_empty()
}

const FRESH: &str = "Cache-Control: max-age=60\r\n";

#[test]
fn what_says_that_it_is_fresh_is_given_to_others_with_its_age() {
    let served = serve(caching(), Vec::new());
    let answer = response(&format!("{FRESH}ETag: \"a\"\r\nAge: 5\r\n"), "hello");
    let first = passed(&served, "/x?y", "", &answer);
    assert_eq!(field(&first, "cache-status"), Some("preforkd; fwd=miss"));
    let second = kept(&served, "/x?y", "");
    assert_eq!(field(&second, "cache-status"), Some("preforkd; hit"));
    let age: u64 = field(&second, "age").unwrap().parse().unwrap();
    assert!((5..60).contains(&age), "{second}");
    assert!(second.ends_with("\r\n\r\nhello"), "{second}");
    let unmodified = kept(&served, "/x?y", "If-None-Match: W/\"a\", \"b\"\r\n");
    assert!(unmodified.starts_with("HTTP/1.1 304 "), "{unmodified}");
    assert_eq!(field(&unmodified, "etag"), Some("\"a\""));
    let other = kept(&served, "/x?y", "If-None-Match: \"b\"\r\n");
    assert!(other.ends_with("hello"), "{other}");
    let mut head = served.send("HEAD /x?y HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = head.head();
    assert_eq!(field(&head, "content-length"), Some("5"));
    assert_eq!(field(&head, "cache-status"), Some("preforkd; hit"));
    for path in ["/x", "/x?", "/x?y=", "/X?y", "/%78?y"] {
        let other = passed(&served, path, "", &response("", path));
        assert!(other.ends_with(path), "{other}");
    }
    let other = "GET /x?y HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut client = served.send(other);
    served.upstream.request().0.write(&response("", "of b"));
    assert!(client.message().ends_with("of b"));
}

#[test]
fn a_body_in_chunks_is_kept_and_layers_see_each_response() {
    let layers = Layers {
        response_headers: Changes {
            set: vec![
                ("Cache-Control".into(), "no-store".into()),
                ("X-Method".into(), "{method}".into()),
            ],
            ..Changes::default()
        },
        ..caching()
    };
    let served = serve(layers, Vec::new());
    let answer = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n{FRESH}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    );
    let mut client = served.get("/", "");
    served.upstream.request().0.write(&answer);
    client.head();
    client.read_to("0\r\n\r\n");
    let mut client = served.get("/", "");
    client.head();
    let second = client.read_to("0\r\n\r\n");
    assert_eq!(field(&second, "cache-control"), Some("no-store"));
    assert_eq!(field(&second, "x-method"), Some("GET"));
    assert!(second.contains("abc") && second.contains("de"), "{second}");
    // What is of a request is not kept.
    let mut client = served.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    let third = client.head();
    assert!(served.upstream.is_unused());
    assert_eq!(field(&third, "x-method"), Some("HEAD"), "{third}");
}

#[test]
fn nobody_gets_what_is_of_another_user() {
    let served = serve(caching(), Vec::new());
    let public = "Cache-Control: public, max-age=60\r\n";
    for (number, (request, fields)) in [
        ("", "Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n"),
        ("", "Cache-Control: max-age=60, PRIVATE\r\n"),
        ("", ""),
        ("Authorization: Basic x\r\n", public),
        ("Cookie: a=b\r\n", FRESH),
        ("Range: bytes=0-1\r\n", public),
        ("", "Vary: *\r\nCache-Control: public, max-age=60\r\n"),
        (
            "",
            "Vary: X-Forwarded-For\r\nCache-Control: public, max-age=60\r\n",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{number}");
        passed(&served, &path, request, &response(fields, "mine"));
        for asks in ["", request] {
            let other = passed(&served, &path, asks, &response("", "theirs"));
            assert!(other.ends_with("theirs"), "{request} {fields} {other}");
        }
    }
    // What was stored for all is not for those who show who they are, but for those who only have a cookie.
    passed(&served, "/p", "", &response(public, "for all"));
    let other = passed(&served, "/p", "Authorization: x\r\n", &response("", "own"));
    assert!(other.ends_with("own"), "{other}");
    assert!(kept(&served, "/p", "Cookie: a=b\r\n").ends_with("for all"));
    passed(&served, "/q", "", &response(FRESH, "without a cookie"));
    let other = passed(&served, "/q", "Cookie: a=b\r\n", &response("", "own"));
    assert!(other.ends_with("own"), "{other}");
}

#[test]
fn a_response_that_varies_is_for_those_who_ask_alike() {
    let served = serve(caching(), Vec::new());
    let fields = "Cache-Control: max-age=60\r\nVary: Accept-Language, Cookie\r\n";
    let french = "Accept-Language: fr\r\n";
    let with_cookie = "Accept-Language: fr\r\nCookie: a=b\r\n";
    for (request, body) in [("", "plain"), (french, "fr"), (with_cookie, "of a")] {
        passed(&served, "/", request, &response(fields, body));
    }
    for (request, body) in [("", "plain"), (french, "fr"), (with_cookie, "of a")] {
        let message = kept(&served, "/", request);
        assert!(message.ends_with(&format!("\r\n\r\n{body}")), "{message}");
    }
    let other = passed(&served, "/", "Cookie: a=c\r\n", &response("", "of c"));
    assert!(other.ends_with("of c"), "{other}");
}

#[test]
fn one_asks_for_the_next_response_while_others_get_the_stale_one() {
    let served = serve(caching(), Vec::new());
    // After a second.
    let stale = "Cache-Control: max-age=1, stale-while-revalidate=60\r\n";
    let first = passed(&served, "/", "", &response(stale, "old"));
    assert!(first.ends_with("old"));
    let (mut client, mut app) = loop {
        let mut client = served.get("/", "");
        match asks(&served, &client) {
            true => break (client, served.upstream.request().0),
            false => assert!(client.message().ends_with("old")),
        }
    };
    for _ in 0..2 {
        let message = served.get("/", "").message();
        assert!(message.ends_with("old"), "{message}");
    }
    app.write(&response(FRESH, "new"));
    assert!(client.message().ends_with("new"));
    assert!(kept(&served, "/", "").ends_with("new"));
}

#[test]
fn what_is_changed_or_purged_is_asked_for_anew() {
    let served = serve(caching(), Vec::new());
    let fill = || passed(&served, "/a?b", "", &response(FRESH, "old"));
    fill();
    for (status, purges) in [("500 x", false), ("404 x", false), ("303 x", true)] {
        let mut client = served.send("POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let (mut app, _) = served.upstream.request();
        app.write(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        client.message();
        drop(app);
        match purges {
            false => drop(kept(&served, "/a?b", "")),
            true => drop(fill()),
        }
    }
    for place in [
        purges::of_all(),
        purges::of_site("s"),
        purges::of_target(b"a", b"/a?b"),
    ] {
        kept(&served, "/a?b", "");
        served.purges.purge(place);
        fill();
    }
}

#[test]
fn a_response_that_breaks_off_or_is_too_large_is_not_kept() {
    let served = serve(caching(), Vec::new());
    let mut client = served.get("/", "");
    let (mut app, _) = served.upstream.request();
    app.write(&format!(
        "HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 10\r\n\r\nhalf"
    ));
    drop(app);
    client.rest();
    let whole = passed(&served, "/", "", &response("", "whole"));
    assert!(whole.ends_with("whole"), "{whole}");
    let large = "x".repeat(70_000);
    for _ in 0..2 {
        passed(&served, "/large", "", &response(FRESH, &large));
    }
}

#[test]
fn what_varies_by_a_field_that_the_front_sets_is_not_kept() {
    // The second value is empty, so the field is not there.
    for value in ["b", "{query}"] {
        let layers = Layers {
            request_headers: Changes {
                set: vec![("X-A".into(), value.into())],
                ..Changes::default()
            },
            ..caching()
        };
        let served = serve(layers, Vec::new());
        let answer = response(&format!("{FRESH}Vary: x-a\r\n"), "x");
        for _ in 0..2 {
            let mut client = served.get("/", "");
            assert!(asks(&served, &client), "{value}");
            served.upstream.request().0.write(&answer);
            client.message();
        }
    }
}

#[test]
fn without_the_key_nothing_is_kept() {
    let served = serve(Layers::default(), Vec::new());
    for _ in 0..2 {
        let message = passed(&served, "/", "", &response(FRESH, "x"));
        assert_eq!(field(&message, "cache-status"), None);
    }
}

/// What the head of a response says can be read by others than layers.
#[test]
fn a_response_shows_its_head() {
    let mut response = Response::new(true, false, true);
    response.begin(b"200 OK").unwrap();
    response.field(b"A", b"b").unwrap();
    assert_eq!(response.head().get(b"a"), Some(&b"b"[..]));
}

/// A client whose request the front has read: one that came later has reached the upstream.
fn comes(served: &Served, path: &str, fields: &str) -> Peer {
    let client = served.get(path, fields);
    let later = passed(served, "/later", "", &response("", "later"));
    assert!(later.ends_with("later"), "{later}");
    client
}

#[test]
fn what_is_being_fetched_is_waited_for_and_asked_for_once() {
    let served = serve(caching(), Vec::new());
    let mut first = served.get("/", "");
    let (mut app, _) = served.upstream.request();
    let mut others = [
        comes(&served, "/", ""),
        comes(&served, "/", ""),
        comes(&served, "/", "If-None-Match: \"a\"\r\n"),
    ];
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n";
    app.write(&format!("{head}{FRESH}\r\nhel"));
    first.read_to("hel");
    others
        .iter_mut()
        .for_each(|other| assert!(!other.has_answer()));
    app.write("lo");
    first.read_to("lo");
    for other in &mut others[..2] {
        let message = other.message();
        assert!(message.ends_with("\r\n\r\nhello"), "{message}");
        let expected = Some("preforkd; fwd=miss; collapsed");
        assert_eq!(field(&message, "cache-status"), expected);
    }
    let message = others[2].message();
    assert!(message.starts_with("HTTP/1.1 304 "), "{message}");
    let later = kept(&served, "/", "");
    assert_eq!(field(&later, "cache-status"), Some("preforkd; hit"));
}

#[test]
fn responses_that_are_not_shared_are_asked_for_at_once_by_each() {
    let served = serve(caching(), Vec::new());
    let own = |number: usize| {
        format!("Cache-Control: max-age=60\r\nSet-Cookie: id={number}\r\nConnection: close\r\n")
    };
    let mut first = served.get("/", "");
    let (mut app, _) = served.upstream.request();
    let mut others = [comes(&served, "/", ""), comes(&served, "/", "")];
    // The head decides: its end is not waited for.
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{}\r\n", own(0));
    app.write(&begun);
    let mut apps = [served.upstream.request().0, served.upstream.request().0];
    for (number, app) in apps.iter_mut().enumerate() {
        app.write(&response(&own(number + 1), "x"));
    }
    let mut ids: Vec<_> = others
        .iter_mut()
        .map(|other| field(&other.message(), "set-cookie").map(str::to_owned))
        .collect();
    ids.sort();
    assert_eq!(ids, [Some("id=1".to_owned()), Some("id=2".to_owned())]);
    app.write("x");
    first.read_to("x");
    // From now on nobody waits for another one.
    let clients = [served.get("/", ""), served.get("/", "")];
    let apps = [served.upstream.request(), served.upstream.request()];
    drop((clients, apps));
}

#[test]
fn a_client_that_leaves_is_followed_by_one_of_those_who_wait() {
    let served = serve(caching(), Vec::new());
    let first = served.get("/", "");
    let (mut app, _) = served.upstream.request();
    let mut others = [comes(&served, "/", ""), comes(&served, "/", "")];
    drop(first);
    app.ends();
    let (mut app, _) = served.upstream.request();
    app.write(&response(FRESH, "hello"));
    for other in &mut others {
        assert!(other.message().ends_with("hello"));
    }
    assert!(served.upstream.is_unused());
}

#[test]
fn after_a_failure_all_who_have_waited_are_sent() {
    let served = serve(caching(), Vec::new());
    let mut first = served.get("/", "");
    let (mut app, _) = served.upstream.request();
    let mut others = [comes(&served, "/", ""), comes(&served, "/", "")];
    app.write("HTTP/1.1 503 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(first.message().starts_with("HTTP/1.1 503 "));
    let mut apps = [served.upstream.request().0, served.upstream.request().0];
    apps.iter_mut()
        .for_each(|app| app.write(&response(FRESH, "hello")));
    for other in &mut others {
        let message = other.message();
        assert_eq!(field(&message, "cache-status"), Some("preforkd; fwd=miss"));
    }
}

#[test]
fn one_who_has_waited_for_long_is_sent() {
    let served = serve(caching(), Vec::new());
    let mut first = served.get("/", "");
    let (mut slow, _) = served.upstream.request();
    let mut other = comes(&served, "/", "");
    let (mut app, _) = served.upstream.request();
    app.write(&response(FRESH, "sooner"));
    assert!(other.message().ends_with("sooner"));
    slow.write(&response("", "later"));
    assert!(first.message().ends_with("later"));
}
