//! Sites, and the workers that serve them.

use preforkd_worker::front::{self, Target};

use super::*;

/// The settings of the front of this configuration.
fn settings(text: &str) -> front::Settings {
    let plan = plan(text);
    let settings = plan.apps["front"].launch.settings.as_ref();
    front::Settings::parse(&settings.expect("settings").0).expect("what a worker reads")
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = plan_as((0, 0), text).expect_err(text);
    assert!(
        error.starts_with(&format!("app.toml:{expected}")),
        "{error}\nnot {expected}"
    );
}

const SITE: &str = "[site.a]\nlisten = '127.0.0.1:80'\nstatic = { '/' = 'static' }\n";

#[test]
fn sites_make_one_pool_that_reloads_leave_alone() {
    let plan = plan(&format!(
        "{SITE}[site.b]\nlisten = ['[::1]:80', '127.0.0.1:80']\nhosts = 'b'\nredirect = 'https'\n[front]\nuser = 'www'\n[app.web]\nwsgi = 'a:b'\nlisten = '127.0.0.1:81'"
    ));
    let front = &plan.apps["front"];
    let addresses: Vec<_> = front
        .sockets
        .iter()
        .map(|(name, at)| format!("{name} {at}"))
        .collect();
    assert_eq!(addresses, ["0 127.0.0.1:80", "1 [::1]:80"]);
    assert_eq!(plan.listeners.len(), 3);
    assert_eq!(front.launch.program, Path::new("/lib/preforkd-front"));
    assert_eq!(front.launch.env[env::KIND], Kind::Front.name());
    assert_eq!(front.launch.user.as_ref().map(|user| user.uid), Some(33));
    assert!(front.on_change && front.output.taken_over && front.policy.announces_end);
    assert_eq!(front.policy.workers, 6, "the CPUs");
    assert_eq!(front.warnings, [] as [&str; 0]);
    // Its plan survives the way from the process that checks the configuration.
    let json = serde_json::to_string(&plan).expect("JSON");
    assert_eq!(serde_json::from_str::<Plan>(&json).expect("the same"), plan);
}

#[test]
fn a_front_without_a_user_would_be_root() {
    let warned = |ids| {
        plan_as(ids, SITE).expect("fine").apps["front"]
            .warnings
            .concat()
    };
    assert!(warned((0, 0)).starts_with("its workers run as root"));
    assert_eq!(warned((7, 7)), "");
}

#[test]
fn sites_of_one_address_have_their_own_hosts() {
    let found = settings(
        "[site.a]\nlisten = ['127.0.0.1:80', 'unix:x']\nhosts = ['A.example.', '*.b.example']\nredirect = 'https'\n[site.b]\nlisten = '127.0.0.1:80'\nredirect = 'https'",
    );
    assert_eq!(found.sites[0].hosts, ["a.example", "*.b.example"]);
    assert_eq!(found.sites[0].listeners, ["0", "1"]);
    assert_eq!(found.sites[1].listeners, ["0"]);
    assert_eq!(found.listeners["1"].address, "unix:/srv/x");
    refused(
        &format!("{SITE}[site.b]\nlisten = '127.0.0.1:80'\nredirect = 'https'"),
        "4:7: [site.b] and [site.a] both have no `hosts`, at 127.0.0.1:80",
    );
    refused(
        "[site.a]\nlisten = '127.0.0.1:80'\nhosts = 'x'\nredirect = 'https'\n[site.b]\nlisten = '127.0.0.1:80'\nhosts = ['y', 'X.']\nredirect = 'https'",
        "7:15: hosts: \"x\" is that of [site.a] too, at 127.0.0.1:80 (remove it from one of them)",
    );
    refused(
        "[site.a]\nlisten = '127.0.0.1:80'\nhosts = ['x', 'X']\nredirect = 'https'",
        "3:15: hosts: \"x\" is there twice (remove one)",
    );
    // Another address is another place.
    plan(
        "[site.a]\nlisten = '127.0.0.1:80'\nhosts = 'x'\nredirect = 'https'\n[site.b]\nlisten = '127.0.0.1:81'\nhosts = 'x'\nredirect = 'https'",
    );
}

#[test]
fn listeners_belong_to_apps_or_to_sites() {
    refused(
        "[app.web]\nwsgi = 'a:b'\nlisten = '127.0.0.1:80'\n[site.a]\nlisten = '127.0.0.1:80'\nredirect = 'https'",
        "5:10: listen: 127.0.0.1:80 is the address of an app too (choose another one)",
    );
    refused(
        "[site.a]\nlisten = []\nredirect = 'https'",
        "1:7: [site.a] has no listener (add for example",
    );
    refused(
        "[site.a]\nlisten = { address = 'unix:x', name = 'y' }\nredirect = 'https'",
        "2:39: listen: `name` is for the listeners of an app (remove it)",
    );
    refused(
        "[site.a]\nlisten = { address = 'unix:x', mode = '0600' }\nhosts = 'a'\nredirect = 'https'\n[site.b]\nlisten = 'unix:x'\nredirect = 'https'",
        "6:10: listen: unix:/srv/x has another mode, owner or group in another site (write the same)",
    );
    refused(
        "[site.a]\nredirect = 'https'",
        "1:1: a: the key `listen` is missing",
    );
    refused(
        "[app.front]\ncommand = 'celery'",
        "1:6: \"front\" is the name of the workers that serve sites",
    );
    refused(
        "[site.'a b']\nlisten = '127.0.0.1:80'\nredirect = 'https'",
        "1:7: \"a b\" is not a valid name for a site",
    );
}

#[test]
fn a_site_has_its_routes_in_the_order_in_which_they_count() {
    let found = settings(
        "[site.a]\nlisten = '127.0.0.1:80'\nredirect = 'https'\nstatic = { '/s/' = 'static' }\nroutes = [
            { path = '/s/', methods = ['POST', 'POST'], headers = { X-A = '*' }, answer = 405 },
            { path = '/d', folder = { folder = 'static', max_age = '1h' } },
            { path = '/f', folder = 'static/favicon.ico' },
            { path = '/old', redirect = { to = 'https://new.example', status = 301 } },
            { answer = { status = 503, text = 'soon', content_type = 'text/html' }, headers = { X-B = '1' } }]",
    );
    let routes = &found.sites[0].routes;
    let paths: Vec<_> = routes.iter().map(|route| route.path.as_str()).collect();
    assert_eq!(paths, ["/s/", "/d/", "/f", "/old", "/", "/s/", "/"]);
    assert_eq!(routes[0].methods, ["POST"]);
    assert_eq!(routes[0].headers["x-a"], "*");
    assert!(matches!(&routes[1].target, Target::Files(mapping) if mapping.max_age == Some(3600)));
    assert!(
        matches!(&routes[2].target, Target::Files(mapping) if mapping.path == Path::new("/srv/static/favicon.ico"))
    );
    let to = |status, location: &str| Target::Redirect {
        status,
        location: location.into(),
    };
    assert_eq!(
        routes[3].target,
        to(301, "https://new.example{path}{query}")
    );
    let (content_type, body) = ("text/html".to_owned(), "soon".to_owned());
    assert_eq!(
        routes[4].target,
        Target::Answer {
            status: 503,
            content_type,
            body
        }
    );
    assert_eq!(routes[6].target, to(308, "https://{host}{path}{query}"));
}

#[test]
fn a_route_that_is_wrong_is_shown() {
    let refused = |route: &str, expected: &str| {
        let text = format!("[site.a]\nlisten = '127.0.0.1:80'\nroutes = [{route}]");
        self::refused(&text, expected);
    };
    refused(
        "{ path = 'x', answer = 404 }",
        "3:20: routes.path: the prefix \"x\" must begin with \"/\"",
    );
    refused(
        "{ path = '/x/../y', answer = 404 }",
        "3:20: routes.path: no request has the prefix \"/x/../y\"",
    );
    refused(
        "{ path = '/x?y', answer = 404 }",
        "3:20: routes.path: must be a path without",
    );
    refused(
        "{ path = '/x' }",
        "3:11: routes: nothing answers /x (add one of `folder`, `redirect`, `answer`)",
    );
    refused(
        "{ path = '/x', answer = 404, folder = 'static' }",
        "3:11: routes: both `folder` and `answer` answer /x (remove one)",
    );
    refused(
        "{ folder = 'nowhere' }",
        "3:11: static: there is no folder /srv/nowhere",
    );
    refused(
        "{ answer = 404, methods = 'get' }",
        "3:37: routes.methods: \"get\" is not a method",
    );
    refused(
        "{ answer = 404, headers = { 'a b' = 'x' } }",
        "3:39: routes.headers: \"a b\" is not a name",
    );
    refused(
        "{ answer = 99 }",
        "3:22: routes.answer: must be between 200 and 599, not 99",
    );
    refused(
        "{ answer = { content_type = \"a\\nb\" } }",
        "3:39: routes.answer.content_type: ",
    );
    refused(
        "{ redirect = 'shop.example' }",
        "3:24: redirect: must be \"https\", or begin with",
    );
    refused(
        "{ redirect = 'https:///x' }",
        "3:24: redirect: \"https:///x\" names no host",
    );
    refused(
        "{ redirect = '/a b' }",
        "3:24: redirect: a location has no character ' '",
    );
    refused(
        "{ redirect = '/{uri}' }",
        "3:24: redirect: \"{uri}\" stands for nothing (known here: {host}, {path}, {query})",
    );
    refused(
        "{ redirect = { to = '/x', status = 304 } }",
        "3:46: redirect.status: must be 301, 302, 303, 307 or 308, not 304",
    );
    refused(
        "{ answer = 404, app = 'web' }",
        "3:27: routes: unknown key `app`: a site passes no requests on",
    );
    refused(
        "{ path = '/a b', answer = 404 }, { path = '/a%20b', answer = 403 }",
        "3:44: [site.a] has two routes for the same requests, those for \"/a%20b\" (remove one)",
    );
}

#[test]
fn a_route_that_never_gets_a_request_is_warned_of() {
    let warnings = |routes: &str| {
        let text = format!("[site.a]\nlisten = '127.0.0.1:80'\nroutes = [{routes}]");
        plan_as((7, 7), &text).expect(routes).apps["front"]
            .warnings
            .clone()
    };
    for (routes, hidden) in [
        ("{ answer = 404 }, { answer = 403, methods = 'GET' }", true),
        (
            "{ answer = 404, headers = { a = '*' } }, { answer = 403, headers = { A = 'x', b = 'y' } }",
            true,
        ),
        (
            "{ answer = 404, methods = ['GET', 'PUT'] }, { answer = 403, methods = 'GET' }",
            true,
        ),
        ("{ answer = 404, methods = 'GET' }, { answer = 403 }", false),
        (
            "{ answer = 404, headers = { a = 'x' } }, { answer = 403, headers = { a = '*' } }",
            false,
        ),
        (
            "{ answer = 404 }, { path = '/x', answer = 403, methods = 'GET' }",
            false,
        ),
        (
            "{ folder = 'static' }, { answer = 403, methods = 'GET' }",
            false,
        ),
    ] {
        let found = warnings(routes);
        assert_eq!(!found.is_empty(), hidden, "{routes}: {found:?}");
        assert!(
            found
                .iter()
                .all(|text| text.contains("[site.a]: a route for \"/\" never gets a request"))
        );
    }
}
