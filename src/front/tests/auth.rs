//! Basic auth: who is served, and what becomes of a request that waits for the comparison of its password.

mod common;
mod http2;
mod sited;

use base64ct::{Base64, Encoding as _};
use common::{OK, OK_SEEN, Peer};
use preforkd_worker::front::Target;
use preforkd_worker::layers::{BasicAuth, Changes, Layers, RateLimit, User};
use preforkd_worker::settings::Mapping;
use sited::{Served, field, route, serve, to_app};

fn users(realm: &str, users: &[(&str, &str)]) -> BasicAuth {
    let user = |(name, password): &(&str, &str)| User {
        name: (*name).into(),
        hash: bcrypt::hash_with_salt(password, 4, [1; 16])
            .unwrap()
            .to_string(),
    };
    BasicAuth::All {
        realm: realm.into(),
        users: users.iter().map(user).collect(),
    }
}

fn asks(basic_auth: BasicAuth) -> Layers {
    Layers {
        basic_auth,
        ..Layers::default()
    }
}

fn ann() -> Layers {
    asks(users("Shop", &[("ann", "secret")]))
}

fn shown(credentials: &str) -> String {
    let encoded = Base64::encode_string(credentials.as_bytes());
    format!("Authorization: Basic {encoded}\r\n")
}

/// It is answered with 401.
fn is_refused(client: &mut Peer, realm: &str) {
    let answer = client.message();
    assert!(
        answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
        "{answer}"
    );
    let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
    assert_eq!(
        field(&answer, "www-authenticate"),
        Some(&*challenge),
        "{answer}"
    );
}

/// The upstream gets it, and answers.
fn is_served(served: &Served, client: &mut Peer) -> String {
    let (mut app, request) = served.upstream.request();
    app.write(OK);
    assert_eq!(client.message(), OK_SEEN);
    request
}

#[test]
fn who_shows_the_password_is_served_and_nobody_else() {
    let served = serve(ann(), Vec::new());
    for fields in [
        String::new(),
        shown("ann:wrong"),
        shown("ann:"),
        shown("eve:secret"),
        shown("ANN:secret"),
        shown("ann"),
        shown("ann:secret") + &shown("ann:secret"),
        shown("ann:secret").replace("Basic", "Bearer"),
        "Authorization: Basic !!!\r\n".into(),
    ] {
        is_refused(&mut served.get("/", &fields), "Shop");
    }
    assert!(served.upstream.is_unused());
    // The first time it is compared, then known; a wrong one is not.
    for _ in 0..2 {
        let request = is_served(&served, &mut served.get("/", &shown("ann:secret")));
        // The application may want to know.
        assert!(request.contains(&shown("ann:secret")), "{request}");
        is_refused(&mut served.get("/", &shown("ann:wrong")), "Shop");
    }
}

#[test]
fn only_a_response_to_who_has_shown_the_password_names_the_user() {
    let set = vec![("X-User".into(), "{user}".into())];
    let layers = Layers {
        response_headers: Changes {
            set,
            ..Changes::default()
        },
        ..ann()
    };
    let served = serve(layers, Vec::new());
    for (password, user) in [("wrong", None), ("secret", Some("ann"))] {
        let mut client = served.get("/", &shown(&format!("ann:{password}")));
        if user.is_some() {
            served.upstream.request().0.write(OK);
        }
        let answer = client.message();
        assert_eq!(field(&answer, "x-user"), user, "{answer}");
    }
}

#[test]
fn requests_on_one_connection_are_judged_each_by_itself() {
    let served = serve(ann(), Vec::new());
    let request = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut client = served.send(&[request(&shown("ann:secret")), request("")].concat());
    is_served(&served, &mut client);
    is_refused(&mut client, "Shop");
    client.write(&request(&shown("ann:secret")));
    is_served(&served, &mut client);
}

#[test]
fn a_body_is_not_read_before_the_password_is_right() {
    let served = serve(ann(), Vec::new());
    let post = |fields: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n{fields}\r\n"
        )
    };
    for fields in [String::new(), shown("ann:wrong")] {
        let mut client = served.send(&post(&fields));
        is_refused(&mut client, "Shop");
        assert_eq!(client.rest(), "", "the body is no request");
    }
    let mut client = served.send(&post(&shown("ann:secret")));
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("abc");
    let request = is_served(&served, &mut client);
    assert!(request.ends_with("\r\n\r\nabc"), "{request}");

    // One that comes at once, by itself and in chunks.
    let (length, chunked) = (
        "Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    for body in [length, chunked] {
        // Another server does not know the password.
        let served = serve(ann(), Vec::new());
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{}", shown("ann:secret"));
        let mut client = served.send(&(head + body));
        let request = is_served(&served, &mut client);
        assert!(request.ends_with("\r\n\r\nabc"), "{request}");
    }
}

#[test]
fn a_route_that_streams_gets_the_body_after_the_comparison() {
    let mut streams = route("/up", to_app(), Layers::default());
    streams.stream = true;
    let served = serve(ann(), vec![streams]);
    let head = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n";
    let mut client = served.send(&format!("{head}{}\r\nabc", shown("ann:secret")));
    let mut app = served.upstream.accept();
    app.head();
    assert_eq!(app.bytes(3), b"abc");
    client.write("def");
    assert_eq!(app.bytes(3), b"def");
    app.write(OK);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn a_route_says_it_in_place_of_the_site() {
    let open = route("/open", to_app(), asks(BasicAuth::Nobody));
    let admin = asks(users("Admin", &[("root", "top")]));
    let admin = route("/admin", to_app(), admin);
    let served = serve(ann(), vec![open, admin]);
    is_served(&served, &mut served.get("/open", ""));
    is_served(&served, &mut served.get("/", &shown("ann:secret")));
    is_served(&served, &mut served.get("/admin", &shown("root:top")));
    is_refused(&mut served.get("/admin", &shown("ann:secret")), "Admin");
    is_refused(&mut served.get("/open/../admin", ""), "Admin");
    // All that an application could take for a path below it.
    for path in [
        "/%61dmin",
        "//admin",
        "/open%2F..%2Fadmin",
        "/open/..;/admin",
        "/admin;x",
    ] {
        let mut client = served.get(path, &shown("ann:secret"));
        let answer = client.message();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
    }
    assert!(served.upstream.is_unused());
}

#[test]
fn files_are_served_after_the_comparison_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "text").unwrap();
    let files = |fallthrough| {
        Target::Files(Mapping {
            path: folder.path().into(),
            fallthrough,
            ..Mapping::default()
        })
    };
    // The application has users of its own, and the folder stands before it.
    let routes = vec![
        route("/files/", files(false), Layers::default()),
        route("/mixed/", files(true), asks(BasicAuth::Nobody)),
        route("/mixed", to_app(), asks(users("App", &[("bob", "two")]))),
    ];
    let served = serve(ann(), routes);
    is_refused(&mut served.get("/files/a.txt", ""), "Shop");
    is_refused(&mut served.get("/files/a.txt", &shown("ann:no")), "Shop");
    for _ in 0..2 {
        let answer = served.get("/files/a.txt", &shown("ann:secret")).message();
        assert!(answer.ends_with("\r\n\r\ntext"), "{answer}");
    }
    let answer = served.get("/mixed/a.txt", "").message();
    assert!(answer.ends_with("\r\n\r\ntext"), "{answer}");
    is_refused(&mut served.get("/mixed/b", ""), "App");
    is_refused(&mut served.get("/mixed/b", &shown("bob:no")), "App");
    is_served(&served, &mut served.get("/mixed/b", &shown("bob:two")));
    // No body is lost while it waits.
    let head = "POST /mixed/c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n";
    is_refused(&mut served.send(&format!("{head}\r\nabc")), "App");
    let request = is_served(
        &served,
        &mut served.send(&format!("{head}{}\r\nabc", shown("bob:two"))),
    );
    assert!(request.ends_with("\r\n\r\nabc"), "{request}");
}

#[test]
fn who_sends_too_many_passwords_is_not_compared() {
    let layers = Layers {
        rate_limits: vec![RateLimit {
            requests: 1,
            seconds: 3600,
            burst: 2,
            key: None,
        }],
        ..ann()
    };
    let served = serve(layers, Vec::new());
    for _ in 0..3 {
        is_refused(&mut served.get("/", &shown("ann:wrong")), "Shop");
    }
    let answer = served.get("/", &shown("ann:secret")).message();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
}

#[test]
fn streams_of_http2_wait_and_go_on_like_connections() {
    let served = serve(ann(), Vec::new());
    let mut client = http2::Client::new(served.address);
    let request = |credentials: &str| {
        let mut request = http2::get("/");
        let value = shown(credentials);
        let value = value.trim_end().strip_prefix("Authorization: ").unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", value.parse().unwrap());
        request
    };
    let (wrong, _) = client.send(request("ann:wrong"), true);
    let (right, mut body) = client.send(request("ann:secret"), false);
    let wrong = client.whole(wrong);
    assert_eq!(wrong.status, 401);
    assert!(wrong.fields.contains_key("www-authenticate"));
    client.data(&mut body, "abc".into(), true);
    let (mut app, got) = {
        let mut app = served.upstream.accept();
        let head = app.head();
        (app, head)
    };
    assert!(got.contains("authorization: Basic"), "{got}");
    app.write(OK);
    let right = client.whole(right);
    assert_eq!((right.status, &right.body[..]), (200, &b"ok"[..]));
}
