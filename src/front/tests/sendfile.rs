//! `sendfile`: files that an application names in place of the body of its response.

mod common;
mod http2;
mod sited;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{OK, OK_SEEN, Peer};
use preforkd_worker::front::Target;
use preforkd_worker::layers::{BasicAuth, Changes, Layers, Page};
use preforkd_worker::settings::{Coding, Mapping};
use sited::{Served, field, route, serve, to_app};
use tempfile::TempDir;

fn allows(folders: &[(&str, &Path)]) -> Layers {
    let folders = folders.iter();
    let folders: BTreeMap<_, _> = folders
        .map(|(prefix, path)| ((*prefix).to_owned(), path.to_path_buf()))
        .collect();
    Layers {
        sendfile: Some(folders),
        ..Layers::default()
    }
}

/// A folder `media` with files, one of which is too large for memory, and a secret beside it.
fn files() -> TempDir {
    let parent = tempfile::tempdir().unwrap();
    let media = parent.path().join("media");
    fs::create_dir_all(media.join("in")).unwrap();
    fs::write(media.join("a.txt"), "0123456789").unwrap();
    fs::write(media.join("b c.txt"), "spaced").unwrap();
    fs::write(media.join("d%20e.txt"), "percent").unwrap();
    fs::write(media.join("d e.txt"), "decoded").unwrap();
    fs::write(media.join("large.bin"), vec![b'x'; 300_000]).unwrap();
    fs::write(media.join(".hidden"), "secret").unwrap();
    fs::write(parent.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", media.join("out")).unwrap();
    std::os::unix::fs::symlink(parent.path().join("secret"), media.join("away")).unwrap();
    std::os::unix::fs::symlink(media.join("a.txt"), media.join("in/link.txt")).unwrap();
    parent
}

fn serve_media(parent: &TempDir) -> Served {
    serve(
        allows(&[("/protected/", &parent.path().join("media"))]),
        Vec::new(),
    )
}

/// What the client gets when the application says this.
fn answered(served: &Served, request: &str, head: &str) -> String {
    let mut client = served.send(request);
    let (mut app, _) = served.upstream.request();
    app.write(head);
    client.message()
}

fn get(served: &Served, fields: &str) -> String {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
    answered(served, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &head)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn is_status(answer: &str, status: u16) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    let lower = answer.to_ascii_lowercase();
    assert!(
        !lower.contains("x-accel") && !lower.contains("x-sendfile"),
        "{answer}"
    );
}

#[test]
fn a_file_takes_the_place_of_the_body_and_what_else_was_said_stays() {
    let parent = files();
    let served = serve_media(&parent);
    let media = parent.path().join("media").display().to_string();
    for (named, expected) in [
        (
            "X-Accel-Redirect: /protected/a.txt".to_owned(),
            "0123456789",
        ),
        (
            "x-accel-redirect: /protected/b%20c.txt?x=1".into(),
            "spaced",
        ),
        ("X-Accel-Redirect: /protected/b c.txt".into(), "spaced"),
        ("X-Accel-Redirect: /protected/d%2520e.txt".into(), "percent"),
        ("X-Accel-Redirect: /protected/d%20e.txt".into(), "decoded"),
        (format!("X-Sendfile: {media}/a.txt"), "0123456789"),
        (format!("X-Sendfile: {media}/b c.txt"), "spaced"),
        (format!("X-Sendfile: {media}/b%20c.txt"), "spaced"),
        (format!("X-Sendfile: {media}/d%20e.txt"), "percent"),
        // A link that stays in the folder.
        (
            "X-Accel-Redirect: /protected/in/link.txt".into(),
            "0123456789",
        ),
    ] {
        let more = "Content-Disposition: attachment; filename=\"x\"\r\nCache-Control: private\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
            ETag: \"of-nothing\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Encoding: gzip\r\nContent-Type: text/csv\r\n";
        let answer = get(&served, &format!("{more}{named}\r\n"));
        is_status(&answer, 200);
        assert_eq!(body(&answer), expected, "{named}");
        let length = expected.len().to_string();
        for (name, value) in [
            ("content-length", &*length),
            ("content-type", "text/csv"),
            ("content-disposition", "attachment; filename=\"x\""),
            ("cache-control", "private"),
            ("accept-ranges", "bytes"),
        ] {
            assert_eq!(field(&answer, name), Some(value), "{answer}");
        }
        assert_eq!(answer.matches("Set-Cookie: ").count(), 2, "{answer}");
        assert_eq!(answer.matches("ETag: ").count(), 1, "{answer}");
        assert!(
            !answer.contains("of-nothing") && !answer.contains("1970"),
            "{answer}"
        );
        assert_eq!(field(&answer, "content-encoding"), None, "{answer}");
    }
    // The type follows from the name if the application leaves it open.
    for fields in ["", "Content-Type:\r\n"] {
        let answer = get(
            &served,
            &format!("{fields}X-Accel-Redirect: /protected/a.txt\r\n"),
        );
        let kind = field(&answer, "content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "{answer}");
    }
    let answer = get(&served, "X-Accel-Redirect: /protected/large.bin\r\n");
    assert_eq!(body(&answer).len(), 300_000);
}

#[test]
fn ranges_conditions_and_head_are_answered_as_for_static_files() {
    let parent = files();
    let served = serve_media(&parent);
    let app = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nSet-Cookie: a\r\nContent-Length: 0\r\nX-Accel-Redirect: /protected/a.txt\r\n\r\n";
    let ask = |method: &str, fields: &str| {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        answered(&served, &request, app)
    };
    let whole = ask("GET", "");
    let etag = field(&whole, "etag").unwrap().to_owned();
    let part = ask("GET", "Range: bytes=2-4\r\n");
    is_status(&part, 206);
    assert_eq!(
        (body(&part), field(&part, "content-range")),
        ("234", Some("bytes 2-4/10"))
    );
    assert_eq!(
        (field(&part, "content-type"), field(&part, "set-cookie")),
        (Some("text/csv"), Some("a"))
    );
    let several = ask("GET", "Range: bytes=0-1,8-9\r\n");
    is_status(&several, 206);
    let kind = field(&several, "content-type").unwrap_or_default();
    assert!(kind.starts_with("multipart/byteranges"), "{several}");
    assert_eq!(
        body(&several).matches("Content-Type: text/csv").count(),
        2,
        "{several}"
    );
    let none = ask("GET", "Range: bytes=50-\r\n");
    is_status(&none, 416);
    let known = ask("GET", &format!("If-None-Match: {etag}\r\n"));
    is_status(&known, 304);
    assert_eq!((body(&known), field(&known, "set-cookie")), ("", Some("a")));
    // To a POST, the file is the answer.
    let posted = ask(
        "POST",
        &format!("Range: bytes=2-4\r\nIf-None-Match: {etag}\r\nContent-Length: 0\r\n"),
    );
    is_status(&posted, 200);
    assert_eq!(body(&posted), "0123456789");

    let mut client = served.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (mut upstream, _) = served.upstream.request();
    upstream.write(app);
    let head = client.rest();
    is_status(&head, 200);
    assert_eq!(
        (field(&head, "content-length"), body(&head)),
        (Some("10"), "")
    );
}

#[test]
fn nothing_leads_out_of_the_folder() {
    let parent = files();
    let served = serve_media(&parent);
    let media = parent.path().join("media").display().to_string();
    for named in [
        "X-Accel-Redirect: /protected/../secret".to_owned(),
        "X-Accel-Redirect: /protected/%2e%2e/secret".into(),
        "X-Accel-Redirect: /protected/..%2fsecret".into(),
        "X-Accel-Redirect: /protected/in/../../secret".into(),
        "X-Accel-Redirect: /protected//etc/passwd".into(),
        "X-Accel-Redirect: /protected/a.txt%00.png".into(),
        "X-Accel-Redirect: /protected/..\\secret".into(),
        "X-Accel-Redirect: /protected/.hidden".into(),
        "X-Accel-Redirect: /protected/out".into(),
        "X-Accel-Redirect: /protected/away".into(),
        "X-Accel-Redirect: /protected/in".into(),
        "X-Accel-Redirect: /protected/".into(),
        "X-Accel-Redirect: /protected/missing".into(),
        format!("X-Sendfile: {media}/../secret"),
        format!("X-Sendfile: {media}/%2e%2e/secret"),
        format!("X-Sendfile: {media}/out"),
        format!("X-Sendfile: {media}/a.txt%00"),
    ] {
        let fields = format!("Content-Disposition: attachment\r\nSet-Cookie: a\r\n{named}\r\n");
        let answer = get(&served, &fields);
        is_status(&answer, 404);
        assert_eq!(body(&answer), "404 Not Found\n", "{named}");
        assert_eq!(field(&answer, "content-disposition"), None, "{answer}");
    }
}

#[test]
fn what_is_not_allowed_is_a_failure_of_the_application_and_no_client_sees_the_field() {
    let parent = files();
    let media = parent.path().join("media");
    let nothing = route("/nothing", to_app(), allows(&[]));
    let other = route("/other", to_app(), allows(&[("/elsewhere/", &media)]));
    let open = serve(Layers::default(), Vec::new());
    let served = serve(allows(&[("/protected/", &media)]), vec![nothing, other]);
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let named =
        |field: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n{field}\r\n\r\nbody");
    for (served, path, field) in [
        (&open, "/", "X-Accel-Redirect: /protected/a.txt"),
        (&open, "/", "X-Sendfile: /etc/passwd"),
        (&served, "/", "X-Accel-Redirect: /etc/passwd"),
        (&served, "/", "X-Accel-Redirect: /elsewhere/a.txt"),
        (&served, "/", "X-Sendfile: /etc/passwd"),
        (&served, "/", "X-Sendfile: /protected/a.txt"),
        (&served, "/", "X-Sendfile:"),
        (
            &served,
            "/",
            "X-Accel-Redirect: /protected/a.txt\r\nX-Accel-Redirect: /protected/b",
        ),
        (&served, "/nothing", "X-Accel-Redirect: /protected/a.txt"),
        (&served, "/other", "X-Accel-Redirect: /protected/a.txt"),
    ] {
        let answer = answered(served, &request(path), &named(field));
        is_status(&answer, 502);
        assert!(
            !answer.contains("passwd") && !answer.ends_with("body"),
            "{answer}"
        );
    }
    let answer = answered(
        &served,
        &request("/other"),
        &named("X-Accel-Redirect: /elsewhere/a.txt"),
    );
    assert_eq!(body(&answer), "0123456789");
    // An interim response has no body that a file could replace.
    let early = "HTTP/1.1 103 Early Hints\r\nX-Sendfile: /etc/passwd\r\nLink: </a.css>\r\n\r\n";
    let mut client = served.send(&request("/"));
    let (mut app, _) = served.upstream.request();
    app.write(&[early, &named("X-Accel-Redirect: /protected/a.txt")].concat());
    let hints = client.head();
    assert!(
        hints.starts_with("HTTP/1.1 103 ") && hints.contains("Link"),
        "{hints}"
    );
    assert!(!hints.contains("X-Sendfile"), "{hints}");
    assert_eq!(body(&client.message()), "0123456789");
}

#[test]
fn the_body_of_the_application_is_not_waited_for() {
    let parent = files();
    let served = serve_media(&parent);
    let named = "X-Accel-Redirect: /protected/a.txt\r\n";
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    // Some declare the length of the file, and send nothing.
    let mut client = served.send(request);
    let (mut app, _) = served.upstream.request();
    app.write(&format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{named}\r\n"
    ));
    assert_eq!(body(&client.message()), "0123456789");
    assert_eq!(app.rest(), "", "its connection has ended");

    // What comes with the head is dropped, and the connection goes on.
    let mut client = served.send(request);
    let (mut app, _) = served.upstream.request();
    let chunks = "4\r\nbody\r\n0\r\nX-Trailer: x\r\n\r\n";
    app.write(&format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{named}\r\n{chunks}"
    ));
    let answer = client.message();
    assert!(
        body(&answer) == "0123456789" && !answer.contains("Trailer"),
        "{answer}"
    );
    client.write(request);
    app.head();
    app.write(OK);
    assert_eq!(client.message(), OK_SEEN);

    // The client's connection goes on after a large file too.
    client.write(request);
    app.head();
    app.write(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Accel-Redirect: /protected/large.bin\r\n\r\n",
    );
    assert_eq!(body(&client.message()).len(), 300_000);
    client.write(request);
    app.head();
    app.write(OK);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn a_body_of_the_client_that_has_not_come_yet_is_no_request() {
    let parent = files();
    let mut streams = route("/up", to_app(), Layers::default());
    streams.stream = true;
    let layers = allows(&[("/protected/", &parent.path().join("media"))]);
    let served = serve(layers, vec![streams]);
    let mut client = served.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\nabc");
    let mut app = served.upstream.accept();
    app.head();
    app.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Accel-Redirect: /protected/a.txt\r\n\r\n");
    let answer = client.rest();
    is_status(&answer, 200);
    assert_eq!(
        (body(&answer), field(&answer, "connection")),
        ("0123456789", Some("close"))
    );
}

#[test]
fn layers_see_the_response_as_that_of_a_static_file() {
    let parent = files();
    let text = "a line that repeats\n".repeat(1000);
    fs::write(parent.path().join("media/long.txt"), &text).unwrap();
    let page = Page {
        content_type: "text/html".into(),
        text: "missing".into(),
    };
    let layers = Layers {
        compress: Some(vec![Coding::Gzip]),
        response_headers: Changes {
            set: vec![("X-Frame-Options".into(), "DENY".into())],
            ..Changes::default()
        },
        error_pages: [(404, page)].into(),
        basic_auth: BasicAuth::Nobody,
        ..allows(&[("/protected/", &parent.path().join("media"))])
    };
    // A folder of a route has its own number.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("a.txt"), "static").unwrap();
    let target = Target::Files(Mapping {
        path: other.path().into(),
        ..Mapping::default()
    });
    let served = serve(layers, vec![route("/static/", target, Layers::default())]);
    let named = |path: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Accel-Redirect: /protected/{path}\r\n\r\n"
        )
    };
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let mut client = served.send(request);
    let (mut app, _) = served.upstream.request();
    app.write(&named("long.txt"));
    drop(app);
    let head = client.head();
    assert_eq!(field(&head, "content-encoding"), Some("gzip"), "{head}");
    assert_eq!(field(&head, "x-frame-options"), Some("DENY"), "{head}");
    let missing = answered(
        &served,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &named("nothing"),
    );
    is_status(&missing, 404);
    assert_eq!(body(&missing), "missing");
    let answer = served.get("/static/a.txt", "").message();
    assert_eq!(body(&answer), "static");
}

#[test]
fn no_client_can_say_which_file_the_application_names() {
    let served = serve(Layers::default(), Vec::new());
    let lies =
        "X-Sendfile-Type: X-Accel-Redirect\r\nX-Accel-Mapping: /=/protected/\r\nX-Other: kept\r\n";
    let mut client: Peer = served.get("/", lies);
    let (mut app, request) = served.upstream.request();
    let lower = request.to_ascii_lowercase();
    assert!(
        !lower.contains("x-sendfile-type") && !lower.contains("x-accel-mapping"),
        "{request}"
    );
    assert!(lower.contains("x-other: kept"), "{request}");
    app.write(OK);
    client.message();
}

#[test]
fn streams_of_http2_get_files_too() {
    let parent = files();
    let served = serve_media(&parent);
    let mut client = http2::Client::new(served.address);
    for (path, length) in [("a.txt", 10), ("large.bin", 300_000)] {
        let (response, _) = client.send(http2::get("/"), true);
        let mut app = served.upstream.accept();
        app.head();
        app.write(&format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\nX-Accel-Redirect: /protected/{path}\r\n\r\n"
        ));
        let whole = client.whole(response);
        assert_eq!((whole.status, whole.body.len()), (200, length));
        assert!(!whole.fields.contains_key("x-accel-redirect"));
    }
}
