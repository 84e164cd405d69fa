//! Keys about what is in front of an app.

use super::*;

/// The settings of a WSGI app with these lines.
fn settings(lines: &str) -> Result<Settings, String> {
    let plan = plan_as(
        (0, 0),
        &format!("[app.w]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:1']\n{lines}"),
    )?;
    Ok(Settings::parse(&plan.apps["w"].launch.env[env::WSGI]).expect("what a worker reads"))
}

#[track_caller]
fn refused(lines: &str, expected: &str) {
    let error = settings(lines).expect_err(lines);
    assert!(
        error.starts_with(&format!("app.toml:{expected}")),
        "{error}\nnot {expected}"
    );
}

#[test]
fn a_prefix_is_a_path_that_does_not_end_with_a_slash() {
    for (lines, prefix) in [
        ("", ""),
        ("prefix = '/shop'", "/shop"),
        ("prefix = '/a b/größe'", "/a b/größe"),
        ("env = { SCRIPT_NAME = '/shop' }", "/shop"),
        ("env = { SCRIPT_NAME = '' }", ""),
        ("env = { SCRIPT_NAME = '/a' }\nprefix = '/a'", "/a"),
    ] {
        assert_eq!(settings(lines).expect(lines).prefix, prefix, "{lines}");
    }
    for (prefix, hint) in [
        ("shop", "write \"/shop\""),
        ("/shop/", "write \"/shop\""),
        ("//shop", "write \"/shop\""),
        ("/", "remove the key"),
        ("", "remove the key"),
        ("/a%20b", "not encoded"),
        ("/a?b", "without \"?\""),
        ("/a\\nb", "control characters"),
    ] {
        let error = settings(&format!("prefix = \"{prefix}\"")).expect_err(prefix);
        assert!(
            error.starts_with("app.toml:4:10: prefix: must b") && error.contains(hint),
            "{error}"
        );
    }
    refused(
        "env = { SCRIPT_NAME = '/shop/' }",
        "4:9: env: SCRIPT_NAME: must begin with one \"/\" and not end with one, not \"/shop/\" (write \"/shop\")",
    );
    refused(
        "prefix = '/a'\nenv = { SCRIPT_NAME = '/b' }",
        "5:9: env: SCRIPT_NAME is \"/b\", but `prefix` is \"/a\" (remove one of them)",
    );
}

#[test]
fn trusted_proxies_are_networks_addresses_or_unix() {
    let lines = "trusted_proxies = ['10.0.0.0/8', '192.0.2.1', '::1', 'unix']";
    let trusted = settings(lines).expect(lines).http.trusted_proxies;
    let shown: Vec<String> = trusted.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.0.2.1/32", "::1/128", "unix"]);
    refused(
        "trusted_proxies = ['10.0.0.0/8', '10.1.2.3/8']",
        "4:34: trusted_proxies: \"10.1.2.3/8\" is not a network (write \"10.0.0.0/8\", or \"10.1.2.3\" for this address only)",
    );
    refused("trusted_proxies = '*'", "4:19: trusted_proxies: ");
}

#[test]
fn the_fields_that_proxies_set_are_of_the_family() {
    assert_eq!(settings("").expect("no list").http.forwarded_fields, None);
    for (value, fields) in [
        ("[]", &[][..]),
        ("'Forwarded'", &["Forwarded"]),
        (
            "['x-forwarded-for', 'X-Real-IP', 'X-Forwarded-Ssl']",
            &["x-forwarded-for", "X-Real-IP", "X-Forwarded-Ssl"],
        ),
    ] {
        let found = settings(&format!("forwarded_fields = {value}")).expect(value);
        assert_eq!(found.http.forwarded_fields.as_deref().unwrap(), fields);
    }
    for name in [
        "X-Forwarded-",
        "X-Forwarded-*",
        "X-Forwarded-For:",
        "For",
        "",
    ] {
        refused(
            &format!("forwarded_fields = ['Forwarded', '{name}']"),
            &format!("4:34: forwarded_fields: \"{name}\" is no field"),
        );
    }
}

#[test]
fn somebody_must_be_allowed_to_send_a_proxy_header() {
    refused(
        "proxy_protocol = true",
        "4:18: proxy_protocol: without `trusted_proxies` nobody could connect (add",
    );
    let lines = "proxy_protocol = true\ntrusted_proxies = ['unix']";
    assert!(settings(lines).expect(lines).http.proxy_protocol);
}
