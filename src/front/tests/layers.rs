//! The layers of a site: what they do to requests and responses on their way, byte by byte.

mod common;
mod http2;
mod sited;

use std::io::Read as _;

use common::Peer;
use http2::{Client, Whole, get, post};
use preforkd_worker::front::Target;
use preforkd_worker::layers::{Changes, Layers, Maintenance, Page, RateLimit};
use preforkd_worker::settings::Coding;
use sited::{field, route, serve, to_app};

fn compress() -> Layers {
    Layers {
        compress: Some(Coding::ALL.to_vec()),
        ..Layers::default()
    }
}

/// The data of the next chunk.
fn chunk(peer: &mut Peer) -> Vec<u8> {
    let size = peer.read_to("\r\n");
    let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
    let data = peer.bytes(size);
    assert_eq!(peer.bytes(2), b"\r\n");
    data
}

/// Decodes as much as there is.
fn decoded(coding: Coding, data: &[u8]) -> String {
    let mut text = Vec::new();
    // The end is missing as long as more may come.
    let _ = match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(data).read_to_end(&mut text),
        Coding::Br => brotli::Decompressor::new(data, 4096).read_to_end(&mut text),
        Coding::Zstd => zstd::stream::read::Decoder::new(data)
            .unwrap()
            .read_to_end(&mut text),
    };
    String::from_utf8(text).unwrap()
}

#[test]
fn an_event_is_there_as_soon_as_the_application_has_sent_it() {
    let served = serve(compress(), Vec::new());
    for coding in Coding::ALL {
        let accept = format!("Accept-Encoding: {}\r\n", coding.name());
        let mut client = served.get("/events", &accept);
        let (mut app, _) = served.upstream.request();
        app.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        // The head does not wait for the first event.
        let head = client.head();
        assert_eq!(
            field(&head, "content-encoding"),
            Some(coding.name()),
            "{head}"
        );
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
        let mut data = Vec::new();
        let mut sent = String::new();
        for event in ["data: one\n\n", "data: two\n\n"] {
            app.write(&format!("{:x}\r\n{event}\r\n", event.len()));
            sent.push_str(event);
            while decoded(coding, &data) != sent {
                data.extend(chunk(&mut client));
            }
        }
        app.write("0\r\n\r\n");
        loop {
            match chunk(&mut client) {
                rest if rest.is_empty() => break,
                rest => data.extend(rest),
            }
        }
        assert_eq!(decoded(coding, &data), sent);
    }
}

#[test]
fn what_is_compressed_follows_from_the_request_and_the_response() {
    let no = Layers {
        compress: Some(Vec::new()),
        ..Layers::default()
    };
    let served = serve(compress(), vec![route("/secret", to_app(), no)]);
    let html = "Content-Type: text/html; charset=utf-8";
    let big = 2000;
    for (path, accept, fields, length, coding, vary) in [
        (
            "/",
            "gzip",
            html,
            big,
            Some("gzip"),
            Some("Accept-Encoding"),
        ),
        (
            "/",
            "gzip;q=0.5, br;q=0.9",
            html,
            big,
            Some("br"),
            Some("Accept-Encoding"),
        ),
        (
            "/",
            "identity;q=0, *;q=0.1",
            html,
            big,
            Some("br"),
            Some("Accept-Encoding"),
        ),
        ("/", "gzip;q=0", html, big, None, Some("Accept-Encoding")),
        ("/", "", html, big, None, Some("Accept-Encoding")),
        ("/", "gzip", html, 1023, None, None),
        ("/secret", "gzip", html, big, None, None),
        ("/", "gzip", "Content-Type: image/png", big, None, None),
        ("/", "gzip", "X-A: b", big, None, None),
        (
            "/",
            "gzip",
            "Content-Type: application/vnd.api+json",
            big,
            Some("gzip"),
            Some("Accept-Encoding"),
        ),
        (
            "/",
            "gzip",
            "Content-Type: text/css\r\nContent-Encoding: br",
            big,
            None,
            None,
        ),
        (
            "/",
            "gzip",
            "Content-Type: text/css\r\nCache-Control: public, no-transform",
            big,
            None,
            None,
        ),
        (
            "/",
            "gzip",
            "Content-Type: text/css\r\nVary: Cookie, accept-encoding",
            big,
            Some("gzip"),
            Some("Cookie, accept-encoding"),
        ),
    ] {
        let mut client = served.get(path, &format!("Accept-Encoding: {accept}\r\n"));
        let (mut app, _) = served.upstream.request();
        let body = "x".repeat(length);
        app.write(&format!(
            "HTTP/1.1 200 OK\r\n{fields}\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let head = client.head();
        let is = coding.is_some();
        let own = fields.contains("Content-Encoding").then_some("br");
        assert_eq!(field(&head, "content-encoding"), coding.or(own), "{head}");
        assert_eq!(field(&head, "vary"), vary, "{path} {accept} {head}");
        assert_eq!(
            field(&head, "etag"),
            Some(if is { "W/\"a\"" } else { "\"a\"" }),
            "{head}"
        );
        assert_eq!(field(&head, "accept-ranges").is_none(), is, "{head}");
        assert_eq!(field(&head, "content-length").is_none(), is, "{head}");
        if is {
            let mut data = Vec::new();
            while let rest @ [_, ..] = &chunk(&mut client)[..] {
                data.extend_from_slice(rest);
            }
            let coding = Coding::ALL
                .into_iter()
                .find(|known| Some(known.name()) == coding);
            assert!(data.len() < 200, "{}", data.len());
            assert_eq!(decoded(coding.unwrap(), &data), body);
        } else {
            assert_eq!(client.bytes(length), body.as_bytes());
        }
    }
}

#[test]
fn responses_without_a_whole_body_are_not_compressed_and_tell_what_the_others_tell() {
    let served = serve(compress(), Vec::new());
    let ask = |method: &str, more: &str, response: &str| {
        let mut client = served.send(&format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n{more}\r\n"
        ));
        let (mut app, _) = served.upstream.request();
        app.write(response);
        let head = client.head();
        (head, client, app)
    };
    // The head of the response to HEAD is that of the response to GET.
    let (head, mut client, mut app) = ask(
        "HEAD",
        "",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"a\"\r\nContent-Length: 5000\r\n\r\n",
    );
    assert_eq!(field(&head, "content-encoding"), Some("gzip"), "{head}");
    assert_eq!(field(&head, "content-length"), None, "{head}");
    assert_eq!(field(&head, "etag"), Some("W/\"a\""), "{head}");
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    app.message();
    app.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    assert!(client.rest().ends_with("\r\n\r\nok"), "no body before");

    let part = "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Range: bytes 0-1999/5000\r\nContent-Length: 2000\r\n\r\n";
    let (head, mut client, _) = ask(
        "GET",
        "Range: bytes=0-1999\r\n",
        &format!("{part}{}", "x".repeat(2000)),
    );
    assert_eq!(field(&head, "content-encoding"), None, "{head}");
    assert_eq!(client.bytes(2000).len(), 2000);

    // The tag that the client has is the one that it gets back.
    for (has, gets) in [
        ("W/\"a\"", "W/\"a\""),
        ("\"a\"", "\"a\""),
        ("W/\"b\", \"a\"", "\"a\""),
    ] {
        let (head, ..) = ask(
            "GET",
            &format!("If-None-Match: {has}\r\n"),
            "HTTP/1.1 304 Not Modified\r\nConnection: close\r\nETag: \"a\"\r\n\r\n",
        );
        assert_eq!(field(&head, "etag"), Some(gets), "{head}");
        assert_eq!(field(&head, "vary"), Some("Accept-Encoding"), "{head}");
        assert_eq!(field(&head, "content-encoding"), None, "{head}");
    }
}

#[test]
fn a_response_that_breaks_off_does_so_when_compressed() {
    let served = serve(compress(), Vec::new());
    let mut client = served.get("/", "Accept-Encoding: gzip\r\n");
    let (mut app, _) = served.upstream.request();
    app.write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000\r\n\r\nhalf");
    let head = client.head();
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
    drop(app);
    assert!(!client.rest().ends_with("0\r\n\r\n"), "no end");
}

fn only(network: &str) -> Layers {
    Layers {
        allow: vec![network.parse().unwrap()],
        ..Layers::default()
    }
}

#[test]
fn a_rule_for_a_path_counts_for_all_its_spellings() {
    let served = serve(
        Layers::default(),
        vec![
            route("/app/admin", to_app(), only("192.0.2.0/24")),
            route("/app", to_app(), only("127.0.0.0/8")),
        ],
    );
    for path in [
        "/app/admin",
        "/app/%61dmin/x?y",
        "/app//admin",
        "/app/./admin",
        "/x/../app/admin",
        "/app%2Fadmin",
        "/app/admin;x=1",
        "/app/admin/../public",
        "/app/x/..;/admin",
        "/app/x\\..\\admin",
    ] {
        let mut client = served.get(path, "");
        let answer = client.message();
        let expected = "403 Forbidden: not from this address\n";
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.ends_with(expected),
            "{path}: {answer}"
        );
        // Nothing of the next request is lost.
        client.write("GET /app/adm HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut app, request) = served.upstream.request();
        assert!(request.starts_with("GET /app/adm "), "{request}");
        app.write("HTTP/1.1 204 No Content\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 204 "));
    }
    // A body is not waited for.
    let mut client = served.send(
        "POST /app/admin HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert!(served.upstream.is_unused());
}

#[test]
fn a_body_may_have_what_its_route_allows() {
    let most = |most| Layers {
        max_body: Some(most),
        ..Layers::default()
    };
    let served = serve(most(3), vec![route("/up", to_app(), most(6))]);
    for (path, body, is) in [
        ("/", "Content-Length: 3\r\n\r\nabc", true),
        ("/", "Content-Length: 4\r\n\r\nabcd", false),
        (
            "/",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n",
            false,
        ),
        ("/up", "Content-Length: 4\r\n\r\nabcd", true),
        ("/up", "Transfer-Encoding: chunked\r\n\r\n7\r\n", false),
    ] {
        let mut client = served.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}"));
        if is {
            let (mut app, _) = served.upstream.request();
            app.write("HTTP/1.1 204 No Content\r\n\r\n");
            assert!(client.head().starts_with("HTTP/1.1 204 "));
        } else {
            let answer = client.rest();
            assert!(
                answer.starts_with("HTTP/1.1 413 "),
                "{path} {body}: {answer}"
            );
        }
    }
    assert!(served.upstream.is_unused());
}

#[test]
fn pages_take_the_place_of_our_own_texts_and_no_others() {
    let page = |text: &str| Page {
        content_type: "text/html; charset=utf-8".into(),
        text: text.into(),
    };
    let pairs = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let maintained = Layers {
        maintenance: Some(Maintenance {
            page: page("<p>later"),
            retry_after: 60,
            except: vec!["192.0.2.1".parse().unwrap()],
        }),
        ..Layers::default()
    };
    let site = Layers {
        error_pages: [(502, page("<p>sorry"))].into(),
        response_headers: Changes {
            remove: vec!["X-Powered-By".into()],
            set: pairs("X-Frame-Options", "DENY"),
            add: pairs("Link", "</a>"),
        },
        ..Layers::default()
    };
    let served = serve(site, vec![route("/later", to_app(), maintained)]);
    let mut client = served.get("/", "");
    let (mut app, _) = served.upstream.request();
    app.write("nonsense\r\n\r\n");
    let answer = client.message();
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.ends_with("<p>sorry"),
        "{answer}"
    );
    assert_eq!(
        field(&answer, "content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(field(&answer, "x-frame-options"), Some("DENY"));

    let mut client = served.get("/", "");
    let (mut app, _) = served.upstream.request();
    app.write("HTTP/1.1 502 Bad Gateway\r\nX-Frame-Options: SAMEORIGIN\r\nx-powered-by: y\r\nLink: </b>\r\nContent-Length: 3\r\n\r\nown");
    let answer = client.message();
    assert!(answer.ends_with("\r\n\r\nown"), "{answer}");
    assert_eq!(field(&answer, "x-frame-options"), Some("DENY"));
    assert_eq!(field(&answer, "x-powered-by"), None);
    assert_eq!(answer.matches("Link: ").count(), 2, "{answer}");

    let answer = served.get("/later", "").message();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("<p>later"),
        "{answer}"
    );
    assert_eq!(answer.matches("Retry-After: ").count(), 1, "{answer}");
    assert_eq!(field(&answer, "retry-after"), Some("60"));
}

#[test]
fn a_client_that_asks_too_often_is_told_when_to_come_again() {
    let limit = |burst, key: Option<&str>| Layers {
        rate_limits: vec![RateLimit {
            requests: 1,
            seconds: 3600,
            burst,
            key: key.map(str::to_owned),
        }],
        ..Layers::default()
    };
    let text = || Target::Answer {
        status: 200,
        content_type: "text/plain".into(),
        body: "ok".into(),
    };
    let routes = vec![
        route("/login", text(), limit(1, None)),
        route("/api", text(), limit(0, Some("X-Key"))),
    ];
    let served = serve(Layers::default(), routes);
    let asked = |path: &str, fields: &str| {
        let answer = served.get(path, fields).message();
        let after: Option<u64> =
            field(&answer, "retry-after").map(|seconds| seconds.parse().unwrap());
        (answer[9..12].to_owned(), after)
    };
    let ok = || ("200".to_owned(), None);
    assert_eq!((asked("/login", ""), asked("/login/", "")), (ok(), ok()));
    let (status, after) = asked("/%6cogin", "");
    assert_eq!(status, "429");
    assert!(
        after.is_some_and(|seconds| (3500..=3600).contains(&seconds)),
        "{after:?}"
    );
    assert_eq!(asked("/api", "X-Key: a\r\n"), ok());
    assert_eq!(asked("/api", "x-key: a\r\n").0, "429");
    assert_eq!(asked("/api", "X-Key: b\r\n"), ok());
}

/// Asks over HTTP/2 for what is answered without the upstream.
fn answered(client: &mut Client, request: http::Request<()>) -> Whole {
    let (response, _) = client.send(request, true);
    client.whole(response)
}

fn with(mut request: http::Request<()>, name: &'static str, value: &str) -> http::Request<()> {
    let value = value.parse().unwrap();
    request.headers_mut().insert(name, value);
    request
}

#[test]
fn who_may_ask_is_the_same_over_http_2() {
    let served = serve(
        Layers::default(),
        vec![
            route("/app/admin", to_app(), only("192.0.2.0/24")),
            route("/app", to_app(), only("127.0.0.0/8")),
        ],
    );
    let mut client = Client::new(served.address);
    for path in [
        "/app/admin",
        "/app/%61dmin/x?y",
        "/app//admin",
        "/x/../app/admin",
        "/app%2Fadmin",
        "/app/admin;x=1",
        // The library cuts a fragment off before anybody sees it.
        "/app/admin#x",
    ] {
        let answer = answered(&mut client, get(path));
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.body, b"403 Forbidden: not from this address\n");
    }
    // A body is not waited for, and the connection goes on.
    let (response, _body) = client.send(post("/app/admin"), false);
    assert_eq!(client.whole(response).status, 403);
    let (response, _) = client.send(get("/app/adm#x"), true);
    let (mut app, request) = served.upstream.request();
    assert!(
        request.starts_with("GET /app/adm HTTP/1.1\r\n"),
        "{request}"
    );
    app.write("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.whole(response).status, 204);
    assert!(served.upstream.is_unused());
}

#[test]
fn how_much_a_client_may_ask_and_send_is_the_same_over_http_2() {
    let limits = Layers {
        rate_limits: vec![RateLimit {
            requests: 1,
            seconds: 3600,
            burst: 1,
            key: None,
        }],
        ..Layers::default()
    };
    let small = Layers {
        max_body: Some(3),
        ..Layers::default()
    };
    let text = Target::Answer {
        status: 200,
        content_type: "text/plain".into(),
        body: "ok".into(),
    };
    let routes = vec![
        route("/login", text, limits),
        route("/small", to_app(), small),
    ];
    let served = serve(Layers::default(), routes);
    let mut client = Client::new(served.address);
    // Streams of one connection, and other connections, count together.
    assert_eq!(answered(&mut client, get("/login")).status, 200);
    assert!(
        served
            .get("/login", "")
            .message()
            .starts_with("HTTP/1.1 200 ")
    );
    let answer = answered(&mut client, get("/login"));
    assert_eq!(answer.status, 429);
    let after: u64 = answer.fields["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3500..=3600).contains(&after), "{after}");

    let (response, _body) = client.send(with(post("/small"), "content-length", "4"), false);
    assert_eq!(client.whole(response).status, 413);
    let (response, mut body) = client.send(post("/small"), false);
    client.data(&mut body, "abcd".into(), false);
    assert_eq!(client.whole(response).status, 413);
    let (response, mut body) = client.send(post("/small"), false);
    client.data(&mut body, "abc".into(), true);
    let (mut app, request) = served.upstream.request();
    assert!(request.ends_with("\r\n\r\nabc"), "{request}");
    app.write("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.whole(response).status, 204);
    assert!(served.upstream.is_unused());
}

#[test]
fn responses_over_http_2_are_compressed_and_an_event_does_not_wait() {
    let served = serve(compress(), Vec::new());
    let mut client = Client::new(served.address);
    for coding in Coding::ALL {
        let request = with(get("/events"), "accept-encoding", coding.name());
        let (response, _) = client.send(request, true);
        let (mut app, _) = served.upstream.request();
        app.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        );
        let (head, mut body) = client.head(response).into_parts();
        assert_eq!(head.headers["content-encoding"], coding.name());
        assert!(!head.headers.contains_key("transfer-encoding"));
        let (mut data, mut sent) = (Vec::new(), String::new());
        for event in ["data: one\n\n", "data: two\n\n"] {
            app.write(&format!("{:x}\r\n{event}\r\n", event.len()));
            sent.push_str(event);
            while decoded(coding, &data) != sent {
                data.extend(client.piece(&mut body).unwrap().unwrap());
            }
        }
        app.write("0\r\n\r\n");
        while let Some(rest) = client.piece(&mut body).unwrap() {
            data.extend(rest);
        }
        assert_eq!(decoded(coding, &data), sent);

        // A response whose length was known, and is not any more.
        let text = "compress me ".repeat(500);
        let request = with(get("/"), "accept-encoding", coding.name());
        let (response, _) = client.send(request, true);
        let (mut app, _) = served.upstream.request();
        app.write(&format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"x\"\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        ));
        let whole = client.whole(response);
        assert_eq!(whole.fields["etag"], "W/\"x\"");
        assert!(whole.body.len() < text.len() / 4, "{}", whole.body.len());
        assert_eq!(decoded(coding, &whole.body), text);
        let length = whole.fields.get("content-length");
        assert!(length.is_none_or(|value| *value == whole.body.len().to_string()));
    }
}

#[test]
fn a_compressed_response_that_breaks_off_is_reset_over_http_2() {
    let served = serve(compress(), Vec::new());
    let mut client = Client::new(served.address);
    let (response, _) = client.send(with(get("/"), "accept-encoding", "gzip"), true);
    let (mut app, _) = served.upstream.request();
    app.write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut body = client.head(response).into_body();
    drop(app);
    let error = loop {
        match client.piece(&mut body) {
            Ok(piece) => assert!(piece.is_some(), "an end that is none"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
}

#[test]
fn values_of_the_request_can_stand_in_fields_of_each_response() {
    let pairs = |list: &[(&str, &str)]| {
        let own = list.iter();
        own.map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    };
    let changes = |set: &[(&str, &str)]| Layers {
        response_headers: Changes {
            set: pairs(set),
            add: pairs(&[("X-More", "{user}"), ("X-Brace", "{{path}")]),
            ..Changes::default()
        },
        ..Layers::default()
    };
    let site = changes(&[
        ("X-What", "{method} {scheme}://{host}{path}?{query}"),
        ("X-Id", "{request_id}"),
    ]);
    let fixed = Target::Answer {
        status: 404,
        content_type: "text/plain".into(),
        body: "nothing".into(),
    };
    let routes = vec![
        route("/fixed", fixed, changes(&[("X-Who", "<{client_ip}>")])),
        route("/api", to_app(), Layers::default()),
    ];
    let served = serve(site, routes);
    // An application cannot say what is known here, and a client ends no field.
    let app_says = "HTTP/1.1 200 OK\r\nX-What: mine\r\nX-Id: mine\r\nContent-Length: 0\r\n\r\n";
    let mut client = served.get("/api/a%0d%0aX-B:%20c/{host}?d={path}", "X-Id: mine\r\n");
    served.upstream.request().0.write(app_says);
    let answer = client.message();
    let what = "GET http://a/api/a%0d%0aX-B:%20c/{host}?d={path}";
    assert_eq!(field(&answer, "x-what"), Some(what), "{answer}");
    assert_eq!(field(&answer, "x-brace"), Some("{path}"), "{answer}");
    for name in ["x-id", "x-more", "x-who"] {
        assert_eq!(field(&answer, name), None, "{answer}");
    }
    // Also where the front answers, and of each request over a connection for itself.
    for path in ["/fixed?1", "/fixed/2"] {
        client.write(&format!("HEAD {path} HTTP/1.1\r\nHost: A:81\r\n\r\n"));
        let answer = client.head();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let what = format!("HEAD http://A{path}?{query}");
        assert_eq!(field(&answer, "x-what"), Some(&*what), "{answer}");
        assert_eq!(field(&answer, "x-who"), Some("<127.0.0.1>"), "{answer}");
    }
    let mut client = Client::new(served.address);
    let answer = answered(&mut client, get("/fixed?x"));
    assert_eq!(answer.fields["x-what"], "GET http://a.example/fixed?x");
}

#[test]
fn pages_and_fields_of_a_site_are_those_of_http_2_too() {
    let page = |text: &str| Page {
        content_type: "text/html; charset=utf-8".into(),
        text: text.into(),
    };
    let maintained = Layers {
        maintenance: Some(Maintenance {
            page: page("<p>later"),
            retry_after: 60,
            except: Vec::new(),
        }),
        ..Layers::default()
    };
    let pairs = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let site = Layers {
        error_pages: [(502, page("<p>sorry"))].into(),
        response_headers: Changes {
            remove: vec!["X-Powered-By".into()],
            set: pairs("X-Frame-Options", "DENY"),
            add: Vec::new(),
        },
        ..Layers::default()
    };
    let served = serve(site, vec![route("/later", to_app(), maintained)]);
    let mut client = Client::new(served.address);
    let (response, _) = client.send(get("/"), true);
    let (mut app, _) = served.upstream.request();
    app.write("nonsense\r\n\r\n");
    let answer = client.whole(response);
    assert_eq!((answer.status, &*answer.body), (502, &b"<p>sorry"[..]));
    assert_eq!(answer.fields["x-frame-options"], "DENY");
    assert_eq!(answer.fields["content-type"], "text/html; charset=utf-8");

    let (response, _) = client.send(get("/"), true);
    let (mut app, _) = served.upstream.request();
    app.write("HTTP/1.1 200 OK\r\nX-Frame-Options: SAMEORIGIN\r\nx-powered-by: y\r\nContent-Length: 3\r\n\r\nown");
    let answer = client.whole(response);
    assert_eq!(answer.body, b"own");
    assert_eq!(answer.fields["x-frame-options"], "DENY");
    assert!(!answer.fields.contains_key("x-powered-by"));

    let answer = answered(&mut client, get("/later"));
    assert_eq!((answer.status, &*answer.body), (503, &b"<p>later"[..]));
    assert_eq!(answer.fields["retry-after"], "60");
}
