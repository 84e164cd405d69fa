//! Sites, and the workers that serve them.

use preforkd_worker::acme::Kind::{Http, TlsAlpn};
use preforkd_worker::front::{self, Target};
use preforkd_worker::settings::Coding;

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

/// A site that asks the application `wsgi` for its static files, with these keys more.
fn of_django(wsgi: &str, more: &str) -> String {
    format!(
        "[site.a]\nlisten = '127.0.0.1:80'\nstatic = 'django'\n{more}\n[front]\nuser = 'www'\n[app.web]\nwsgi = '{wsgi}'\nlisten = '127.0.0.1:81'\nuser = 'www'"
    )
}

#[test]
fn a_site_asks_its_django_application_for_the_static_files() {
    let routes = |text: &str| settings(text).sites.remove(0).routes;
    let found = routes(&of_django("shop.wsgi", "app = 'web'"));
    let paths: Vec<_> = found.iter().map(|route| route.path.as_str()).collect();
    assert_eq!(paths, ["/static/", "/"]);
    let Target::Files(mapping) = &found[0].target else {
        panic!("{found:?}")
    };
    assert_eq!(mapping.path, Path::new("/srv/static"));
    assert_eq!(mapping.precompressed, Coding::ALL);
    let by_route = routes(&of_django(
        "shop.wsgi",
        "routes = [{ path = '/x/', app = 'web' }]",
    ));
    assert_eq!(by_route.len(), 2);

    let text = of_django("empty:app", "app = 'web'");
    assert_eq!(routes(&text).len(), 1);
    let warned = plan_as((0, 0), &text).expect("fine").apps["front"]
        .warnings
        .concat();
    assert_eq!(
        warned,
        "[site.a] static = \"django\", app web: STATIC_ROOT is not set"
    );
}

#[test]
fn what_an_application_says_of_its_static_files_is_data() {
    for (wsgi, said) in [
        (
            "strange:app",
            "3:10: static: there is no folder /nowhere, which app web names",
        ),
        (
            "closed:app",
            "3:10: static: the user of the app may not enter /srv/other, which",
        ),
        (
            "plain:app",
            "3:10: static: the application of app web is no Django site (write",
        ),
        (
            "broken:app",
            "3:10: static: app web cannot be asked where its static files are: there is no module",
        ),
    ] {
        refused(&of_django(wsgi, "app = 'web'"), said);
    }
    refused(
        &of_django("shop.wsgi", "routes = [{ redirect = 'https' }]"),
        "3:10: static: \"django\" is for a site with an app that has `wsgi`",
    );
    let two = of_django(
        "shop.wsgi",
        "app = 'web'\nroutes = [{ path = '/x/', app = 'other' }]",
    );
    let two = format!("{two}\n[app.other]\nwsgi = 'a:b'\nlisten = '127.0.0.1:82'");
    refused(
        &two,
        "3:10: static: \"django\" is for a site with one app that has `wsgi`, and this one has other and web",
    );
    refused(
        "[app.web]\nwsgi = 'a:b'\nlisten = '127.0.0.1:1'\nstatic = 'assets'",
        "4:10: static: must be a table of prefixes, or \"django\" (write for example { \"/static/\" = \"assets\" })",
    );
    // What the app may enter and the workers of the front may not is no mistake of the app.
    let text = of_django("closed:app", "app = 'web'")
        .replace("'127.0.0.1:81'\nuser = 'www'", "'127.0.0.1:81'");
    let warned = plan_as((0, 0), &text).expect("fine").apps["front"]
        .warnings
        .concat();
    assert_eq!(
        warned,
        "[site.a] static = \"django\", app web: user www may not enter /srv/other, so /srv/other cannot be served: Permission denied (give that user the permission to enter it)"
    );
    // One that may fail does not hold up the site.
    let text = of_django("broken:app", "app = 'web'") + "\nrequired = false";
    let warned = plan_as((0, 0), &text).expect("fine").apps["front"]
        .warnings
        .concat();
    assert!(warned.contains("there is no module broken"), "{warned}");
}

#[test]
fn a_folder_that_the_user_of_the_front_may_not_enter_is_warned_of() {
    let of_site =
        |keys: &str| format!("[front]\nuser = 'www'\n[site.a]\nlisten = '127.0.0.1:80'\n{keys}");
    let route = |keys| of_site(&format!("routes = [{{ path = '/', app = 'web', {keys} }}]"));
    let web = |keys| format!("\n[app.web]\ncommand = ['celery']\n{keys}");
    let denied = "Permission denied (give that user the permission to enter it)";
    for (config, expected) in [
        (
            of_site("static = { '/s/' = 'other' }"),
            "static: user www may not enter /srv/other, so /srv/other cannot be served",
        ),
        (
            of_site("routes = [{ path = '/s', folder = 'other' }]"),
            "static: user www may not enter /srv/other, so /srv/other cannot be served",
        ),
        (
            of_site("app = 'web'\nsendfile = { '/s/' = 'other' }") + &web(""),
            "sendfile: user www may not enter /srv/other, so no file below /srv/other can be sent",
        ),
        (
            route("sendfile = { '/s/' = 'other' }") + &web(""),
            "sendfile: user www may not enter /srv/other, so no file below /srv/other can be sent",
        ),
        (
            of_site("app = 'web'") + &web("protocol = 'fastcgi'\nroot = 'other'"),
            "root of app web: user www may not enter /srv/other, so no script of it is found",
        ),
    ] {
        let plan = plan(&config);
        let warnings: Vec<_> = plan.apps["front"].warnings.iter().collect();
        assert_eq!(warnings, [&format!("{expected}: {denied}")], "{config}");
    }
    let open = of_site("static = { '/s/' = 'static' }\nsendfile = { '/s/' = 'static' }");
    assert_eq!(plan(&open).apps["front"].warnings, [] as [&str; 0]);
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
        "[app.web]\nwsgi = 'a:b'\nlisten = '0.0.0.0:80'\n[site.a]\nlisten = '127.0.0.1:80'\nredirect = 'https'",
        "5:10: listen: 127.0.0.1:80 and 0.0.0.0:80 cannot both be bound (remove one)",
    );
    refused(
        "[site.a]\nlisten = '127.0.0.1:80'\nhosts = 'a'\nredirect = 'https'\n[site.b]\nlisten = '0.0.0.0:80'\nhosts = 'b'\nredirect = 'https'",
        "6:10: listen: 0.0.0.0:80 and 127.0.0.1:80 cannot both be bound (remove one)",
    );
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
        "3:11: routes: nothing answers /x (add one of `app`, `to`, `folder`, `redirect`, `answer`)",
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
        "3:24: redirect: \"{uri}\" stands for nothing (known here: {host}, {path}, {rest}, {query})",
    );
    refused(
        "{ redirect = { to = '/x', status = 304 } }",
        "3:46: redirect.status: must be 301, 302, 303, 307 or 308, not 304",
    );
    refused(
        "{ to = ['http://10.0.0.5:80', 'backend:80'] }",
        "3:41: routes.to: \"backend:80\": names are not looked up, as their addresses may change unseen (write the IP address of backend)",
    );
    refused(
        "{ to = ['http://10.0.0.5:80', 'scgi:10.0.0.5:81'] }",
        "3:41: routes.to: the addresses speak different protocols",
    );
    refused(
        "{ to = ['http://10.0.0.5', '10.0.0.5:80'] }",
        "3:38: routes.to: \"10.0.0.5:80\" is there twice (remove one)",
    );
    refused("{ to = [] }", "3:18: routes.to: there is no address");
    refused(
        "{ to = 'http://10.0.0.5', root = 'static' }",
        "3:44: routes.root: only programs that speak FastCGI run scripts of a folder",
    );
    refused(
        "{ to = 'fastcgi:unix:x', root = 'nowhere' }",
        "3:43: routes.root: there is no folder /srv/nowhere (create it first)",
    );
    refused(
        "{ to = 'fastcgi:unix:x', index = 'a.php' }",
        "3:44: routes.index: it is a file of `root` (add `root`, or remove it)",
    );
    refused(
        "{ to = 'fastcgi:unix:x', root = 'static', index = 'a/b.php' }",
        "3:61: routes.index: must be the name of a file, not \"a/b.php\"",
    );
    refused(
        "{ answer = 404, root = 'static' }",
        "3:34: routes.root: it is for a route with `to`",
    );
    refused(
        "{ answer = 404, strip_prefix = true }",
        "3:42: routes.strip_prefix: it is for a route to an app or an address (remove it)",
    );
    refused(
        "{ path = '/a b', answer = 404 }, { path = '/a%20b', answer = 403 }",
        "3:44: [site.a] has two routes for the same requests, those for \"/a%20b\" (remove one)",
    );
}

#[test]
fn routes_lead_to_addresses_outside_and_share_them() {
    let found = settings(
        "[site.a]\nlisten = '127.0.0.1:80'\nroutes = [{ path = '/p', to = 'fastcgi:unix:php.sock', root = 'static' }, { to = ['http://10.0.0.5', 'http://10.0.0.6:81'], strip_prefix = true }]\n\
         [site.b]\nlisten = '127.0.0.1:80'\nhosts = 'b'\nroutes = [{ to = ['http://10.0.0.5', 'http://10.0.0.6:81'] }]",
    );
    let mut upstreams = found.upstreams.iter();
    let (scripts, php) = upstreams.next().expect("one with scripts");
    assert_eq!(scripts, "fastcgi:unix:php.sock, static, index.php");
    assert_eq!(php.addresses, ["unix:/srv/php.sock"]);
    assert_eq!(php.speech.protocol, front::Protocol::FastCgi);
    let expected = front::Scripts {
        root: "/srv/static".into(),
        index: "index.php".into(),
    };
    assert_eq!(php.speech.scripts, Some(expected));
    let (name, http) = upstreams.next().expect("one without");
    assert_eq!(http.addresses, ["10.0.0.5:80", "10.0.0.6:81"]);
    assert_eq!(http.speech, front::Speech::default());
    assert_eq!(upstreams.next(), None, "both sites share it");
    for route in [&found.sites[0].routes[1], &found.sites[1].routes[0]] {
        assert_eq!(route.target, Target::Upstream(name.clone()));
    }
}

#[test]
fn an_app_says_what_its_workers_speak() {
    let app =
        "[site.a]\nlisten = '127.0.0.1:80'\napp = 'php'\n[app.php]\ncommand = ['celery', '{fd}']\n";
    let found = settings(&format!("{app}protocol = 'fastcgi'\nroot = 'static'"));
    let speech = &found.upstreams["php"].speech;
    assert_eq!(speech.protocol, front::Protocol::FastCgi);
    let root = speech.scripts.as_ref().map(|scripts| scripts.root.clone());
    assert_eq!(root, Some("/srv/static".into()));
    for (keys, expected) in [
        ("protocol = 'fcgi'", "6:12: "),
        (
            "root = 'static'",
            "6:8: root: only programs that speak FastCGI",
        ),
        ("index = 'a.php'", "6:9: index: it is a file of `root`"),
        (
            "protocol = 'fastcgi'\nroot = 'nowhere'",
            "7:8: root: there is no folder /srv/nowhere",
        ),
        (
            "protocol = 'scgi'\nreload.check.path = '/'",
            "7:21: reload.check.path: a check asks with HTTP",
        ),
    ] {
        refused(&format!("{app}{keys}"), expected);
    }
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

/// Where the front reaches the app `web`, and the listeners of that.
fn upstream(text: &str) -> (Vec<String>, Vec<String>) {
    let plan = plan(text);
    let settings = plan.apps["front"].launch.settings.as_ref();
    let settings =
        front::Settings::parse(&settings.expect("settings").0).expect("what a worker reads");
    let sockets = plan.apps["web"].sockets.iter();
    let sockets = sockets.map(|(name, at)| format!("{name} {at}"));
    assert_eq!(plan.apps["front"].after, ["web".to_owned()].into());
    (
        settings.upstreams["web"].addresses.clone(),
        sockets.collect(),
    )
}

#[test]
fn an_app_that_a_site_names_has_a_listener_for_the_front_only() {
    let site = "[master]\ncontrol = 'p.sock'\n[site.a]\nlisten = '127.0.0.1:80'\napp = 'web'\n[front]\nuser = 'www'\n[app.web]\n";
    let own = "unix:/srv/p-web.front";
    let (addresses, sockets) = upstream(&format!("{site}wsgi = 'a:b'"));
    assert_eq!(
        (addresses, sockets),
        (vec![own.into()], vec![format!("front {own}")])
    );
    let (addresses, sockets) = upstream(&format!("{site}wsgi = 'a:b'\nlisten = '127.0.0.1:81'"));
    assert_eq!(addresses, [own]);
    assert_eq!(
        sockets,
        ["web 127.0.0.1:81".to_owned(), format!("front {own}")]
    );
    let (addresses, sockets) = upstream(&format!("{site}command = ['celery', '{{fd}}']"));
    assert_eq!(
        (addresses, sockets),
        (vec![own.into()], vec![format!("front {own}")])
    );
    // A program may know of one listener only.
    for (listen, address) in [
        ("['fd:x', '0.0.0.0:81']", "127.0.0.1:81"),
        ("'[::]:81'", "[::1]:81"),
        ("'unix:x'", "unix:/srv/x"),
    ] {
        let (addresses, sockets) =
            upstream(&format!("{site}command = 'celery'\nlisten = {listen}"));
        assert_eq!(addresses, [address]);
        assert!(sockets.iter().all(|socket| socket.starts_with("web ")));
    }
    let plan = plan(&format!("{site}wsgi = 'a:b'\nbacklog = 7"));
    let listener = plan
        .listeners
        .iter()
        .find(|listener| listener.address.to_string() == own);
    let listener = listener.expect("it is bound");
    assert_eq!(
        (listener.mode, listener.owner, listener.backlog),
        (Some(0o600), Some(33), 7)
    );
}

#[test]
fn the_sockets_of_two_masters_differ() {
    let text = "[site.a]\nlisten = '127.0.0.1:80'\napp = 'web'\n[app.web]\nwsgi = 'a:b'";
    let parse = |ids, file: &str| {
        let host = Invented {
            ids,
            variables: &[],
            environment: None,
            landlock: 7,
        };
        let plan = Plan::parse(text, Path::new(file), &host).expect("fine");
        plan.apps["web"].sockets[0].1.to_string()
    };
    let root = parse((0, 0), "/srv/app.toml");
    assert!(
        root.starts_with("unix:/run/preforkd-") && root.ends_with("-web.front"),
        "{root}"
    );
    assert_eq!(root, parse((0, 0), "/srv/app.toml"));
    assert_ne!(root, parse((0, 0), "/srv/other.toml"));
    assert!(parse((7, 7), "/srv/app.toml").starts_with("unix:/tmp/preforkd-"));
}

#[test]
fn workers_with_addresses_of_their_own_are_reached_there_only() {
    let text =
        "[site.a]\nlisten = '127.0.0.1:80'\napp = 'web'\n[app.web]\ncommand = ['celery', '{port}']";
    for more in ["", "\nlisten = '127.0.0.1:81'"] {
        let text = format!("{text}{more}");
        let upstream = &settings(&text).upstreams["web"];
        assert!(upstream.is_told && upstream.addresses.is_empty());
        let sockets = plan(&text).apps["web"].sockets.clone();
        assert!(
            sockets.iter().all(|(name, _)| name != "front"),
            "{sockets:?}"
        );
    }
}

#[test]
fn an_app_that_no_request_reaches_is_refused() {
    let site = "[site.a]\nlisten = '127.0.0.1:80'\n";
    let refused = |rest: &str, expected: &str| self::refused(&format!("{site}{rest}"), expected);
    refused(
        "app = 'wep'\n[app.web]\ncommand = 'celery'",
        "3:7: app: there is no app \"wep\" (did you mean \"web\"?)",
    );
    refused(
        "routes = [{ app = 'x' }]\n[app.web]\ncommand = 'celery'",
        "3:19: app: there is no app \"x\" (add a table [app.x])",
    );
    refused(
        "app = 'web'\n[app.web]\ncommand = 'celery'\nschedule = '@daily'",
        "3:7: app: app web runs at times",
    );
    refused(
        "app = 'web'\n[app.web]\ncommand = 'celery'\nlisten = 'fd:x'",
        "3:7: app: no listener of app web has an address that is known",
    );
    refused(
        "app = 'web'\n[app.web]\nwsgi = 'a:b'\nproxy_protocol = true\ntrusted_proxies = 'unix'",
        "3:7: app: app web has `proxy_protocol`",
    );
    refused(
        "app = 'web'\nredirect = 'https'\n[app.web]\nwsgi = 'a:b'",
        "3:7: app: `redirect` takes all requests too (remove one)",
    );
    for (route, expected) in [
        (
            "to = 'http://10.0.0.5', strip_prefix = true, rewrite = '/n'",
            "3:81: routes.rewrite: `strip_prefix` says",
        ),
        (
            "to = 'http://10.0.0.5', rewrite = 'n'",
            "3:60: routes.rewrite: must be a path",
        ),
        (
            "to = 'http://10.0.0.5', rewrite = '/a/../b'",
            "3:60: routes.rewrite: must be a path",
        ),
        (
            "to = 'http://10.0.0.5', rewrite = '/a?b'",
            "3:60: routes.rewrite: must be a path",
        ),
        (
            "answer = 404, rewrite = '/a'",
            "3:50: routes.rewrite: it is for a route to an app",
        ),
    ] {
        refused(&format!("routes = [{{ path = '/x', {route} }}]"), expected);
    }
    refused(
        "routes = [{ path = '/x', answer = 404, strip_prefix = true }]",
        "3:55: routes.strip_prefix: it is for a route to an app",
    );
    refused(
        "routes = [{ path = '/x', answer = 404, stream = true }]",
        "3:49: routes.stream: it is for a route to an app",
    );
    self::refused(
        "[app.web]\nwsgi = 'a:b'\nlisten = { address = 'unix:x', name = 'front' }",
        "3:10: listen: \"front\" is the name of the listener for requests of sites",
    );
}

#[test]
fn an_authority_issues_the_certificate_of_a_site() {
    let site = "[site.a]\nlisten = '127.0.0.1:443'\nredirect = '/x'\n";
    let auto = format!("{site}hosts = ['A.example', 'b.example']\ntls = 'auto'\n");
    let shown = |text: &str| {
        let plan = plan(text);
        let all = plan.apps["front"].certificates.as_ref().expect("some");
        let all = front::Certificates::parse(&all.0).expect("what a worker reads");
        assert!(all.0["a"].is_automatic);
        (plan, all.0["a"].certificates[0].chain.text.clone())
    };
    let (plan, text) = shown(&format!("{auto}[master]\nstate = 'kept'"));
    assert_eq!(text, "issued");
    let app = &plan.apps["front"];
    let acme = app.acme.as_ref().expect("it is ordered");
    assert_eq!(acme.sites["a"], ["a.example", "b.example"]);
    assert_eq!(acme.path_of("a"), Path::new("/srv/kept/acme/site-a.pem"));
    assert_eq!(
        acme.directory,
        "https://acme-v02.api.letsencrypt.org/directory"
    );
    // Nobody could ask at port 80.
    assert_eq!(acme.kinds, [TlsAlpn, Http]);
    let mut other = app.clone();
    other.acme = None;
    assert!(app.is_as(&other), "no worker is replaced for it");
    let (plan, text) = shown(&format!("{auto}[master]\nstate = 'broken'"));
    assert_eq!(text, "self-signed for a.example b.example");
    let warnings = plan.apps["front"].warnings.concat();
    assert!(
        warnings.contains("/srv/broken/acme/site-a.pem: it is bad"),
        "{warnings}"
    );
    let plain = "[site.b]\nlisten = '0.0.0.0:80'\nredirect = 'https'\n";
    let (plan, _) = shown(&format!("{auto}{plain}"));
    let acme = plan.apps["front"].acme.as_ref().expect("it is ordered");
    assert_eq!(acme.kinds, [Http, TlsAlpn]);
    assert_eq!(acme.state, Path::new("/var/lib/preforkd"));
    let variables = &[("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")];
    let plan = plan_with((7, 7), variables, &auto).expect("fine");
    let acme = plan.apps["front"].acme.as_ref().expect("it is ordered");
    assert_eq!(acme.state, Path::new("/var/lib/one"));

    let refused = |rest: &str, expected: &str| self::refused(&format!("{site}{rest}"), expected);
    refused(
        "tls = 'auto'",
        "4:7: tls: \"auto\" needs the names that the certificate is for (add `hosts`)",
    );
    refused(
        "tls = 'auto'\nhosts = ['a', '*.a']",
        "5:15: hosts: \"*.a\" cannot stand in a site with tls = \"auto\": an authority wants a record in DNS",
    );
    refused(
        "tls = 'auto'\nhosts = '10.0.0.1'",
        "5:9: hosts: \"10.0.0.1\" cannot stand in a site with tls = \"auto\": certificates are ordered for names only",
    );
    refused(
        "hosts = 'a'\ntls = ['auto', { cert = 'cert.pem', key = 'key.pem' }]",
        "5:7: tls: \"auto\" stands alone",
    );
    refused(
        "hosts = 'a'\ntls = 'on'",
        "5:7: tls: \"on\" has no meaning here",
    );
    let refused = |acme: &str, expected: &str| {
        self::refused(&format!("{auto}[front]\nacme = {{ {acme} }}"), expected);
    };
    refused(
        "directory = 'letsencrypt'",
        "7:22: acme.directory: \"letsencrypt\" is not the URL of a directory",
    );
    refused("email = 'me'", "7:18: acme.email: \"me\" is no address");
    refused("challenges = []", "7:23: acme.challenges: is empty");
    let eab = |id: &str, key: &str| format!("eab = {{ key_id = '{id}', hmac_key = '{key}' }}");
    refused(
        &eab("a b", "file:key"),
        "7:27: acme.eab.key_id: must be the name",
    );
    refused(
        &eab("shop", "c2VjcmV0"),
        "7:46: acme.eab.hmac_key: must be \"credential:NAME\" or \"file:PATH\", not the secret itself",
    );
    refused(
        &eab("shop", "file:nowhere"),
        "7:46: acme.eab.hmac_key: cannot read",
    );
    refused(
        &eab("shop", "file:page.html"),
        "7:46: acme.eab.hmac_key: what is there is no key in the base64 of URLs",
    );
    let bound = format!(
        "{auto}[front]\nacme = {{ {} }}",
        eab("shop", "file:other-key")
    );
    let plan = self::plan(&bound);
    let acme = plan.apps["front"].acme.as_ref().expect("it is ordered");
    let eab = acme.eab.as_ref().expect("it is bound");
    assert_eq!((&*eab.key_id, &*eab.hmac_key), ("shop", "hunter_34-"));
    assert!(!format!("{acme:?}").contains("hunter_3"), "{acme:?}");
    refused("challenges = ['dns-01']", "7:24: ");
    refused(
        "ca = 'key.pem'",
        "7:15: acme.ca: /srv/key.pem: there is no CERTIFICATE in it",
    );
}

#[test]
fn the_certificates_of_a_site_go_to_the_front() {
    let site = "[site.a]\nlisten = '127.0.0.1:443'\n";
    let text = format!("{site}tls = {{ cert = 'cert.pem', key = 'key.pem' }}\nredirect = '/x'");
    let found = settings(&text);
    assert!(found.listeners["0"].tls);
    let app = &plan(&text).apps["front"];
    let all = app.certificates.as_ref().expect("certificates");
    let all = front::Certificates::parse(&all.0).expect("what a worker reads");
    let tls = &all.0["a"];
    assert_eq!(tls.certificates[0].chain.path, "/srv/cert.pem");
    assert!(tls.certificates[0].key.text.contains("EC PRIVATE KEY"));
    // Others make no other app of it.
    let mut renewed = app.clone();
    renewed.certificates = None;
    assert!(app.is_as(&renewed) && *app != renewed);
    let settings = app.launch.settings.as_ref().expect("settings");
    assert!(!settings.0.contains("PRIVATE KEY"));
    let plan = plan(&format!(
        "{site}tls = [{{ cert = 'cert.pem', key = 'key.pem' }}, {{ cert = 'both.pem', key = 'both.pem' }}]\nredirect = '/x'"
    ));
    assert!(!format!("{plan:?}").contains("PRIVATE KEY"));
    let warnings = plan.apps["front"].warnings.concat();
    assert!(
        warnings.contains("the certificate of [site.a] is not valid"),
        "{warnings}"
    );
    self::refused(
        &format!("{site}tls = {{ cert = 'bad.pem', key = 'key.pem' }}\nredirect = '/x'"),
        "3:7: tls: cannot use the certificate of [site.a]: it is bad",
    );
    let refused = |rest: &str, expected: &str| self::refused(&format!("{site}{rest}"), expected);
    refused(
        "tls = { cert = 'none.pem', key = 'key.pem' }\nredirect = '/x'",
        "3:16: tls.cert: /srv/none.pem: cannot read /srv/none.pem",
    );
    refused(
        "tls = { cert = 'key.pem', key = 'key.pem' }\nredirect = '/x'",
        "3:16: tls.cert: /srv/key.pem: there is no CERTIFICATE in it",
    );
    refused(
        "tls = { cert = 'cert.pem', key = 'cert.pem' }\nredirect = '/x'",
        "3:34: tls.key: /srv/cert.pem: there is no PRIVATE KEY in it",
    );
    refused(
        "hsts = true\nredirect = '/x'",
        "3:8: hsts: clients believe it over TLS only (add `tls`, or set the field in `response_headers`)",
    );
    refused(
        "hsts = 'max-age=1y'\nredirect = '/x'",
        "3:8: hsts: \"max-age=1y\" does not begin with max-age= and a number of seconds",
    );
    refused(
        "hsts = 'max-age=1; always'\nredirect = '/x'",
        "3:8: hsts: \"always\" is no directive of it",
    );
    refused(
        "client_ca = 'cert.pem'\nredirect = '/x'",
        "3:13: client_ca: clients show certificates over TLS only (add `tls`)",
    );
    refused(
        "tls = { cert = 'cert.pem', key = 'key.pem' }\nclient_ca = 'key.pem'\nredirect = '/x'",
        "4:13: client_ca: /srv/key.pem: there is no CERTIFICATE in it",
    );
    refused(
        "tls = { cert = 'cert.pem' }\nredirect = '/x'",
        "3:7: tls: the key `key` is missing",
    );
    refused(
        "tls = { cert = 'cert.pem', key = 'key.pem' }\nredirect = 'https'",
        "4:12: redirect: the site speaks TLS itself",
    );
    refused(
        "hosts = 'x'\ntls = { cert = 'cert.pem', key = 'key.pem' }\nredirect = '/x'\n[site.b]\nlisten = '127.0.0.1:443'\nredirect = '/x'",
        "7:10: listen: 127.0.0.1:443 cannot speak TLS for another site and not for this one (write `tls` in both, or choose another address)",
    );
}

#[test]
fn the_front_waits_longer_for_a_response_than_a_worker_that_hangs_may_live() {
    for (more, seconds) in [
        ("wsgi = 'a:b'", 60),
        ("wsgi = 'a:b'\ntimeout = '2m'", 125),
        (
            "wsgi = 'a:b'\ntimeout = '2m'\nupstream = { response_timeout = '7s' }",
            7,
        ),
        ("command = ['celery']", 60),
    ] {
        let settings = settings(&format!(
            "[app.web]\n{more}\n[site.a]\nlisten = '127.0.0.1:80'\napp = 'web'"
        ));
        let upstream = &settings.upstreams["web"];
        assert_eq!(upstream.response_timeout.as_secs(), seconds, "{more}");
        assert_eq!(upstream.is_told, more.starts_with("wsgi"), "{more}");
        assert_eq!((upstream.queue_length, upstream.max_fails), (1000, 3));
    }
}

#[test]
fn layers_are_those_of_the_site_and_those_of_its_routes() {
    let found = settings(
        "[site.a]\nlisten = '127.0.0.1:80'\nallow = '10.0.0.0/8'\ncompress = true\nmaintenance = { page = 'page.html', except = 'unix' }\n\
         response_headers = { remove = 'X-A', set = { X-B = '1' } }\n\
         routes = [{ path = '/up', answer = 200, max_body = '1GiB', compress = false, error_pages = { 413 = 'page.txt' } }, { answer = 204 }]\n\
         [site.b]\nlisten = '127.0.0.1:81'\nredirect = 'https'",
    );
    let [a, b] = &found.sites[..] else {
        panic!("two sites")
    };
    let layers = &a.layers;
    assert_eq!(layers.allow, ["10.0.0.0/8".parse().expect("a network")]);
    assert_eq!(layers.compress.as_deref(), Some(&Coding::ALL[..]));
    let maintenance = layers.maintenance.as_ref().expect("one");
    assert_eq!(maintenance.page.content_type, "text/html; charset=utf-8");
    assert_eq!(
        (maintenance.retry_after, &maintenance.page.text[..]),
        (300, "<h1>Sorry</h1>")
    );
    assert_eq!(layers.response_headers.remove, ["X-A"]);
    assert_eq!(
        layers.response_headers.set,
        [("X-B".to_owned(), "1".to_owned())]
    );
    let up = &a.routes[0].layers;
    assert_eq!(
        (up.max_body, up.compress.as_deref()),
        (Some(1 << 30), Some(&[][..]))
    );
    assert_eq!(
        up.error_pages[&413].content_type,
        "text/plain; charset=utf-8"
    );
    assert!(a.routes[1].layers.is_empty());

    // One route may have more than the others.
    assert_eq!(found.http.max_body, 1 << 30);
    assert_eq!(
        (layers.max_body, b.layers.max_body),
        (Some(64 << 20), Some(64 << 20))
    );
}

#[test]
fn layers_that_cannot_be_are_refused() {
    let site = "[site.a]\nlisten = '127.0.0.1:80'\nredirect = 'https'\n";
    for (line, expected) in [
        (
            "allow = ['10.1.0.0/8']",
            "4:10: allow: \"10.1.0.0/8\" is not a network",
        ),
        (
            "response_headers = { set = { Connection = 'close' } }",
            "4:30: response_headers.set: preforkd sets the header Connection itself",
        ),
        (
            "response_headers = { add = { 'a b' = 'x' } }",
            "4:30: response_headers.add: \"a b\" is not a name of a header",
        ),
        (
            "response_headers = { set = { A = \"x\\r\\nB: c\" } }",
            "4:34: response_headers.set: the value of A must not have control characters",
        ),
        (
            "response_headers = { add = { A = '{\"group\":\"x\"}' } }",
            "4:34: response_headers.add: \"{\\\"group\\\":\\\"x\\\"}\" stands for nothing (known here: {client_ip}, {host}, ",
        ),
        (
            "response_headers = { remove = 'Server' }",
            "4:31: response_headers.remove: preforkd adds",
        ),
        (
            "basic_auth = 'old-htpasswd'",
            "4:14: basic_auth: /srv/old-htpasswd: line 1: the hash of the password is one of SHA-1",
        ),
        (
            "basic_auth = { file = 'nothing' }",
            "4:23: basic_auth: /srv/nothing: cannot read",
        ),
        (
            "basic_auth = { file = 'htpasswd', realm = 'a\"b' }",
            "4:43: basic_auth.realm: \"a\\\"b\" cannot be shown",
        ),
        ("basic_auth = true", "4:14: basic_auth: must be a path"),
        (
            "request_headers = { set = { Host = 'x' } }",
            "4:29: request_headers.set: preforkd sets the header Host itself",
        ),
        (
            "request_headers = { add = { X_Forwarded_For = 'x' } }",
            "4:29: request_headers.add: preforkd sets the header X_Forwarded_For itself",
        ),
        (
            "request_headers = { set = { X-A = 'a{ip}' } }",
            "4:35: request_headers.set: \"{ip}\" stands for nothing (known here: {client_ip}, {host}, ",
        ),
        (
            "request_headers = { remove = 'Content-Length' }",
            "4:30: request_headers.remove: preforkd sets the header Content-Length itself",
        ),
        (
            "forward_auth = 'auth'",
            "4:16: forward_auth: \"auth\" is not an app and a path",
        ),
        (
            "forward_auth = true",
            "4:16: forward_auth: must be an app and a path",
        ),
        (
            "forward_auth = { path = '/x' }",
            "4:16: forward_auth: nobody is asked (add `app` or `to`)",
        ),
        (
            "forward_auth = { app = 'a', to = 'http://10.0.0.5:80' }\n[app.a]\ncommand = 'celery'\nlisten = 'unix:x'",
            "4:16: forward_auth: both `app` and `to` are asked (remove one)",
        ),
        (
            "forward_auth = { to = 'http://10.0.0.5:80', path = 'x' }",
            "4:52: forward_auth.path: must be a path",
        ),
        (
            "forward_auth = { to = 'fastcgi:unix:x' }",
            "1:7: [site.a]: forward_auth: fastcgi:unix:x does not speak HTTP",
        ),
        (
            "forward_auth = { to = 'http://10.0.0.5:80', headers = ['Host'] }",
            "4:56: forward_auth.headers: preforkd sets the header Host itself",
        ),
        (
            "forward_auth = { to = 'http://10.0.0.5:80', user = 'a b' }",
            "4:52: forward_auth.user: \"a b\" is not a name of a header",
        ),
        (
            "sendfile = { '/a' = 'static' }",
            "4:14: sendfile: the prefix \"/a\" stands for a folder (write \"/a/\")",
        ),
        ("sendfile = { 'a/' = 'static' }", "4:14: sendfile: "),
        (
            "sendfile = { '/a/' = 'static', '/%61/' = 'static' }",
            "4:14: sendfile: the prefix \"/a/\" is there twice",
        ),
        (
            "sendfile = { '/a/' = 'nothing' }",
            "4:22: sendfile: there is no folder /srv/nothing (create it first)",
        ),
        (
            "error_pages = { 200 = 'page.html' }",
            "4:17: error_pages: \"200\" is not the status of an error",
        ),
        (
            "error_pages = { 502 = 'x.html' }",
            "4:23: error_pages: /srv/x.html: ",
        ),
        (
            "maintenance = 'page.exe'",
            "4:15: maintenance: the type of /srv/page.exe is not known",
        ),
        (
            "rate_limit = { rate = '10' }",
            "4:23: rate_limit.rate: \"10\" is not a rate",
        ),
        (
            "rate_limit = { rate = '1/s', key = 'a b' }",
            "4:36: rate_limit.key: \"a b\" is not a name",
        ),
        (
            "compress = ['deflate']",
            "4:12: compress: \"deflate\" is not a content coding",
        ),
    ] {
        refused(&format!("{site}{line}"), expected);
    }
}
