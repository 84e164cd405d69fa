//! Requests as they come, and what they are for.

use std::sync::Arc;

use preforkd_http::{Chooser as _, Connection, Event, Limits, Origin, Request};
use preforkd_worker::front::{Listener, Route, Settings, Site, Target};
use preforkd_worker::settings::{Http, Mapping};

use crate::path::Normal;
use crate::sites::{Choice, FilesOfSites, Sites};

fn settings(sites: Vec<Site>) -> Settings {
    let second = std::time::Duration::from_secs(1);
    let listener = |address: &str| Listener {
        address: address.into(),
        tls: false,
    };
    Settings {
        http: Http {
            request_id: false,
            access_format: "combined".into(),
            trusted_proxies: Vec::new(),
            forwarded_fields: None,
            proxy_protocol: false,
            max_head: 32 << 10,
            max_headers: 100,
            max_body: 1 << 20,
            body_in_memory: 1 << 10,
            response_in_memory: 1 << 10,
            response_in_file: 1 << 10,
            max_buffered: 1 << 20,
            header_timeout: second,
            body_timeout: second,
            write_timeout: second,
            keepalive_timeout: second,
            graceful_timeout: second,
            max_connections: 10,
        },
        listeners: [("0", "127.0.0.1:80"), ("1", "[::]:80")]
            .map(|(name, address)| (name.to_owned(), listener(address)))
            .into(),
        sites,
        upstreams: Default::default(),
        upgrade_timeout: second,
        http2: true,
        cache_size: 1 << 20,
        max_connections_per_client: None,
    }
}

fn site(hosts: &[&str], routes: Vec<Route>) -> Site {
    Site {
        name: "s".into(),
        listeners: vec!["0".into()],
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        routes,
        layers: Default::default(),
    }
}

fn route(path: &str, target: Target) -> Route {
    Route {
        path: path.into(),
        methods: Vec::new(),
        headers: Default::default(),
        strip_prefix: false,
        rewrite: None,
        stream: false,
        target,
        layers: Default::default(),
    }
}

fn app(name: &str) -> Target {
    Target::Upstream(name.into())
}

/// What a request at the first listener is for, which is the same whether or not its file was looked for, and when it is asked again.
fn choice(settings: &Settings, request: &str) -> String {
    let sites = Arc::new(Sites::new(settings, vec!["0".into()]));
    let mut connection = Connection::new(Arc::new(Limits::default()));
    connection.receive(request.as_bytes());
    assert_eq!(connection.advance(), Event::Request, "{request}");
    let origin = Origin {
        listener: 0,
        peer: None,
        relayed: None,
    };
    let request = connection.request();
    let at_once = chosen(&sites, request, &origin);
    request.mark(0);
    FilesOfSites::new(sites.clone(), Arc::default()).mapping(request, &origin);
    for _ in 0..2 {
        assert_eq!(chosen(&sites, request, &origin), at_once);
    }
    at_once
}

fn chosen(sites: &Sites, request: Request<'_>, origin: &Origin) -> String {
    match sites.choose(request, origin, &mut Normal::default()) {
        Choice::NoSite => "no site".into(),
        Choice::Misdirected => "misdirected".into(),
        Choice::NoRoute => "no route".into(),
        Choice::Target {
            target: Target::Upstream(name),
            stripped,
            ..
        } => format!(
            "{name} {}",
            String::from_utf8_lossy(&request.path()[stripped..])
        ),
        Choice::Target { target, .. } => format!("{target:?}"),
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn the_longest_path_counts_whatever_its_spelling_and_the_target_gets_it_as_sent() {
    let settings = settings(vec![site(
        &["a"],
        vec![
            route("/", app("root")),
            route("/app", app("app")),
            route("/app/admin", app("admin")),
            route("/below/", app("below")),
        ],
    )]);
    for path in [
        "/app/admin",
        "/app/%61dmin/x",
        "/app//admin",
        "/app/./admin",
        "/app/x/../admin",
        "//app/admin",
    ] {
        assert_eq!(choice(&settings, &get(path)), format!("admin {path}"));
    }
    for (path, name) in [
        ("/app", "app"),
        ("/app/", "app"),
        ("/apple", "root"),
        ("/app%2Fadmin", "root"),
        ("/app/administrator", "app"),
        ("/app/admin/..", "app"),
        ("/app/admin/../..", "root"),
        ("/below", "root"),
        ("/below/", "below"),
        ("/below/x", "below"),
    ] {
        assert_eq!(choice(&settings, &get(path)), format!("{name} {path}"));
    }
}

#[test]
fn conditions_of_a_route_hold_or_the_next_one_counts() {
    let mut read = route("/x", app("read"));
    read.methods = vec!["GET".into(), "QUERY".into()];
    let mut beta = route("/x", app("beta"));
    beta.headers = [
        ("x-beta".to_owned(), "*".to_owned()),
        ("x-two".to_owned(), "b c".to_owned()),
    ]
    .into();
    let settings = settings(vec![site(
        &["a"],
        vec![beta, read, route("/", app("root"))],
    )]);
    for (method, fields, name) in [
        ("GET", "", "read"),
        ("HEAD", "", "read"),
        ("QUERY", "", "read"),
        ("get", "", "root"),
        ("POST", "", "root"),
        ("POST", "X-Beta: 1\r\nX-Two: b c\r\n", "beta"),
        ("POST", "X-Beta: 1\r\nX-Two: b\r\n", "root"),
        ("POST", "X-Beta: 1\r\nX-Two: b\r\nx-two: b c\r\n", "beta"),
        ("POST", "X-Two: b c\r\n", "root"),
    ] {
        let request = format!("{method} /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(
            choice(&settings, &request),
            format!("{name} /x"),
            "{request}"
        );
    }
}

#[test]
fn the_authority_of_an_absolute_target_stands_above_host() {
    let settings = settings(vec![
        site(&["a"], vec![route("/", app("a"))]),
        site(&["b"], vec![route("/", app("b"))]),
    ]);
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: A:80\r\n\r\n", "a /"),
        ("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", "b /x"),
        ("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", "b /"),
        ("GET http://c/ HTTP/1.1\r\nHost: a\r\n\r\n", "no site"),
        ("GET / HTTP/1.0\r\n\r\n", "no site"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "a *"),
    ] {
        assert_eq!(choice(&settings, request), expected, "{request}");
    }
}

#[test]
fn what_a_target_does_not_see_is_the_path_of_its_route() {
    let mut stripped = route("/api/v1", app("api"));
    stripped.strip_prefix = true;
    let settings = settings(vec![site(&["a"], vec![stripped])]);
    for (path, expected) in [
        ("/api/v1/a%2Fb//c", "api /a%2Fb//c"),
        ("/%61pi/v1/x", "api /x"),
        ("/api/../api/v1/x", "api /x"),
        ("/api/v1", "api "),
        ("/api/v10", "no route"),
    ] {
        assert_eq!(choice(&settings, &get(path)), expected, "{path}");
    }
}

#[test]
fn bodies_are_passed_on_while_they_arrive_where_the_route_says_so() {
    let mut streams = route("/up", app("api"));
    streams.stream = true;
    streams.methods = vec!["PUT".into()];
    let files = route("/up/files/", Target::Files(Mapping::default()));
    let settings = settings(vec![site(
        &["a"],
        vec![streams, files, route("/", app("web"))],
    )]);
    let sites = Sites::new(&settings, vec!["0".into()]);
    for (request, expected) in [
        ("PUT /up/x", true),
        ("PUT /%75p", true),
        ("POST /up/x", false),
        ("PUT /up/files/x", false),
        ("PUT /x", false),
    ] {
        let mut connection = Connection::new(Arc::new(Limits::default()));
        connection.receive(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(connection.advance(), Event::Request);
        let origin = Origin {
            listener: 0,
            peer: None,
            relayed: None,
        };
        let taker = sites.taker(connection.request(), &origin, &mut Normal::default());
        let streams = taker.filter(|(_, streams)| *streams);
        assert_eq!(streams, expected.then_some(("api", true)), "{request}");
    }
}

#[test]
fn files_are_left_to_the_server_and_the_next_route_has_what_they_do_not() {
    let files = Target::Files(Mapping::default());
    let settings = settings(vec![site(
        &["a"],
        vec![route("/", app("root")), route("/static/", files)],
    )]);
    assert_eq!(
        choice(&settings, &get("/static/x.css")),
        "root /static/x.css"
    );
    assert_eq!(
        Sites::files(&settings),
        [("/static/".to_owned(), Mapping::default())]
    );
}

#[test]
fn settings_and_certificates_survive_encoding_and_show_no_key() {
    use preforkd_worker::front::{Certificate, Certificates, Pem, Tls};
    let settings = settings(vec![site(&["a"], vec![route("/", app("a"))])]);
    let json = settings.encode().expect("UTF-8");
    assert_eq!(Settings::parse(&json).expect("the same type"), settings);
    let pem = |name: &str| Pem {
        path: format!("{name}.pem"),
        text: format!("secret {name}"),
    };
    let tls = Tls {
        is_automatic: false,
        certificates: vec![Certificate {
            chain: pem("chain"),
            key: pem("key"),
        }],
        client_ca: None,
    };
    let all = Certificates([("s".to_owned(), tls)].into());
    let json = all.encode().expect("texts");
    assert_eq!(Certificates::parse(&json).expect("the same type"), all);
    assert!(json.contains("secret key"));
    assert!(!format!("{all:?}").contains("secret"));
}
