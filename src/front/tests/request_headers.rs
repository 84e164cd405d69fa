//! `request_headers`: what changes in requests on their way to an upstream.

mod common;
mod sited;

use common::OK;
use preforkd_worker::layers::{Changes, Layers};
use sited::{field, route, serve, to_app};

fn changes(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> Layers {
    let fields = |list: &[(&str, &str)]| {
        let own = list.iter();
        own.map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    };
    Layers {
        request_headers: Changes {
            remove: remove.iter().map(|name| (*name).into()).collect(),
            set: fields(set),
            add: fields(add),
        },
        ..Layers::default()
    }
}

#[test]
fn what_is_set_no_client_can_send_and_the_route_comes_after_the_site() {
    let site = changes(
        &["Authorization"],
        &[("X-Role", "site")],
        &[("X-More", "2")],
    );
    let own = changes(&["X-More"], &[("X-Role", "route")], &[]);
    let served = serve(site, vec![route("/own", to_app(), own)]);
    let sent = "Authorization: Basic x\r\nX-Role: root\r\nx-role: top\r\nX_Role: under\r\nX-More: 1\r\nX-Other: kept\r\n";
    for (path, role, more) in [
        ("/", "site", 2),
        ("/own", "route", 0),
        ("/%6fwn/x", "route", 0),
    ] {
        let mut client = served.get(path, sent);
        let (mut app, request) = served.upstream.request();
        let all = |name: &str| {
            let lower = request.to_ascii_lowercase();
            lower.matches(&format!("\r\n{name}: ")).count()
        };
        assert_eq!(field(&request, "x-role"), Some(role), "{request}");
        assert_eq!((all("x-role"), all("x_role")), (1, 0), "{request}");
        assert_eq!(all("x-more"), more, "{request}");
        assert_eq!((all("authorization"), all("host")), (0, 1), "{request}");
        assert_eq!(field(&request, "x-other"), Some("kept"), "{request}");
        app.write(OK);
        client.message();
    }
}

#[test]
fn no_client_can_send_it_after_the_body() {
    let site = changes(&[], &[("X-Role", "site")], &[]);
    for (layers, passes) in [(site, false), (Layers::default(), true)] {
        let mut streams = route("/up", to_app(), Layers::default());
        streams.stream = true;
        let served = serve(layers, vec![streams]);
        let head = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = "3\r\nabc\r\n0\r\nX-Role: root\r\n\r\n";
        let mut client = served.send(&[head, body].concat());
        let mut app = served.upstream.accept();
        app.head();
        let came = app.read_to("0\r\n") + &app.read_to("\r\n");
        assert_eq!(came.ends_with("0\r\nX-Role: root\r\n"), passes, "{came}");
        app.write(OK);
        client.message();
    }
}

#[test]
fn values_of_the_request_can_stand_in_fields_and_are_data() {
    let set = [
        ("X-Who", "{client_ip}"),
        ("X-What", "{method} {scheme}://{host}{path}?{query}"),
        ("X-Brace", "{{path} {{}"),
        ("X-User", "{user}"),
        ("X-Id", "{request_id}{client_cert_subject}"),
    ];
    let served = serve(changes(&[], &set, &[("X-More", "{user}")]), Vec::new());
    let lies = "X-Who: 192.0.2.1\r\nX-User: root\r\nX-Id: x\r\nX_Id: y\r\n";
    let mut client = served.get("/a%0d%0aX-Role:%20root/{host}?b={path}", lies);
    let (mut app, request) = served.upstream.request();
    assert_eq!(field(&request, "x-who"), Some("127.0.0.1"), "{request}");
    assert_eq!(
        field(&request, "x-what"),
        Some("GET http://a/a%0d%0aX-Role:%20root/{host}?b={path}"),
        "{request}"
    );
    assert_eq!(field(&request, "x-brace"), Some("{path} {}"), "{request}");
    // What is not known is empty, and nobody else says it.
    for name in ["x-user", "x-id", "x_id", "x-more"] {
        assert_eq!(field(&request, name), None, "{request}");
    }
    app.write(OK);
    client.message();
}
