//! Forward auth: somebody else is asked whether a request may pass.

mod common;
mod http2;
mod sited;

use common::{OK, OK_SEEN, Peer};
use preforkd_worker::front::Target;
use preforkd_worker::layers::{Changes, ForwardAuth, Layers, Question, RateLimit};
use preforkd_worker::settings::Mapping;
use sited::{Served, field, route, serve, to_app};

const PASSES: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn question(path: &str) -> Layers {
    Layers {
        forward_auth: ForwardAuth::Asks(Question {
            upstream: "app".into(),
            path: path.into(),
            headers: vec!["Remote-User".into(), "Remote-Groups".into()],
            user: "Remote-User".into(),
        }),
        ..Layers::default()
    }
}

fn nobody() -> Layers {
    Layers {
        forward_auth: ForwardAuth::Nobody,
        ..Layers::default()
    }
}

fn asked() -> Layers {
    question("/verify?x=1")
}

/// The next request that the upstream gets is the question, and this is the answer; the question.
fn judged(served: &Served, app: &mut Option<Peer>, answer: &str) -> String {
    let mut peer = app.take().unwrap_or_else(|| served.upstream.accept());
    let question = peer.head();
    peer.write(answer);
    *app = Some(peer);
    question
}

/// The request itself comes next, on the same connection; the application answers.
fn passed(app: &mut Option<Peer>, client: &mut Peer) -> String {
    let peer = app.as_mut().unwrap();
    let request = peer.message();
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
    request
}

#[test]
fn the_question_says_what_it_is_about_and_its_fields_go_on() {
    let served = serve(asked(), Vec::new());
    let mut app = None;
    let sent = "Cookie: s=1\r\nAuthorization: Bearer t\r\nRemote-User: root\r\nremote-groups: root\r\nRemote_User: under\r\n\
        X-Original-URL: http://evil/\r\nX-Forwarded-Uri: /public\r\nX-Forwarded-Method: HEAD\r\nIf-None-Match: \"a\"\r\nRange: bytes=0-1\r\n\
        Content-Type: text/csv\r\n";
    let mut client = served.get("/a%2Fb//c?d=e", sent);
    let answer = "HTTP/1.1 200 OK\r\nRemote-User: ann\r\nRemote-Groups: a\r\nRemote-Groups: b\r\nX-Other: x\r\nContent-Length: 2\r\n\r\nhi";
    let question = judged(&served, &mut app, answer);
    assert!(
        question.starts_with("GET /verify?x=1 HTTP/1.1\r\n"),
        "{question}"
    );
    for (name, value) in [
        ("host", "a"),
        ("cookie", "s=1"),
        ("authorization", "Bearer t"),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/a%2Fb//c?d=e"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-url", "http://a/a%2Fb//c?d=e"),
        ("x-original-method", "GET"),
    ] {
        assert_eq!(field(&question, name), Some(value), "{question}");
        let lower = question.to_ascii_lowercase();
        assert_eq!(
            lower.matches(&format!("\r\n{name}: ")).count(),
            1,
            "{question}"
        );
    }
    for name in [
        "remote-user",
        "remote-groups",
        "if-none-match",
        "range",
        "content-type",
    ] {
        assert_eq!(field(&question, name), None, "{question}");
    }
    let request = passed(&mut app, &mut client);
    assert!(
        request.starts_with("GET /a%2Fb//c?d=e HTTP/1.1\r\n"),
        "{request}"
    );
    assert_eq!(field(&request, "remote-user"), Some("ann"), "{request}");
    assert_eq!(request.matches("Remote-Groups: ").count(), 2, "{request}");
    let lower = request.to_ascii_lowercase();
    assert!(
        !lower.contains("root") && !lower.contains("under"),
        "{request}"
    );
    assert!(
        !lower.contains("x-other") && lower.contains("if-none-match"),
        "{request}"
    );
}

#[test]
fn what_no_answer_has_said_no_client_can_say() {
    // Nor where nobody is asked.
    let served = serve(asked(), vec![route("/open", to_app(), nobody())]);
    let lie = "Remote-User: root\r\nREMOTE-GROUPS: root\r\n";
    let mut app = None;
    let mut client = served.get("/", lie);
    judged(&served, &mut app, PASSES);
    let request = passed(&mut app, &mut client);
    assert!(!request.contains("root"), "{request}");
    client.write(&format!("GET /open HTTP/1.1\r\nHost: a\r\n{lie}\r\n"));
    let request = passed(&mut app, &mut client);
    assert!(
        request.starts_with("GET /open ") && !request.contains("root"),
        "{request}"
    );
}

#[test]
fn a_refusal_is_the_clients() {
    let served = serve(asked(), Vec::new());
    let mut app = None;
    for (status, fields, body) in [
        ("401 Unauthorized", "WWW-Authenticate: Bearer\r\n", "log in"),
        ("403 Forbidden", "Content-Type: text/html\r\n", "<b>no</b>"),
        (
            "302 Found",
            "Location: https://login.example/?rd=x\r\nSet-Cookie: a=1\r\n",
            "",
        ),
        ("303 See Other", "Location: /login\r\n", ""),
    ] {
        let mut client = served.get("/", "");
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        judged(&served, &mut app, &answer);
        let got = client.message();
        assert!(got.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{got}");
        assert!(
            fields.lines().all(|line| got.contains(line)) && got.ends_with(body),
            "{got}"
        );
        // The connection is good for another one.
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        judged(&served, &mut app, PASSES);
        passed(&mut app, &mut client);
    }
    // In chunks, and to HEAD.
    let mut client = served.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let chunks =
        "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
    let question = judged(&served, &mut app, chunks);
    assert!(
        question.contains("X-Forwarded-Method: HEAD\r\n"),
        "{question}"
    );
    let got = client.rest();
    assert!(
        got.starts_with("HTTP/1.1 401 ") && got.ends_with("\r\n\r\n"),
        "{got}"
    );
}

#[test]
fn nobody_passes_when_the_answer_says_nothing() {
    let served = serve(asked(), Vec::new());
    for answer in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\nX-Secret: x\r\nContent-Length: 6\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Accel-Redirect: /a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "",
    ] {
        let mut client = served.get("/", "");
        // A question may be asked again when its connection ends without an answer.
        for _ in 0..if answer.is_empty() { 3 } else { 1 } {
            let mut app = served.upstream.accept();
            app.head();
            app.write(answer);
        }
        let got = client.message();
        assert!(
            got.starts_with("HTTP/1.1 502 ") && !got.to_lowercase().contains("secret"),
            "{answer:?}: {got}"
        );
    }
    assert!(served.upstream.is_unused());
    let mut other = asked();
    if let ForwardAuth::Asks(question) = &mut other.forward_auth {
        question.upstream = "nowhere".into();
    }
    let served = serve(other, Vec::new());
    let got = served.get("/", "").message();
    assert!(got.starts_with("HTTP/1.1 500 "), "{got}");
    assert!(served.upstream.is_unused());
}

#[test]
fn a_body_is_not_read_before_the_answer_and_is_not_lost() {
    let served = serve(asked(), Vec::new());
    let mut app = None;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let mut client = served.send(head);
    let question = judged(&served, &mut app, PASSES);
    assert!(question.starts_with("GET /verify"), "{question}");
    let lower = question.to_ascii_lowercase();
    assert!(
        !lower.contains("content-length") && !lower.contains("expect"),
        "{question}"
    );
    assert!(
        question.contains("X-Forwarded-Method: POST\r\n"),
        "{question}"
    );
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("abc");
    let request = passed(&mut app, &mut client);
    assert!(
        request.starts_with("POST / ") && request.ends_with("\r\n\r\nabc"),
        "{request}"
    );

    let mut client = served.send(head);
    judged(
        &served,
        &mut app,
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    );
    let got = client.rest();
    assert!(
        got.starts_with("HTTP/1.1 403 ") && got.contains("Connection: close"),
        "{got}"
    );
    assert!(got.ends_with("\r\n\r\nno"), "the body is no request: {got}");

    let (length, chunked) = (
        "Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    for body in [length, chunked] {
        let mut client = served.send(&["POST / HTTP/1.1\r\nHost: a\r\n", body].concat());
        judged(&served, &mut app, PASSES);
        let request = passed(&mut app, &mut client);
        assert!(request.ends_with("\r\n\r\nabc"), "{request}");
    }
    let mut streams = route("/up", to_app(), Layers::default());
    streams.stream = true;
    let served = serve(asked(), vec![streams]);
    let mut client = served.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    let mut app = None;
    judged(&served, &mut app, PASSES);
    let mut app = app.unwrap();
    app.head();
    assert_eq!(app.bytes(3), b"abc");
    client.write("def");
    assert_eq!(app.bytes(3), b"def");
    app.write(OK);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn an_upgrade_is_asked_for_without_one() {
    let served = serve(asked(), Vec::new());
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
    let mut app = None;
    let mut client = served.get("/ws", upgrade);
    let question = judged(
        &served,
        &mut app,
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    );
    let lower = question.to_ascii_lowercase();
    assert!(
        !lower.contains("upgrade:") && !lower.contains("connection:"),
        "{question}"
    );
    assert!(client.message().starts_with("HTTP/1.1 401 "));
    let mut client = served.get("/ws", upgrade);
    judged(&served, &mut app, PASSES);
    let mut app = app.unwrap();
    let request = app.head();
    assert_eq!(field(&request, "upgrade"), Some("websocket"), "{request}");
    app.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.bytes(5), b"hello");
    client.write("echo");
    assert_eq!(app.bytes(4), b"echo");
}

#[test]
fn a_route_says_it_in_place_of_the_site_and_no_spelling_passes() {
    let routes = vec![
        route("/open", to_app(), nobody()),
        route("/admin", to_app(), question("/admins")),
    ];
    let served = serve(asked(), routes);
    let mut app = None;
    let no = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    for path in ["/admin", "/%61dmin", "//admin/x", "/open/../admin"] {
        let mut client = served.get(path, "");
        let question = judged(&served, &mut app, no);
        assert!(question.starts_with("GET /admins "), "{path}: {question}");
        assert!(client.message().starts_with("HTTP/1.1 403 "), "{path}");
    }
    // All that an application could take for a path below it.
    for path in ["/open%2F..%2Fadmin", "/admin;x"] {
        let mut client = served.get(path, "");
        let first = judged(&served, &mut app, PASSES);
        let second = judged(&served, &mut app, no);
        assert!(
            [first, second]
                .iter()
                .any(|question| question.starts_with("GET /admins ")),
            "{path}"
        );
        assert!(client.message().starts_with("HTTP/1.1 403 "), "{path}");
    }
    let mut client = served.get("/open", "");
    let request = passed(&mut app, &mut client);
    assert!(request.starts_with("GET /open "), "{request}");
}

#[test]
fn files_limits_and_changes_have_their_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "text").unwrap();
    let files = Target::Files(Mapping {
        path: folder.path().into(),
        ..Mapping::default()
    });
    let layers = Layers {
        rate_limits: vec![RateLimit {
            requests: 1,
            seconds: 3600,
            burst: 1,
            key: None,
        }],
        request_headers: Changes {
            set: vec![("X-Role".into(), "shop".into())],
            remove: vec!["Remote-Groups".into()],
            ..Changes::default()
        },
        ..asked()
    };
    let served = serve(layers, vec![route("/files/", files, Layers::default())]);
    let mut app = None;
    let mut client = served.get("/files/a.txt", "");
    judged(&served, &mut app, PASSES);
    let got = client.message();
    assert!(got.ends_with("\r\n\r\ntext"), "{got}");
    let mut client = served.get("/", "");
    let answer =
        "HTTP/1.1 200 OK\r\nRemote-User: ann\r\nRemote-Groups: x\r\nContent-Length: 0\r\n\r\n";
    let question = judged(&served, &mut app, answer);
    assert_eq!(field(&question, "x-role"), None, "{question}");
    let request = passed(&mut app, &mut client);
    // What the site says comes after what was copied.
    assert_eq!(field(&request, "x-role"), Some("shop"), "{request}");
    assert_eq!(field(&request, "remote-user"), Some("ann"), "{request}");
    assert_eq!(field(&request, "remote-groups"), None, "{request}");
    // Who may not ask is not asked about.
    let got = served.get("/", "").message();
    assert!(got.starts_with("HTTP/1.1 429 "), "{got}");
    assert!(served.upstream.is_unused());
}

#[test]
fn a_client_that_leaves_takes_the_question_along() {
    let served = serve(asked(), Vec::new());
    let client = served.get("/", "");
    let mut app = served.upstream.accept();
    app.head();
    drop(client);
    app.ends();
}

#[test]
fn streams_of_http2_are_asked_about_too() {
    let served = serve(asked(), Vec::new());
    let mut client = http2::Client::new(served.address);
    let mut app = None;
    let (refused, _) = client.send(http2::get("/a?b"), true);
    let question = judged(
        &served,
        &mut app,
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: x\r\nContent-Length: 2\r\n\r\nno",
    );
    assert_eq!(
        field(&question, "x-forwarded-uri"),
        Some("/a?b"),
        "{question}"
    );
    let refused = client.whole(refused);
    assert_eq!((refused.status, &refused.body[..]), (401, &b"no"[..]));
    let (right, mut body) = client.send(http2::get("/"), false);
    judged(&served, &mut app, PASSES);
    client.data(&mut body, "abc".into(), true);
    let mut app = app.unwrap();
    app.head();
    app.write(OK);
    let right = client.whole(right);
    assert_eq!((right.status, &right.body[..]), (200, &b"ok"[..]));
}

#[test]
fn what_was_passed_for_one_user_is_kept_for_nobody() {
    let layers = Layers {
        cache: Some(true),
        ..asked()
    };
    let served = serve(layers, Vec::new());
    let mut app = None;
    for user in ["Remote-User: ann\r\n", ""] {
        let body = format!(
            "Cache-Control: public, max-age=60\r\nContent-Length: 1\r\n\r\n{}",
            user.len() % 10
        );
        let mut client = served.get("/", "");
        judged(
            &served,
            &mut app,
            &format!("HTTP/1.1 200 OK\r\n{user}Content-Length: 0\r\n\r\n"),
        );
        let peer = app.as_mut().unwrap();
        peer.message();
        peer.write(&format!("HTTP/1.1 200 OK\r\n{body}"));
        let message = client.message();
        assert!(message.ends_with(&body[body.len() - 1..]), "{message}");
        assert_eq!(field(&message, "cache-status"), None);
    }
}
