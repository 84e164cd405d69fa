//! What becomes of a request, by its peer and its fields.

use super::*;
use crate::limits::Limits;
use crate::message::request::Relayed;
use crate::proto::h1::connection::{Connection, Event};

const PROXY: &str = "10.0.0.1:5";
const STRANGER: &str = "203.0.113.9:5";

fn origin(peer: &str) -> Origin {
    Origin {
        listener: 0,
        peer: peer.parse().ok(),
        relayed: None,
    }
}

/// A layer that trusts 10.0.0.0/8 and Unix sockets.
fn layer(fields: Option<&[&str]>) -> ClientAddress {
    ClientAddress {
        fields: fields.map(|fields| fields.iter().map(|&name| name.to_owned()).collect()),
        hinted: AtomicBool::new(false),
        front: vec![1],
        trusted: TrustedProxies {
            unix: true,
            networks: vec!["10.0.0.0/8".parse().unwrap()],
        },
        told: AtomicBool::new(false),
    }
}

/// What is known of a request with these fields, and the names of the fields that are left.
fn facts(origin: &Origin, fields: &str) -> Result<(Facts, Vec<String>), &'static str> {
    facts_with(&layer(None), origin, fields)
}

fn facts_with(
    layer: &ClientAddress,
    origin: &Origin,
    fields: &str,
) -> Result<(Facts, Vec<String>), &'static str> {
    let mut connection = Connection::new(Limits::default().into());
    let fields = fields.replace('\n', "\r\n");
    let head = format!("GET / HTTP/1.1\r\nHost: inside:8000\r\n{fields}\r\n\r\n");
    connection.receive(head.as_bytes());
    assert_eq!(connection.advance(), Event::Request, "{fields}");
    let mut arrived = Arrived {
        connection: &mut connection,
        origin,
    };
    if let Some(reject) = layer.request(&mut arrived) {
        assert_eq!(reject.status, 400);
        return Err(reject.why);
    }
    let facts = arrived.facts().clone();
    let names = arrived.request().fields().skip(1);
    let names = names.map(|(name, _)| String::from_utf8_lossy(name).into_owned());
    Ok((facts, names.collect()))
}

/// The client, scheme, host, port and prefix, as words; a dash for what is not known.
fn known(peer: &str, fields: &str) -> String {
    match facts(&origin(peer), fields) {
        Ok((facts, _)) => words(&facts),
        Err(why) => why.into(),
    }
}

fn words(facts: &Facts) -> String {
    let text = |bytes: &Option<Box<[u8]>>| {
        bytes.as_deref().map_or("-".into(), |bytes| {
            String::from_utf8_lossy(bytes).into_owned()
        })
    };
    let word = |value: Option<String>| value.unwrap_or("-".into());
    let client = word(facts.client.map(|client| client.to_string()));
    let client_port = facts.client_port.map_or(String::new(), |n| format!(" {n}"));
    let scheme = match facts.https {
        None => "-",
        Some(true) => "https",
        Some(false) => "http",
    };
    format!(
        "{client}{client_port} {scheme} {} {} {}",
        text(&facts.host),
        word(facts.port.map(|port| port.to_string())),
        text(&facts.prefix)
    )
}

#[test]
fn a_trusted_proxy_is_believed() {
    for (fields, expected) in [
        ("X: y", "- - - - -"),
        ("X-Forwarded-For: 1.1.1.1", "1.1.1.1 - - - -"),
        ("x-forwarded-for: 1.1.1.1:99", "1.1.1.1 99 - - - -"),
        (
            "X-Forwarded-For: [2001:db8::1]:99",
            "2001:db8::1 99 - - - -",
        ),
        ("X-Forwarded-For: ::ffff:1.1.1.1", "1.1.1.1 - - - -"),
        // The public port is that of the field Host, as it is not known better.
        ("X-Forwarded-Proto: https", "- https - 8000 -"),
        ("X-Forwarded-Proto: WSS", "- https - 8000 -"),
        ("X-Forwarded-Host: a.example", "- - a.example 80 -"),
        (
            "X-Forwarded-Host: a.example\nX-Forwarded-Proto: https",
            "- https a.example 443 -",
        ),
        (
            "X-Forwarded-Host: a.example:8443\nX-Forwarded-Proto: https",
            "- https a.example:8443 8443 -",
        ),
        (
            "X-Forwarded-Host: a.example\nX-Forwarded-Proto: https\nX-Forwarded-Port: 8443",
            "- https a.example:8443 8443 -",
        ),
        (
            "X-Forwarded-Host: [2001:db8::1]\nX-Forwarded-Proto: https\nX-Forwarded-Port: 8443",
            "- https [2001:db8::1]:8443 8443 -",
        ),
        (
            "X-Forwarded-Host: a.example\nX-Forwarded-Proto: https\nX-Forwarded-Port: 443",
            "- https a.example 443 -",
        ),
        ("X-Forwarded-Port: 81", "- - - 81 -"),
        ("X-Forwarded-Prefix: /shop/", "- - - - /shop"),
        ("X-Forwarded-Prefix: /", "- - - - "),
        ("Forwarded: for=1.1.1.1", "1.1.1.1 - - - -"),
        (
            "Forwarded: for=\"[2001:db8::1]:99\";proto=https;host=\"a.example:8443\";by=_x",
            "2001:db8::1 99 https a.example:8443 8443 -",
        ),
        ("Forwarded: proto=https", "- https - 8000 -"),
        ("X-Real-IP: 1.1.1.1", "- - - - -"),
    ] {
        assert_eq!(known(PROXY, fields), expected, "{fields}");
        // Who connects to a Unix socket.
        assert_eq!(known("", fields), expected, "{fields}");
        assert_eq!(known("[::ffff:10.0.0.1]:5", fields), expected, "{fields}");
    }
}

#[test]
fn what_a_client_has_written_itself_is_not_believed() {
    for (fields, expected) in [
        // Each proxy adds at the end. What is left of the first stranger anybody may have written.
        ("X-Forwarded-For: 6.6.6.6, 1.1.1.1", "1.1.1.1 - - - -"),
        (
            "X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2",
            "1.1.1.1 - - - -",
        ),
        ("X-Forwarded-For: 10.0.0.3, 1.1.1.1", "1.1.1.1 - - - -"),
        // Several fields are one list.
        (
            "X-Forwarded-For: 6.6.6.6\nX-Forwarded-For: 1.1.1.1",
            "1.1.1.1 - - - -",
        ),
        (
            "X-Forwarded-For: 6.6.6.6\nA: b\nx-forwarded-for: 1.1.1.1 , 10.0.0.2",
            "1.1.1.1 - - - -",
        ),
        // Nothing behind what is not an address.
        ("X-Forwarded-For: 6.6.6.6, unknown", "- - - - -"),
        ("X-Forwarded-For: 6.6.6.6,", "- - - - -"),
        ("X-Forwarded-For: 6.6.6.6, , 10.0.0.2", "10.0.0.2 - - - -"),
        (
            "X-Forwarded-For: 6.6.6.6, garbage, 10.0.0.2",
            "10.0.0.2 - - - -",
        ),
        ("X-Forwarded-For:", "- - - - -"),
        // The other lists are as long, or have one value for all.
        (
            "X-Forwarded-For: 6.6.6.6, 1.1.1.1\nX-Forwarded-Proto: https, http",
            "1.1.1.1 http - 8000 -",
        ),
        (
            "X-Forwarded-For: 1.1.1.1, 10.0.0.2\nX-Forwarded-Proto: https, http",
            "1.1.1.1 https - 8000 -",
        ),
        (
            "X-Forwarded-For: 1.1.1.1, 10.0.0.2\nX-Forwarded-Proto: https",
            "1.1.1.1 https - 8000 -",
        ),
        (
            "X-Forwarded-Host: evil.example\nX-Forwarded-Host: a.example",
            "- - a.example 80 -",
        ),
        ("X-Forwarded-Prefix: /evil, /shop", "- - - - /shop"),
        ("X-Forwarded-Proto: https,", "- - - - -"),
        (
            "Forwarded: for=6.6.6.6;proto=https, for=1.1.1.1",
            "1.1.1.1 - - - -",
        ),
        (
            "Forwarded: for=6.6.6.6;host=evil.example\nForwarded: for=1.1.1.1;proto=http;host=a, for=10.0.0.2;proto=https",
            "1.1.1.1 http a 80 -",
        ),
        (
            "Forwarded: for=6.6.6.6;proto=https, for=unknown;proto=http",
            "- http - 8000 -",
        ),
        (
            "Forwarded: for=6.6.6.6, for=_hidden, for=10.0.0.2",
            "10.0.0.2 - - - -",
        ),
        ("Forwarded: for=6.6.6.6, proto=http", "- http - 8000 -"),
        ("Forwarded: for=6.6.6.6,", "- - - - -"),
        // Names with an underscore would be the same in the environ.
        ("X_Forwarded_For: 6.6.6.6", "- - - - -"),
    ] {
        assert_eq!(known(PROXY, fields), expected, "{fields}");
    }
}

#[test]
fn what_is_malformed_or_contradicts_itself_is_refused() {
    for (fields, why) in [
        ("X-Forwarded-Proto: ftp", "invalid X-Forwarded-Proto"),
        (
            "X-Forwarded-Proto: http\nX-Forwarded-Proto: javascript",
            "invalid X-Forwarded-Proto",
        ),
        ("X-Forwarded-Host: a/b", "invalid X-Forwarded-Host"),
        ("X-Forwarded-Host: user@a", "invalid X-Forwarded-Host"),
        ("X-Forwarded-Port: 65536", "invalid X-Forwarded-Port"),
        ("X-Forwarded-Port: 0", "invalid X-Forwarded-Port"),
        (
            "X-Forwarded-Prefix: //evil.example",
            "invalid X-Forwarded-Prefix",
        ),
        ("X-Forwarded-Prefix: shop", "invalid X-Forwarded-Prefix"),
        ("Forwarded: for=\"1.1.1.1", "malformed Forwarded"),
        // The open quote of a client must not swallow what a proxy has added.
        ("Forwarded: for=\", for=1.1.1.1", "malformed Forwarded"),
        ("Forwarded: 1.1.1.1", "malformed Forwarded"),
        ("Forwarded: proto=ftp", "invalid proto in Forwarded"),
        ("Forwarded: host=\"a b\"", "invalid host in Forwarded"),
        (
            "Forwarded: for=6.6.6.6\nX-Forwarded-For: 1.1.1.1",
            "Forwarded and X-Forwarded-For contradict each other",
        ),
        (
            "Forwarded: for=1.1.1.1;proto=https\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: http",
            "Forwarded and X-Forwarded-Proto contradict each other",
        ),
        (
            "Forwarded: host=evil.example\nX-Forwarded-Host: a.example",
            "Forwarded and X-Forwarded-Host contradict each other",
        ),
    ] {
        assert_eq!(known(PROXY, fields), why, "{fields}");
    }
    let both =
        "Forwarded: for=\"1.1.1.1:99\";proto=https\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-Host: a";
    assert_eq!(known(PROXY, both), "1.1.1.1 99 https a 443 -");
}

const ALL: &str = "X-Forwarded-For: 6.6.6.6\nx-forwarded-proto: https\nX-Forwarded-Host: evil\nX-Forwarded-Port: 1\n\
    X-Forwarded-Prefix: /evil\nX-Forwarded-Ssl: on\nForwarded: for=6.6.6.6;x\nX-Real-Ip: 6.6.6.6\nX-Forwarded: a\nX-Request-Id: 1";

#[test]
fn fields_of_a_stranger_are_removed() {
    let (facts_, names) = facts(&origin(STRANGER), ALL).unwrap();
    assert_eq!(facts_, Facts::default());
    assert_eq!(names, ["X-Forwarded", "X-Request-Id"]);
    let (facts_, names) = facts(
        &origin(PROXY),
        "X-Forwarded-For: 1.1.1.1\nX-Real-IP: 1.1.1.1",
    )
    .unwrap();
    assert!(facts_.trusted);
    assert_eq!(names, ["X-Forwarded-For", "X-Real-IP"]);
}

#[test]
fn what_a_proxy_has_passed_on_of_its_client_is_removed() {
    let left = |fields: &str| {
        let (_, names) = facts(&origin(PROXY), fields).expect(fields);
        names.join(" ")
    };
    for (own, others, expected) in [
        (
            "X-Forwarded-For: 1.1.1.1",
            "X-Real-IP: 1.1.1.1",
            "X-Real-IP",
        ),
        ("X-Forwarded-For: ::1", "X-Real-IP: 0:0:0::1", "X-Real-IP"),
        ("X-Forwarded-For: 1.1.1.1", "X-Real-IP: 6.6.6.6", ""),
        ("X-Forwarded-For: 1.1.1.1", "x-real-ip: localhost", ""),
        ("X-Forwarded-For: unknown", "X-Real-IP: 6.6.6.6", ""),
        ("Forwarded: for=1.1.1.1", "X-Real-IP: 6.6.6.6", ""),
        (
            "X-Forwarded-For: 1.1.1.1",
            "X-Real-IP: 6.6.6.6\nX-Real-IP: 1.1.1.1",
            "",
        ),
        (
            "X-Forwarded-Proto: https",
            "X-Forwarded-Ssl: on",
            "X-Forwarded-Ssl",
        ),
        ("X-Forwarded-Proto: http", "X-Forwarded-Ssl: on", ""),
        ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off", ""),
        ("X-Forwarded-Proto: http", "X-Forwarded-Scheme: HTTPS", ""),
        ("X-Forwarded-Proto: http", "x-forwarded-protocol: ssl", ""),
        (
            "X-Forwarded-Proto: http",
            "X-Forwarded-Scheme: http\nX-Forwarded-User: joe",
            "X-Forwarded-Scheme X-Forwarded-User",
        ),
    ] {
        let name = own.split(':').next().expect("a name");
        let expected = format!("{name} {expected}");
        assert_eq!(
            left(&format!("{own}\n{others}")),
            expected.trim_end(),
            "{others}"
        );
    }
    assert_eq!(left("X-Real-IP: 6.6.6.6\nA: b"), "A");
}

#[test]
fn only_the_fields_that_a_proxy_sets_are_believed() {
    let sent = "X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: http\nX-Forwarded-Host: evil\nX-Forwarded-Port: 1\n\
        X-Forwarded-Prefix: /evil\nForwarded: for=6.6.6.6;proto=https\nX-Forwarded-User: root\nX-Real-IP: 6.6.6.6\nA: b";
    for (named, expected, left) in [
        (
            &["X-Forwarded-For", "x-forwarded-proto"][..],
            "1.1.1.1 http - 8000 -",
            "X-Forwarded-For X-Forwarded-Proto A",
        ),
        (&["Forwarded"], "6.6.6.6 https - 8000 -", "Forwarded A"),
        (&[], "- - - - -", "A"),
        (
            &["X-Forwarded-For", "X-Real-IP", "X-Forwarded-User"],
            "1.1.1.1 - - - -",
            "X-Forwarded-For X-Forwarded-User X-Real-IP A",
        ),
    ] {
        let layer = layer(Some(named));
        let (facts, names) = facts_with(&layer, &origin(PROXY), sent).expect("no contradiction");
        assert_eq!(words(&facts), expected, "{named:?}");
        assert_eq!(names.join(" "), left, "{named:?}");
        // The names make nobody a proxy.
        let (facts, names) = facts_with(&layer, &origin(STRANGER), sent).expect("not looked at");
        assert_eq!((facts, names.join(" ")), (Facts::default(), "A".into()));
    }
}

/// A client can send any field, and nginx passes on those that its configuration does not set.
#[test]
fn the_samples_for_nginx_set_each_field_that_is_believed() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (file, samples) in [("conf/guide/proxies.md", 1), ("man/preforkd.toml.5", 1)] {
        let text = std::fs::read_to_string(root.join(file)).expect(file);
        let mut found = 0;
        // The lines of a sample stand together.
        let is_setting = |line: &&str| line.trim_start().starts_with("proxy_set_header ");
        for sample in text
            .lines()
            .collect::<Vec<_>>()
            .chunk_by(|a, b| is_setting(a) == is_setting(b))
        {
            if !is_setting(&sample[0]) {
                continue;
            }
            found += 1;
            let set = |name: &str| {
                let is = |line: &&str| line.split_whitespace().nth(1) == Some(name);
                sample.iter().any(is)
            };
            for name in [
                "Host",
                "X-Forwarded-For",
                "X-Forwarded-Proto",
                "X-Forwarded-Host",
                "X-Forwarded-Port",
                "X-Forwarded-Prefix",
                "Forwarded",
                "X-Real-IP",
                "X-Request-ID",
            ] {
                assert!(set(name), "{file}: a client can send {name}: {sample:#?}");
            }
        }
        assert_eq!(found, samples, "{file}");
    }
}

#[test]
fn a_proxy_that_does_not_tell_who_asks_does_not_ask_itself() {
    let hidden = |hidden| Origin {
        relayed: Some(Relayed {
            server: None,
            tls: true,
            hidden,
        }),
        ..origin(PROXY)
    };
    let (facts_, names) = facts(&hidden(true), ALL).unwrap();
    assert_eq!(names, ["X-Forwarded", "X-Request-Id"]);
    let https = Facts {
        https: Some(true),
        ..Facts::default()
    };
    assert_eq!(facts_, https);
    let (facts_, _) = facts(&hidden(false), "X-Forwarded-For: 1.1.1.1").unwrap();
    assert_eq!(facts_.client, Some([1, 1, 1, 1].into()));
    assert_eq!(facts_.https, Some(true));
}

#[test]
fn the_log_says_which_key_to_set() {
    let line = removal("X-Forwarded-Proto", &origin("[::ffff:10.0.0.1]:5"));
    assert!(
        line.contains("X-Forwarded-Proto of a request from 10.0.0.1,"),
        "{line}"
    );
    assert!(line.contains("trusted_proxies = [\"10.0.0.1\"]"), "{line}");
    let line = removal("Forwarded", &origin(""));
    assert!(line.contains("trusted_proxies = [\"unix\"]"), "{line}");
}

/// Values that a client may send, from the pieces that mean something.
fn spoofed() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let pieces = prop::sample::select(vec![
        "6.6.6.6",
        "10.0.0.2",
        "[::1]:5",
        "unknown",
        "_x",
        "unix:",
        "https",
        "http",
        "evil.example",
        "/evil",
        "443",
        ",",
        ", ",
        ";",
        "\"",
        "\\",
        "for=",
        "proto=",
        "host=",
        "for=10.0.0.2",
        "for=\"",
        "=",
        " ",
        "\t",
        "%0d",
        "\u{e9}",
    ]);
    prop::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// A proxy of ours has added itself to each list, or a field of its own; whatever stood there before.
    #[test]
    fn nothing_that_a_client_writes_changes_what_a_proxy_adds(
        [client, proto, host, prefix, forwarded] in [spoofed(), spoofed(), spoofed(), spoofed(), spoofed()],
        own_fields in proptest::bool::ANY,
    ) {
        let between = |name: &str| match own_fields {
            true => format!("\n{name}: "),
            false => ",".to_owned(),
        };
        let added = |name: &str, spoofed: &str, own: &str| format!("{name}: {spoofed}{}{own}\n", between(name));
        let x_forwarded = [
            added("X-Forwarded-For", &client, "1.1.1.1"),
            added("X-Forwarded-Proto", &proto, "http"),
            added("X-Forwarded-Host", &host, "a.example"),
            added("X-Forwarded-Prefix", &prefix, "/shop"),
        ].concat();
        let expected = "1.1.1.1 http a.example 80 /shop";
        proptest::prop_assert_eq!(known(PROXY, x_forwarded.trim_end()), expected);

        let standard = added("Forwarded", &forwarded, "for=1.1.1.1;proto=http;host=a.example");
        let found = known(PROXY, standard.trim_end());
        let good = found == "1.1.1.1 http a.example 80 -" || found == "malformed Forwarded";
        proptest::prop_assert!(good, "{found}");

        // Only the one kind is set by the proxy, and the client writes the other: refused, or without effect.
        let mixed = format!("Forwarded: {forwarded}\n{x_forwarded}");
        let found = known(PROXY, mixed.trim_end());
        let refused = !found.contains("1.1.1.1");
        proptest::prop_assert!(found == expected || refused, "{found}");

        // From a stranger, nothing of it is left.
        let (facts_, names) = facts(&origin(STRANGER), mixed.trim_end()).expect("not looked at");
        proptest::prop_assert_eq!(facts_, Facts::default());
        proptest::prop_assert!(names.is_empty(), "{names:?}");
    }
}

#[test]
fn the_front_is_believed_at_its_own_listener_only() {
    let mut layer = layer(Some(&["X-Real-IP"]));
    layer.trusted = TrustedProxies::default();
    let fields = "X-Forwarded-For: 203.0.113.7\nX-Forwarded-Proto: https";
    let mut from = origin("");
    for (listener, client, https) in [
        (0, None, None),
        (1, "203.0.113.7".parse().ok(), Some(true)),
        (2, None, None),
    ] {
        from.listener = listener;
        let (facts, left) = facts_with(&layer, &from, fields).unwrap();
        assert_eq!((facts.client, facts.https), (client, https), "{listener}");
        assert_eq!(left.is_empty(), https.is_none(), "{listener}");
    }
}
