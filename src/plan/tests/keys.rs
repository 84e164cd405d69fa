//! Every key of the table is used, and its default is the value of a key that is not written.

use super::*;
use crate::config::{DefaultValue, KEYS, Key};
use crate::plan::log_target::LogTarget;

/// Keys whose value must exist on this host, or fit another key.
const VALUES: &[(&str, &str)] = &[
    (".include", "'conf.d/*.toml'"),
    ("app.NAME.wsgi", "'other:app'"),
    ("app.NAME.command", "['celery', 'worker']"),
    ("app.NAME.enabled", "false"),
    ("app.NAME.listen", "['127.0.0.1:7']"),
    ("app.NAME.workers", "7"),
    ("app.NAME.chdir", "'other'"),
    ("app.NAME.python", "'site/.venv/bin/python'"),
    ("app.NAME.no_new_privs", "false"),
    ("app.NAME.groups", "'media'"),
    ("app.NAME.capabilities", "'net_bind_service'"),
    ("app.NAME.cpu_affinity", "[0, '2-3']"),
    ("app.NAME.landlock.read", "'static'"),
    ("app.NAME.landlock.write", "'static'"),
    ("app.NAME.landlock.connect", "[443]"),
    ("app.NAME.landlock.bind", "[]"),
    ("app.NAME.landlock.required", "true"),
    ("app.NAME.stdout", "'out.log'"),
    ("app.NAME.stderr", "'error.log'"),
    ("app.NAME.access_log", "'access.log'"),
    ("app.NAME.access_format", "'json'"),
    ("app.NAME.env", "{ A = 'b' }"),
    ("app.NAME.env_file", "'.env'"),
    ("app.NAME.secrets", "{ A = 'file:key' }"),
    ("app.NAME.trusted_proxies", "['10.0.0.0/8', 'unix']"),
    ("app.NAME.forwarded_fields", "['Forwarded']"),
    ("app.NAME.prefix", "'/shop'"),
    ("app.NAME.static", "{ '/s/' = 'static' }"),
    ("app.NAME.static.folder", "'other'"),
    ("app.NAME.static.headers", "{ A = 'b' }"),
    ("app.NAME.static.index", "'start.html'"),
    ("app.NAME.static.precompressed", "['gzip', 'br']"),
    ("app.NAME.after", "['other']"),
    ("app.NAME.required", "false"),
    ("front.http2", "false"),
    ("front.max_connections_per_client", "100"),
    ("front.acme.email", "'admin@example.com'"),
    ("front.acme.directory", "'https://ca.example/acme'"),
    ("front.acme.ca", "'cert.pem'"),
    ("front.acme.challenges", "['tls-alpn-01']"),
    ("front.acme.eab.key_id", "'another'"),
    ("front.acme.eab.hmac_key", "'file:other-key'"),
    ("app.NAME.ready", "'exec'"),
    ("app.NAME.restart", "'never'"),
    ("app.NAME.run_before", "['other']"),
    ("app.NAME.replace", "'stop-first'"),
    ("app.NAME.addresses", "'127.0.0.1:9000-9007'"),
    ("app.NAME.protocol", "'scgi'"),
    ("app.NAME.root", "'static'"),
    ("app.NAME.index", "'start.php'"),
    ("app.NAME.stdin", "'listener'"),
    ("app.NAME.schedule", "'@daily'"),
    ("app.NAME.schedule.cron", "'@hourly'"),
    ("app.NAME.schedule.timezone", "'Europe/Berlin'"),
    ("app.NAME.stop_signal", "'QUIT'"),
    ("app.NAME.hooks", "'site.hooks'"),
    ("app.NAME.reload", "'on-change'"),
    ("app.NAME.reload.when", "'on-change'"),
    ("app.NAME.reload.before", "['celery', 'check']"),
    ("app.NAME.reload.check.path", "'/other'"),
    ("app.NAME.reload.check.command", "['celery']"),
    ("app.NAME.reload.check.host", "'other'"),
    ("app.NAME.reload.check.expect", "204"),
    ("app.NAME.listen.address", "'unix:other'"),
    ("app.NAME.listen.name", "'other'"),
    ("app.NAME.give_up.then", "'exit'"),
    ("master.control", "'control'"),
    ("master.pid_file", "'pid'"),
    ("master.state", "'kept'"),
    ("master.metrics", "'127.0.0.1:9100'"),
    ("master.control_mode", "'0660'"),
    ("master.control_group", "'media'"),
    ("app.NAME.max_requests_jitter", "7"),
    ("site.NAME.listen", "['127.0.0.1:7']"),
    ("site.NAME.hosts", "['x.example']"),
    ("site.NAME.app", "'other'"),
    ("site.NAME.tls", "{ cert = 'cert.pem', key = 'key.pem' }"),
    ("site.NAME.tls.cert", "'both.pem'"),
    ("site.NAME.tls.key", "'both.pem'"),
    ("site.NAME.client_ca", "'cert.pem'"),
    ("site.NAME.client_certificate", "'optional'"),
    ("site.NAME.hsts", "true"),
    ("site.NAME.routes.app", "'other'"),
    ("site.NAME.routes.to", "'http://10.0.0.5:80'"),
    ("site.NAME.routes.root", "'static'"),
    ("site.NAME.routes.index", "'start.php'"),
    ("site.NAME.static", "{ '/s/' = 'static' }"),
    ("site.NAME.routes", "[{ path = '/x', answer = 404 }]"),
    ("site.NAME.redirect", "'/other'"),
    ("site.NAME.routes.path", "'/other'"),
    ("site.NAME.routes.rewrite", "'/new'"),
    ("site.NAME.routes.methods", "['GET']"),
    ("site.NAME.routes.headers", "{ A = 'b' }"),
    ("site.NAME.routes.folder", "'static'"),
    ("site.NAME.routes.redirect", "'/x'"),
    ("site.NAME.routes.answer", "404"),
    ("site.NAME.redirect.to", "'/other'"),
    ("site.NAME.redirect.status", "307"),
    ("site.NAME.routes.answer.status", "404"),
    ("site.NAME.routes.answer.text", "'x'"),
    ("site.NAME.routes.answer.content_type", "'text/html'"),
    ("site.NAME.max_connections", "100"),
    ("site.NAME.allow", "['10.0.0.0/8', 'unix']"),
    ("site.NAME.deny", "['10.0.0.0/8', 'unix']"),
    ("site.NAME.basic_auth", "'htpasswd'"),
    ("site.NAME.basic_auth.file", "'other-htpasswd'"),
    ("site.NAME.basic_auth.realm", "'Shop'"),
    ("site.NAME.forward_auth", "'other:/verify'"),
    ("site.NAME.forward_auth.app", "'other'"),
    ("site.NAME.forward_auth.to", "'http://10.0.0.6:80'"),
    ("site.NAME.forward_auth.path", "'/verify?a=b'"),
    ("site.NAME.forward_auth.headers", "['X-User']"),
    ("site.NAME.forward_auth.user", "'X-User'"),
    ("site.NAME.sendfile", "{ '/files/' = 'static' }"),
    ("site.NAME.compress", "['gzip', 'br']"),
    ("site.NAME.error_pages", "{ 502 = 'page.html' }"),
    ("site.NAME.maintenance", "'page.html'"),
    ("site.NAME.request_headers", "{ set = { X-A = 'b' } }"),
    ("site.NAME.response_headers.remove", "['X-A']"),
    ("site.NAME.response_headers.set", "{ X-A = 'b' }"),
    ("site.NAME.response_headers.add", "{ X-A = 'b' }"),
    ("site.NAME.maintenance.page", "'page.txt'"),
    ("site.NAME.maintenance.except", "['unix']"),
    ("site.NAME.rate_limit", "{ rate = '1/s' }"),
    ("site.NAME.rate_limit.rate", "'5/m'"),
    ("site.NAME.rate_limit.key", "'X-Key'"),
    ("front.workers", "7"),
    ("front.access_log", "'access.log'"),
    ("front.access_format", "'json'"),
    ("front.trusted_proxies", "['10.0.0.0/8', 'unix']"),
    ("front.forwarded_fields", "['Forwarded']"),
];

/// Keys that a table must have.
fn required(table: &str, kind: Apps) -> Vec<(&'static str, &'static str)> {
    match table {
        "app.NAME" if kind == Apps::Command => {
            vec![
                ("command", "['celery']"),
                ("listen", "['127.0.0.1:1']"),
                ("stdout", "'x.log'"),
            ]
        }
        "app.NAME" => vec![
            ("wsgi", "'a:b'"),
            ("listen", "['127.0.0.1:1']"),
            ("stdout", "'x.log'"),
        ],
        "app.NAME.schedule" => vec![("cron", "'@daily'")],
        "app.NAME.log_rotate" => vec![("size", "'1MiB'")],
        "app.NAME.workers" => vec![("min", "1"), ("max", "9")],
        "app.NAME.give_up" => vec![("crashes", "3"), ("within", "'1m'")],
        "app.NAME.reload.check" => vec![("path", "'/'")],
        "app.NAME.static" => vec![("folder", "'static'")],
        "app.NAME.listen" => vec![("address", "'unix:x'")],
        "site.NAME" => vec![("listen", "['127.0.0.1:1']"), ("redirect", "'/'")],
        "site.NAME.routes" => vec![("answer", "410")],
        "site.NAME.tls" => vec![("cert", "'cert.pem'"), ("key", "'key.pem'")],
        "site.NAME.basic_auth" => vec![("file", "'htpasswd'")],
        "site.NAME.forward_auth" => vec![("to", "'http://10.0.0.5:80'")],
        "site.NAME.redirect" => vec![("to", "'/'")],
        "front.acme.eab" => vec![("key_id", "'shop'"), ("hmac_key", "'file:key'")],
        "site.NAME.rate_limit" => vec![("rate", "'1/s'")],
        "site.NAME.maintenance" => vec![("page", "'page.html'")],
        _ => vec![],
    }
}

/// A key that another one needs beside it.
fn needed(key: &Key) -> Vec<(&'static str, String)> {
    match key.path().as_str() {
        "front.proxy_protocol" | "app.NAME.proxy_protocol" => {
            vec![("trusted_proxies", "['unix']".to_owned())]
        }
        "app.NAME.reload.before_at_start" => vec![("before", "['celery']".to_owned())],
        "site.NAME.routes.strip_prefix"
        | "site.NAME.routes.rewrite"
        | "site.NAME.routes.stream" => {
            vec![("app", "'other'".to_owned())]
        }
        "site.NAME.client_ca" | "site.NAME.hsts" => {
            vec![("tls", "{ cert = 'cert.pem', key = 'key.pem' }".to_owned())]
        }
        "site.NAME.client_certificate" => vec![
            ("tls", "{ cert = 'cert.pem', key = 'key.pem' }".to_owned()),
            ("client_ca", "'cert.pem'".to_owned()),
        ],
        "app.NAME.root" => vec![("protocol", "'fastcgi'".to_owned())],
        "app.NAME.index" => vec![
            ("protocol", "'fastcgi'".to_owned()),
            ("root", "'static'".to_owned()),
        ],
        "site.NAME.routes.root" => vec![("to", "'fastcgi:unix:x'".to_owned())],
        "site.NAME.routes.index" => vec![
            ("to", "'fastcgi:unix:x'".to_owned()),
            ("root", "'static'".to_owned()),
        ],
        "app.NAME.run_before" => vec![("restart", "'never'".to_owned())],
        "app.NAME.addresses" => vec![("env", "{ A = '{port}' }".to_owned())],
        "app.NAME.reload.check.failures" => vec![("every", "'10s'".to_owned())],
        _ => vec![],
    }
}

/// A site whose certificate an authority issues.
const AUTO: &str = "[site.w]\nlisten = '127.0.0.1:2'\nhosts = 'w'\ntls = 'auto'\nredirect = '/x'\n";

/// A configuration with `added` in `table`, and the required keys; it has another app besides.
fn with(table: &str, kind: Apps, added: &[(&str, String)]) -> Plan {
    let mut rows: BTreeMap<&str, String> = BTreeMap::new();
    rows.extend(
        required(table, kind)
            .into_iter()
            .map(|(name, value)| (name, value.to_owned())),
    );
    rows.extend(added.iter().cloned());
    if table == "site.NAME.routes"
        && ["app", "to", "folder", "redirect"]
            .iter()
            .any(|t| rows.contains_key(t))
    {
        rows.remove("answer");
    }
    if table == "site.NAME" && rows.contains_key("app") {
        rows.remove("redirect");
    }
    if table == "site.NAME.forward_auth" && rows.contains_key("app") {
        rows.remove("to");
    }
    if rows.contains_key("schedule") {
        rows.remove("listen");
    }
    if table == "app.NAME.reload.check" && rows.contains_key("command") {
        rows.remove("path");
    }
    let rows: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let (lines, inline) = (rows.join("\n"), rows.join(", "));
    let app = |skip: &str| {
        let app = required("app.NAME", kind)
            .into_iter()
            .filter(|(name, _)| *name != skip);
        let app: Vec<String> = app
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        format!("[app.w]\n{}", app.concat())
    };
    let site = |skip: &str| {
        let site = required("site.NAME", kind).into_iter();
        let site = site.filter(|(name, _)| *name != skip);
        let site: Vec<String> = site
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        format!("[site.w]\n{}", site.concat())
    };
    let text = match table {
        "app.NAME" => format!("[app.w]\n{lines}"),
        "app.NAME.schedule" => format!("{}schedule = {{ {inline} }}", app("listen")),
        "app.NAME.workers" => format!("{}workers = {{ {inline} }}", app("workers")),
        "app.NAME.static" => format!("{}static = {{ '/s/' = {{ {inline} }} }}", app("static")),
        "app.NAME.listen" => format!("{}listen = [{{ {inline} }}]", app("listen")),
        "site.NAME" => format!("[site.w]\n{lines}"),
        "front" => format!("{}[front]\n{lines}", site("")),
        "site.NAME.routes" => format!("{}routes = [{{ {inline} }}]", site("redirect")),
        "site.NAME.tls" => format!("{}tls = {{ {inline} }}", site("")),
        "site.NAME.redirect" => format!("{}redirect = {{ {inline} }}", site("redirect")),
        "site.NAME.response_headers"
        | "site.NAME.maintenance"
        | "site.NAME.rate_limit"
        | "site.NAME.forward_auth"
        | "site.NAME.basic_auth" => {
            let name = table.rsplit('.').next().unwrap_or_default();
            format!("{}{name} = {{ {inline} }}", site(""))
        }
        "site.NAME.routes.answer" => {
            format!(
                "{}routes = [{{ path = '/x', answer = {{ {inline} }} }}]",
                site("")
            )
        }
        // Of interest only to sites.
        "app.NAME.queue" | "app.NAME.upstream" => {
            let name = table.replace("NAME", "w");
            let site = "[site.w]\nlisten = ['127.0.0.1:2']\napp = 'w'";
            format!("{}[{name}]\n{lines}\n{site}", app(""))
        }
        "" => format!("{lines}\n{}", app("")),
        "master" => format!("[master]\n{lines}\n{}{AUTO}", app("")),
        "front.acme" => format!("{AUTO}[front]\nacme = {{ {inline} }}"),
        "front.acme.eab" => format!("{AUTO}[front]\nacme = {{ eab = {{ {inline} }} }}"),
        other => format!("{}[{}]\n{lines}", app(""), other.replace("NAME", "w")),
    };
    plan(&format!("{text}\n[app.other]\ncommand = ['celery']"))
}

fn kind(key: &Key) -> Apps {
    match key.name {
        "command" => Apps::Command,
        _ if key.apps == Apps::Command || key.table == "app.NAME.schedule" => Apps::Command,
        _ => Apps::Wsgi,
    }
}

/// A value that is neither the default nor required.
fn other_value(key: &Key) -> Option<String> {
    // Routes have the layers of sites.
    let of_site = key.path().replace(".routes.", ".");
    for path in [key.path(), of_site] {
        if let Some((_, value)) = VALUES.iter().find(|(known, _)| *known == path) {
            return Some((*value).to_owned());
        }
    }
    let value = match (key.type_description)().as_str() {
        number if number.starts_with("number") => "7",
        "time" => "'7s'",
        "size" => "'7KiB'",
        "boolean" => "true",
        "mode" => "'0123'",
        "limit" => "'7:8'",
        "user" => "'www'",
        "group" => "'media'",
        // Its own keys are tested.
        "table" => return None,
        other => panic!(
            "{} of type {other} needs a value to be tested with",
            key.path()
        ),
    };
    Some(value.to_owned())
}

#[test]
fn every_key_changes_the_plan() {
    for key in KEYS.iter() {
        let Some(value) = other_value(key) else {
            continue;
        };
        // Without `max_requests` the jitter has no effect, but the worker gets it.
        let mut added = needed(key);
        let without = with(key.table, kind(key), &added);
        added.push((key.name, value));
        let changed = with(key.table, kind(key), &added);
        assert_ne!(changed, without, "{} changes nothing", key.path());
    }
}

#[test]
fn writing_a_default_changes_nothing() {
    let mut compared = 0;
    for key in KEYS.iter() {
        let DefaultValue::Toml(default) = key.default else {
            continue;
        };
        if key.path() == "app.NAME.listen" {
            // An app without listeners must be a `command`.
            assert_eq!(default, "[]");
            let plan = plan("[app.w]\ncommand = ['celery']");
            assert_eq!(plan.apps["w"].sockets, []);
            continue;
        }
        let mut added = needed(key);
        let without = with(key.table, kind(key), &added);
        added.push((key.name, default.to_owned()));
        let written = with(key.table, kind(key), &added);
        assert_eq!(written, without, "{} = {default}", key.path());
        compared += 1;
    }
    assert!(compared > 25, "only {compared} defaults");
}

#[test]
fn a_key_is_refused_for_the_other_kind_of_app_only() {
    for key in KEYS.iter().filter(|key| key.apps != Apps::Any) {
        let value = other_value(key).expect("a value");
        for (kind, wanted) in [
            (Apps::Wsgi, "wsgi = 'a:b'"),
            (Apps::Command, "command = ['celery']"),
        ] {
            // A run accepts no connections.
            let beside = match key.name {
                "schedule" => "",
                _ => "listen = ['127.0.0.1:1']",
            };
            let mut text = format!("[app.w]\n{wanted}\n{beside}\n{} = {value}", key.name);
            for (name, value) in needed(key).iter().filter(|_| kind == key.apps) {
                text += &format!("\n{name} = {value}");
            }
            text += "\n[app.other]\ncommand = ['celery']";
            let refused = plan_as((0, 0), &text).err();
            assert_eq!(
                refused.is_some(),
                kind != key.apps,
                "{}: {refused:?}",
                key.path()
            );
            if let Some(refused) = refused {
                assert!(
                    refused.starts_with(&format!(
                        "app.toml:4:{}: `{}` is for",
                        key.name.len() + 4,
                        key.name
                    )),
                    "{refused}"
                );
            }
        }
    }
}

#[test]
fn a_plan_survives_json() {
    let mut plans = vec![plan(
        "[master]\npid_file = 'x.pid'\n\
         [app.q]\ncommand = ['celery', '{fd}']\nuser = 'www'\numask = '0027'\nready = '3s'\nwatchdog = '1500ms'\n\
         listen = ['[::1]:80', 'fd:x', { address = 'unix:s', mode = '0660', owner = 'www', group = 'media' }]\n\
         stdout = 'x.log'\nmax_age = '1d'\nmax_memory = '1GiB'\nworkers = { min = 0, max = 3 }\n\
         give_up = { crashes = 3, within = '1m', then = 'exit' }\n\
         reload = { before = ['celery'], check = { path = '/' }, soak = '250ms', surge = 2 }\n\
         [app.w]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:1']\naccess_log = 'a.log'\nenv = { A = 'ü\"' }",
    )];
    for key in KEYS.iter() {
        if let Some(value) = other_value(key) {
            let mut added = needed(key);
            added.push((key.name, value));
            plans.push(with(key.table, kind(key), &added));
        }
    }
    for plan in plans {
        let json = serde_json::to_string(&plan).expect("every path has a form");
        assert_eq!(
            serde_json::from_str::<Plan>(&json).expect(&json),
            plan,
            "{json}"
        );
    }
}

#[test]
fn paths_that_are_not_utf8_survive_json() {
    use std::os::unix::ffi::OsStrExt;
    let mut plan = plan("[app.w]\ncommand = ['celery']\nlisten = ['unix:x']\nstdout = 'x.log'");
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff")).to_owned();
    plan.pid_file = Some(path.clone());
    plan.control = Some(path.clone());
    plan.listeners[0].address = Address::Unix(path.clone());
    let app = plan.apps.get_mut("w").expect("it is there");
    app.sockets[0].1 = Address::Unix(path.clone());
    app.launch.program = path.clone();
    app.launch.chdir = path.clone();
    app.output.stdout.as_mut().expect("a log file").target = LogTarget::File(path);
    let json = serde_json::to_string(&plan).expect("every path has a form");
    assert_eq!(
        serde_json::from_str::<Plan>(&json).expect(&json),
        plan,
        "{json}"
    );
}
