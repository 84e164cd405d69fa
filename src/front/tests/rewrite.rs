//! `rewrite` of a route, and redirects with the rest of a path.

mod common;
mod sited;

use common::OK;
use preforkd_worker::front::Target;
use preforkd_worker::layers::Layers;
use sited::{field, route, serve, to_app};

#[test]
fn another_path_takes_the_place_of_that_of_the_route_and_the_rest_is_as_it_was_sent() {
    let rewritten = |path: &str, to: &str| {
        let mut rewritten = route(path, to_app(), Layers::default());
        rewritten.rewrite = Some(to.into());
        rewritten
    };
    let admin = route(
        "/old/admin",
        Target::Answer {
            status: 403,
            content_type: "text/plain".into(),
            body: "no".into(),
        },
        Layers::default(),
    );
    let routes = vec![rewritten("/old", "/new/x"), admin, rewritten("/root", "")];
    let served = serve(Layers::default(), routes);
    for (sent, got) in [
        ("/old", "/new/x"),
        ("/old?a=b", "/new/x?a=b"),
        ("/old/", "/new/x/"),
        ("/old/a%20b//c%2Fd?e=%2F", "/new/x/a%20b//c%2Fd?e=%2F"),
        ("/%6fld/y", "/new/x/y"),
        ("//old/y", "/new/x/y"),
        ("/x/../old/y", "/new/x/y"),
        ("/root", "/"),
        ("/root/a", "/a"),
        ("/older", "/older"),
        ("/new/x", "/new/x"),
    ] {
        let mut client = served.get(sent, "");
        let (mut app, request) = served.upstream.request();
        assert!(
            request.starts_with(&format!("GET {got} HTTP/1.1\r\n")),
            "{sent}: {request}"
        );
        assert_eq!(field(&request, "x-forwarded-prefix"), None, "{request}");
        app.write(OK);
        client.message();
    }
    for path in [
        "/old/admin",
        "/old/%61dmin",
        "/old//admin/x",
        "/%6fld/./admin",
    ] {
        let answer = served.get(path, "").message();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
    }
    assert!(served.upstream.is_unused());
}

#[test]
fn all_paths_can_be_put_below_another_one() {
    let mut all = route("/", to_app(), Layers::default());
    all.methods = vec!["GET".into()];
    all.rewrite = Some("/app".into());
    let served = serve(Layers::default(), vec![all]);
    for (sent, got) in [
        ("/", "/app/"),
        ("/a%2fb?c", "/app/a%2fb?c"),
        ("//x", "/app//x"),
    ] {
        let mut client = served.get(sent, "");
        let (mut app, request) = served.upstream.request();
        assert!(
            request.starts_with(&format!("GET {got} HTTP/1.1\r\n")),
            "{sent}: {request}"
        );
        app.write(OK);
        client.message();
    }
}

#[test]
fn a_redirect_can_keep_the_rest_of_the_path() {
    let target = Target::Redirect {
        status: 308,
        location: "/new{rest}{query}".into(),
    };
    let served = serve(
        Layers::default(),
        vec![route("/old", target, Layers::default())],
    );
    for (sent, location) in [
        ("/old/a%20b?c=d", "/new/a%20b?c=d"),
        ("/old", "/new"),
        ("/%6fld/x", "/new/x"),
        ("/x/../old/y/", "/new/y/"),
    ] {
        let answer = served.get(sent, "").message();
        assert_eq!(field(&answer, "location"), Some(location), "{sent}");
    }
}
