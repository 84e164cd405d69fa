//! Sites: what the workers that serve them answer, and what a reload and a stop mean to their clients.

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Run, app, build_front, preforkd, worker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// An app, two sites at one address, and the workers for them.
fn config(more: &str) -> String {
    build_front();
    format!(
        "[master]\ncontrol = 'control'\n{}\n[app.api]\ncommand = '{}'\n\
        [site.shop]\nlisten = 'unix:site.sock'\nhosts = ['shop.example', '*.shop.example']\nstatic = {{ '/static/' = 'files' }}\n\
        routes = [{{ path = '/api', app = 'api', strip_prefix = true }}, {{ path = '/old', redirect = 'https://new.example' }}, {{ path = '/', answer = {{ text = 'the shop' }} }}]\n\
        [site.plain]\nlisten = 'unix:site.sock'\nhosts = 'plain.example'\nredirect = 'https'\n\
        [front]\nworkers = 2\naccess_log = 'access.log'\n{more}\n",
        app(""),
        worker(),
    )
}

fn start(config: &str) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    std::fs::write(folder.path().join("files/a.css"), "body {}").expect("room");
    // An init system that keeps no sockets: a unix socket that is kept, and closed by the master, has its clients wait.
    let run = Run::begin_in(folder, config, |command| {
        command.env("MEMORY_PRESSURE_WATCH", "/dev/null");
    });
    run.message("READY=1");
    run
}

fn connect(run: &Run) -> UnixStream {
    UnixStream::connect(run.path("site.sock")).expect("the site listens")
}

fn send(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("it is read");
}

/// All that comes until the connection ends.
fn rest(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

fn get(run: &Run, host: &str, path: &str) -> String {
    let mut stream = connect(run);
    send(
        &mut stream,
        &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    );
    rest(stream)
}

/// Status line, a field, and body.
fn parts(answer: &str, field: &str) -> (String, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().expect("a status").to_owned();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    (
        status,
        value.unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}

/// The processes of an app, without those that a reload has replaced.
fn pids(run: &Run, name: &str) -> BTreeSet<u64> {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(["status", "--json", "-c", &file]).output();
    let status: Value =
        serde_json::from_slice(&output.expect("preforkd runs").stdout).expect("JSON");
    let apps = status["apps"].as_array().expect("a list");
    let app = apps
        .iter()
        .find(|app| app["name"] == name)
        .expect("it is there");
    let workers = app["workers"].as_array().expect("a list");
    let number = |worker: &Value, key: &str| worker[key].as_u64().expect("a number");
    let newest = workers
        .iter()
        .map(|worker| number(worker, "generation"))
        .max();
    let workers = workers.iter();
    let workers = workers.filter(|worker| Some(number(worker, "generation")) == newest);
    workers.map(|worker| number(worker, "pid")).collect()
}

#[test]
fn sites_of_one_address_answer_for_their_hosts() {
    let mut run = start(&config(""));
    for (host, path, status, location, body) in [
        ("shop.example", "/", "200 OK", "", "the shop"),
        ("WWW.Shop.Example.:8080", "/x", "200 OK", "", "the shop"),
        ("shop.example", "/static/a.css", "200 OK", "", "body {}"),
        (
            "shop.example",
            "/x/../static//a.css",
            "200 OK",
            "",
            "body {}",
        ),
        (
            "shop.example",
            "/static/b.css",
            "404 Not Found",
            "",
            "404 Not Found\n",
        ),
        (
            "shop.example",
            "/old/a%20b?c",
            "302 Found",
            "https://new.example/old/a%20b?c",
            "",
        ),
        (
            "plain.example:80",
            "/a?b",
            "308 Permanent Redirect",
            "https://plain.example/a?b",
            "",
        ),
        (
            "other.example",
            "/",
            "421 Misdirected Request",
            "",
            "421 Misdirected Request: no site has this host\n",
        ),
    ] {
        let answer = parts(&get(&run, host, path), "Location");
        let expected = (
            format!("HTTP/1.1 {status}"),
            location.to_owned(),
            body.to_owned(),
        );
        assert_eq!(answer, expected, "{host} {path}");
    }
    run.stop();
    let log = std::fs::read_to_string(run.path("access.log")).expect("it was written");
    assert_eq!(log.lines().count(), 8, "{log}");
    assert!(log.contains("\"GET /old/a%20b?c HTTP/1.1\" 302"), "{log}");
}

#[test]
fn a_reload_replaces_the_front_only_when_what_it_serves_has_changed() {
    let mut run = start(&config(""));
    let (front, web) = (pids(&run, "front"), pids(&run, "web"));
    assert_eq!(front.len(), 2);
    let mut kept = connect(&run);
    send(&mut kept, "GET / HTTP/1.1\r\nHost: shop.example\r\n");

    run.reload();
    let now = pids(&run, "front");
    if now != front {
        run.fail(&format!("the front {front:?} is {now:?}"));
    }
    assert!(pids(&run, "web").is_disjoint(&web));

    // What has begun is finished by the old worker.
    run.write("app.toml", &config("").replace("the shop", "a new shop"));
    run.reload();
    assert!(pids(&run, "front").is_disjoint(&front));
    assert_eq!(parts(&get(&run, "shop.example", "/"), "").2, "a new shop");
    send(&mut kept, "\r\n");
    assert_eq!(parts(&rest(kept), "").2, "the shop");

    // An error changes nothing.
    let front = pids(&run, "front");
    run.write(
        "app.toml",
        &config("").replace("'*.shop", "'plain.example', '*.shop"),
    );
    run.signal(Signal::SIGHUP);
    run.logged(&["is that of [site.", "too, at unix:"]);
    run.message("READY=1");
    assert_eq!(pids(&run, "front"), front);
    assert_eq!(parts(&get(&run, "shop.example", "/"), "").2, "a new shop");
    run.stop();
}

#[test]
fn a_stop_lets_requests_come_to_their_end() {
    let run = start(&config(""));
    let mut begun = connect(&run);
    send(&mut begun, "GET / HTTP/1.1\r\nHost: shop.example\r\n");
    run.signal(Signal::SIGTERM);
    run.message("STOPPING=1");
    send(&mut begun, "\r\n");
    let (status, _, body) = parts(&rest(begun), "");
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("HTTP/1.1 200 OK", "the shop")
    );
    run.all_ended();
}

#[test]
fn an_app_without_a_listener_is_reached_through_its_site_also_while_it_is_replaced() {
    let mut run = start(&config(""));
    let mut stream = connect(&run);
    send(
        &mut stream,
        "GET /api//echo/a%2Fb?c HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 192.0.2.1\r\nX-Mine: 1\r\nConnection: close\r\n\r\n",
    );
    let (status, _, body) = parts(&rest(stream), "");
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    let mut lines = body.lines();
    assert_eq!(lines.next(), Some("//echo/a%2Fb?c"));
    let fields: BTreeSet<_> = lines.collect();
    for field in [
        "Host: shop.example",
        "X-Mine: 1",
        "X-Forwarded-Host: shop.example",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Prefix: /api",
    ] {
        assert!(fields.contains(field), "{field}: {fields:?}");
    }
    assert!(!body.contains("192.0.2.1"), "{body}");

    // Nobody but the user of the front may connect to the app.
    use std::os::unix::fs::PermissionsExt as _;
    let socket = run
        .path("control-api.front")
        .metadata()
        .expect("it is there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);

    let (front, api) = (pids(&run, "front"), pids(&run, "api"));
    run.reload();
    assert_eq!(pids(&run, "front"), front);
    assert!(pids(&run, "api").is_disjoint(&api));
    assert!(get(&run, "shop.example", "/api/echo").starts_with("HTTP/1.1 200 OK"));
    run.stop();
}

/// A site before a program that knows nothing of signals.
struct Served {
    run: Run,
    /// Where its responses come from.
    answers: UnixListener,
}

impl Served {
    fn start(more: &str) -> Self {
        build_front();
        let folder = tempfile::tempdir().expect("a folder");
        let answers = UnixListener::bind(folder.path().join("answers.sock")).expect("room");
        let config = format!(
            "[master]\ncontrol = 'control'\n[app.demo]\ncommand = ['{}', 'serve {{address}}']\n{more}\n\
            [site.demo]\nlisten = 'unix:site.sock'\nhosts = 'demo.example'\napp = 'demo'\n[front]\nworkers = 2\n",
            worker(),
        );
        let run = Run::begin_in(folder, &config, |_| {});
        run.message("READY=1");
        Self { run, answers }
    }

    /// A client that has asked, and the other end of its response.
    fn ask(&self, fields: &str) -> (UnixStream, UnixStream) {
        let mut client = connect(&self.run);
        let text = format!("GET / HTTP/1.1\r\nHost: demo.example\r\n{fields}\r\n");
        send(&mut client, &text);
        let (answer, _) = self.answers.accept().expect("the program has the request");
        (client, answer)
    }

    /// What a client gets whose response is this.
    fn answered(&self) -> String {
        let (client, mut answer) = self.ask("Connection: close\r\n");
        send(
            &mut answer,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
        rest(client)
    }
}

#[test]
fn an_app_that_is_not_running_is_not_waited_for() {
    let opt = "[app.opt]\ncommand = ['sh', '-c', 'exit 3', '{address}']\nrequired = false\n\
        [site.opt]\nlisten = 'unix:site.sock'\nhosts = 'opt.example'\napp = 'opt'";
    let mut served = Served::start(opt);
    // A request that waits for the timeout of the queue gets another text.
    let refused = |run: &Run, host: &str| {
        let (status, after, body) = parts(&get(run, host, "/"), "Retry-After");
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(after, "1");
        let text = "503 Service Unavailable: the application is not running\n";
        assert_eq!(body, text);
    };
    refused(&served.run, "opt.example");
    served
        .run
        .logged(&["could not get a response: app=opt: it is not running; answering 503"]);
    assert!(served.answered().starts_with("HTTP/1.1 200 OK"));

    let file = served.run.path("app.toml");
    let order = |words: &[&str]| {
        let mut command = preforkd();
        let command = command.args(words).arg("-c").arg(&file);
        assert!(command.status().expect("preforkd runs").success());
    };
    order(&["stop", "demo"]);
    refused(&served.run, "demo.example");
    // Workers of the front that come later know it, too.
    let text = std::fs::read_to_string(&file).expect("it is there");
    let more = text.replace("'demo.example'", "['demo.example', 'new.example']");
    std::fs::write(&file, more).expect("room");
    order(&["reload"]);
    refused(&served.run, "new.example");
    order(&["start", "demo"]);
    assert!(served.answered().starts_with("HTTP/1.1 200 OK"));
    served.run.stop();
}

#[test]
fn a_program_whose_workers_share_an_address_is_not_waited_for_either() {
    build_front();
    let program = format!("command = '{}'", worker());
    let apps = [
        ("own", program.clone()),
        ("listed", format!("{program}\nlisten = 'unix:listed.sock'")),
        ("off", format!("{program}\nenabled = false")),
        (
            "opt",
            "command = ['sh', '-c', 'exit 3']\nrequired = false".into(),
        ),
    ];
    let mut config = "[master]\ncontrol = 'control'\n[front]\nworkers = 2\n".to_owned();
    for (name, keys) in apps {
        config += &format!(
            "[app.{name}]\n{keys}\n[site.{name}]\nlisten = 'unix:site.sock'\nhosts = '{name}.example'\napp = '{name}'\n"
        );
    }
    let mut run = start(&config);
    let serves = |run: &Run, name: &str| {
        let answer = get(run, &format!("{name}.example"), "/echo");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{name}: {answer}");
    };
    let refused = |run: &Run, name: &str| {
        let answer = get(run, &format!("{name}.example"), "/echo");
        let (status, after, body) = parts(&answer, "Retry-After");
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable", "{name}");
        assert_eq!(after, "1");
        let text = "503 Service Unavailable: the application is not running\n";
        assert_eq!(body, text);
    };
    refused(&run, "opt");
    refused(&run, "off");
    let file = run.path("app.toml");
    let order = |words: &[&str]| {
        let mut command = preforkd();
        let output = command.args(words).arg("-c").arg(&file).output();
        let output = output.expect("preforkd runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
    };
    order(&["start", "off"]);
    serves(&run, "off");
    for name in ["own", "listed"] {
        serves(&run, name);
        // What comes meanwhile waits for the next worker.
        std::thread::scope(|scope| {
            let restart = scope.spawn(|| order(&["restart", name]));
            (0..20).for_each(|_| serves(&run, name));
            restart.join().expect("it is restarted");
        });
        order(&["stop", name]);
        refused(&run, name);
    }
    // Workers of the front that come later know it, too.
    let text = std::fs::read_to_string(&file).expect("it is there");
    std::fs::write(
        &file,
        text.replace("'own.example'", "['own.example', 'new.example']"),
    )
    .expect("room");
    order(&["reload"]);
    refused(&run, "new");
    refused(&run, "listed");
    for name in ["own", "listed"] {
        order(&["start", name]);
        serves(&run, name);
    }
    run.stop();
}

/// How many connections wait to be accepted at a unix socket: they have its path and no inode yet, proc_net(5).
fn accept_queue(path: &Path) -> usize {
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("proc");
    let lines = sockets.lines().map(|line| line.split_ascii_whitespace());
    let waiting = lines.filter(|words| {
        let words: Vec<_> = words.clone().collect();
        words.get(6) == Some(&"0") && words.get(7).is_some_and(|at| Path::new(at) == path)
    });
    waiting.count()
}

#[test]
fn a_request_that_waits_in_the_listener_of_an_app_that_is_given_up_is_refused() {
    build_front();
    let config = format!(
        "[master]\ncontrol = 'control'\n[app.lost]\ncommand = '{}'\nlisten = 'unix:lost.sock'\ngive_up = {{ crashes = 1, within = '1m' }}\n\
        [site.lost]\nlisten = 'unix:site.sock'\nhosts = 'lost.example'\napp = 'lost'\n",
        worker()
    );
    let mut run = start(&config);
    let file = run.path("lost.sock");
    let worker = pids(&run, "lost").pop_first().expect("a worker");
    let worker = Pid::from_raw(i32::try_from(worker).expect("a pid"));
    kill(worker, Signal::SIGSTOP).expect("it lives");
    let mut client = connect(&run);
    send(
        &mut client,
        "GET / HTTP/1.1\r\nHost: lost.example\r\nConnection: close\r\n\r\n",
    );
    let until = Instant::now() + Duration::from_secs(20);
    while accept_queue(&file) == 0 {
        assert!(Instant::now() < until, "the front never connects");
        std::thread::yield_now();
    }
    kill(worker, Signal::SIGKILL).expect("it lives");
    let (status, after, _) = parts(&rest(client), "Retry-After");
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(after, "1");
    assert!(run.reload().contains("lost 1/1 ready"));
    let answer = get(&run, "lost.example", "/echo");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    run.stop();
}

#[test]
fn a_program_without_a_handler_of_signals_is_told_to_end_when_its_responses_are_whole() {
    let waits = "takes no more requests of sites";
    // At a stop it comes after the front.
    let comes_last = "ends after the apps that come after it (front)";
    for (order, line) in [(Signal::SIGHUP, waits), (Signal::SIGTERM, comes_last)] {
        let mut served = Served::start("graceful_timeout = '10m'");
        let (client, mut answer) = served.ask("Connection: close\r\n");
        send(&mut answer, "HTTP/1.1 200 OK\r\nContent-");
        served.run.signal(order);
        served.run.logged(&["app=demo", line]);
        if order == Signal::SIGHUP {
            assert!(served.answered().ends_with("\r\n\r\nok"), "the new one");
        }
        send(&mut answer, "Length: 6\r\n\r\nabc");
        send(&mut answer, "def");
        let whole = rest(client);
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n"), "{whole}");
        assert!(whole.ends_with("\r\n\r\nabcdef"), "{whole}");
        served.run.logged(&["app=demo", "gen=1", "ended"]);
        if order == Signal::SIGHUP {
            served.run.stop();
        }
    }
}

#[test]
fn a_response_without_an_end_holds_the_signal_for_half_of_the_time_only_and_an_upgrade_not_at_all()
{
    let mut served = Served::start("graceful_timeout = '2s'");
    let (client, mut answer) = served.ask("");
    send(
        &mut answer,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
    );
    served.run.signal(Signal::SIGHUP);
    served
        .run
        .logged(&["app=demo", "requests of sites still run there after 1"]);
    served.run.logged(&["app=demo", "gen=1", "ended"]);
    drop(client);
    served.run.stop();

    let mut served = Served::start("graceful_timeout = '10m'");
    let (mut client, mut answer) = served.ask("Connection: Upgrade\r\nUpgrade: websocket\r\n");
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    send(&mut answer, switch);
    let mut byte = [0];
    client.read_exact(&mut byte).expect("the change");
    served.run.signal(Signal::SIGHUP);
    let ended = served.run.logged(&["app=demo", "gen=1", "ended"]);
    assert!(ended.contains("replaced"), "{ended}");
    drop(client);
    served.run.stop();
}

#[test]
fn a_front_that_was_killed_holds_no_signal() {
    let mut served = Served::start("graceful_timeout = '10m'");
    let (client, mut answer) = served.ask("");
    send(&mut answer, "HTTP/1.1 200 OK\r\n");
    served.run.signal(Signal::SIGHUP);
    served
        .run
        .logged(&["app=demo", "takes no more requests of sites"]);
    for pid in pids(&served.run, "front") {
        let pid = i32::try_from(pid).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    }
    served.run.logged(&["app=demo", "gen=1", "ended"]);
    drop(client);
    served.run.stop();
}

/// All that comes to a request of a client that accepts a compressed response.
fn get_with(run: &Run, path: &str, fields: &str) -> Vec<u8> {
    let mut stream = connect(run);
    send(
        &mut stream,
        &format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{fields}\r\n"),
    );
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    bytes
}

#[test]
fn layers_are_for_applications_and_files_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    // One that is sent from memory, and one that is not.
    for (name, size) in [("a.css", 5000), ("big.css", 500_000)] {
        let path = folder.path().join("files").join(name);
        std::fs::write(path, "a {}\n".repeat(size / 5)).expect("room");
    }
    std::fs::write(folder.path().join("files/secret"), "secret").expect("room");
    std::fs::write(folder.path().join("404.html"), "<p>gone").expect("room");
    let site = "hosts = ['shop.example', '*.shop.example']\ncompress = ['gzip']\nerror_pages = { 404 = '404.html' }\n\
        response_headers = { set = { X-Frame-Options = 'DENY' } }\n";
    let more = "routes = [{ path = '/static/secret', folder = 'files/secret', allow = '192.0.2.1' }, { path = '/api', app = 'api', deny = 'unix' }, ";
    let config = config("")
        .replace("hosts = ['shop.example', '*.shop.example']\n", site)
        .replace("routes = [", more)
        .replace("{ path = '/api', app = 'api', strip_prefix = true }, ", "");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");

    for (path, size) in [("/static/a.css", 5000), ("/static/big.css", 500_000)] {
        let plain = get_with(&run, path, "");
        let text = String::from_utf8_lossy(&plain);
        assert!(text.contains("\r\nVary: Accept-Encoding\r\n"), "{path}");
        assert!(
            text.contains(&format!("\r\nContent-Length: {size}\r\n")),
            "{path}"
        );
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
                "--compressed",
                "--unix-socket",
            ])
            .arg(run.path("site.sock"))
            .args(["--write-out", "%{size_download}"])
            .arg(format!("http://shop.example{path}"))
            .output()
            .expect("curl runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let (body, received) = text.split_at(size);
        assert_eq!(body, "a {}\n".repeat(size / 5), "{path}");
        let received: usize = received.parse().expect("a number");
        assert!(received > 10 && received < size / 10, "{path}: {received}");
        let compressed = get_with(&run, path, "Accept-Encoding: gzip\r\n");
        let head = String::from_utf8_lossy(&compressed);
        assert!(head.contains("\r\nContent-Encoding: gzip\r\n"), "{path}");
        assert!(head.contains("\r\nETag: W/\""), "{path}");
        assert!(compressed.ends_with(b"0\r\n\r\n"), "{path}");
    }
    for path in [
        "/static/secret",
        "/static//%73ecret",
        "/static/x/../secret",
        "/api/echo",
        "/static%2Fsecret",
    ] {
        let (status, frame, body) = parts(&get(&run, "shop.example", path), "X-Frame-Options");
        assert_eq!(
            (&status[..], &frame[..], &body[..]),
            (
                "HTTP/1.1 403 Forbidden",
                "DENY",
                "403 Forbidden: not from this address\n"
            ),
            "{path}"
        );
    }
    let (status, frame, body) = parts(
        &get(&run, "shop.example", "/static/none"),
        "X-Frame-Options",
    );
    assert_eq!(
        (&status[..], &frame[..], &body[..]),
        ("HTTP/1.1 404 Not Found", "DENY", "<p>gone")
    );
    run.stop();
}

#[test]
fn all_workers_count_the_requests_of_a_client_together_also_across_a_reload() {
    let limit = "path = '/', rate_limit = { rate = '1/d', burst = 7, key = 'X-Key' }, answer";
    let limited = config("").replace("path = '/', answer", limit);
    let mut run = start(&limited);
    let ask = |key: &str| {
        let answer = get_with(&run, "/", &format!("X-Key: {key}\r\n"));
        String::from_utf8(answer).expect("text")
    };
    let passes = |key: &str| ask(key).starts_with("HTTP/1.1 200 ");
    assert_eq!((0..40).filter(|_| passes("a")).count(), 8);
    assert!(passes("b"));
    run.write("app.toml", &limited.replace("the shop", "a new shop"));
    run.reload();
    let answer = get_with(&run, "/", "X-Key: a\r\n");
    let answer = String::from_utf8(answer).expect("text");
    assert!(
        answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nRetry-After: 86"), "{answer}");
    run.stop();
}

/// The value of a metric with these labels.
fn metric(run: &Run, sample: &str) -> u64 {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(["metrics", "-c", &file]).output();
    let text = String::from_utf8(output.expect("preforkd runs").stdout).expect("text");
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {sample} in {text}"));
    value.parse().expect("a number")
}

#[test]
fn what_sites_have_counted_outlasts_their_workers_and_a_reload() {
    let one = config("").replace("workers = 2\naccess_log", "workers = 1\naccess_log");
    let mut run = start(&one);
    let requests = |site: &str, route: &str, status: &str| {
        format!(
            "preforkd_site_requests_total{{site=\"{site}\",route=\"{route}\",status=\"{status}\"}}"
        )
    };
    let shop = requests("shop", "/", "2xx");
    let file = requests("shop", "/static/", "2xx");
    let no_file = requests("shop", "/static/", "4xx");
    let redirected = requests("plain", "/", "3xx");
    let nobody = requests("", "", "4xx");
    let api = requests("shop", "/api", "2xx");
    for path in ["/", "/x", "/static/a.css", "/static/b.css", "/api/echo"] {
        get(&run, "shop.example", path);
    }
    get(&run, "plain.example", "/");
    get(&run, "other.example", "/");
    let expected = [
        (&shop, 2),
        (&file, 1),
        (&no_file, 1),
        (&redirected, 1),
        (&nobody, 1),
        (&api, 1),
    ];
    for (sample, number) in expected {
        assert_eq!(metric(&run, sample), number, "{sample}");
    }
    let taken =
        "preforkd_site_request_duration_seconds_bucket{site=\"shop\",route=\"/\",le=\"+Inf\"}";
    assert_eq!(metric(&run, taken), 2);
    assert_eq!(
        metric(&run, "preforkd_site_upstreams_available{site=\"shop\"}"),
        1
    );

    // A worker that is killed takes with it what it has open, and nothing that it has counted.
    let mut kept = connect(&run);
    send(&mut kept, "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    kept.read_exact(&mut [0]).expect("an answer");
    assert_eq!(metric(&run, "preforkd_front_connections"), 1);
    let of_site = |site: &str| {
        metric(
            &run,
            &format!("preforkd_site_connections{{site=\"{site}\"}}"),
        )
    };
    assert_eq!((of_site("shop"), of_site("plain")), (1, 0));
    // Its site is that of its latest request.
    send(&mut kept, "GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n");
    while of_site("plain") == 0 {}
    assert_eq!((of_site("shop"), of_site("plain")), (0, 1));
    let front = pids(&run, "front");
    let pid = *front.first().expect("a worker");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it runs");
    assert_eq!(parts(&get(&run, "shop.example", "/"), "").2, "the shop");
    // The end of a connection is seen before it is noted.
    let open = || metric(&run, "preforkd_front_connections");
    assert!((0..100).any(|_| open() == 0), "{}", open());
    assert!((0..100).any(|_| of_site("plain") + of_site("shop") == 0));
    assert!(metric(&run, &shop) >= 3);
    assert_eq!(metric(&run, &redirected), 2);

    // The same with a worker that a reload has started.
    run.write("app.toml", &one.replace("the shop", "a new shop"));
    run.reload();
    assert!(pids(&run, "front").is_disjoint(&front));
    let before = metric(&run, &shop);
    assert_eq!(parts(&get(&run, "shop.example", "/"), "").2, "a new shop");
    assert_eq!(metric(&run, &shop), before + 1);
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(["status", "-c", &file]).output();
    let text = String::from_utf8(output.expect("preforkd runs").stdout).expect("text");
    assert!(
        text.contains("\n  plain: 2 requests, 0 errors\n")
            && text.contains(", 1/1 upstreams take requests\n"),
        "{text}"
    );
    run.stop();
}

#[test]
fn users_are_those_of_the_file_and_a_reload_takes_in_others() {
    // Their passwords are "secret", as crypt(3) has made it.
    const HASH: &str = "$2y$05$K0CIV0rx3gWfJoyPEb314uwOg/FKIeC/lHBrfaHiKRAA59MsFQN82";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    std::fs::write(folder.path().join("files/a.css"), "body {}").expect("room");
    std::fs::write(folder.path().join("htpasswd"), format!("ann:{HASH}\n")).expect("room");
    let hosts = "hosts = ['shop.example', '*.shop.example']\n";
    let config = config("").replace(hosts, &format!("{hosts}basic_auth = 'htpasswd'\n"));
    let run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    // ann:secret and bob:secret.
    let (ann, bob) = ("YW5uOnNlY3JldA==", "Ym9iOnNlY3JldA==");
    let status = |run: &Run, path: &str, shown: &str| {
        let fields = format!("Authorization: Basic {shown}\r\n");
        let answer = get_with(run, path, &fields);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for path in ["/", "/static/a.css"] {
        assert_eq!(status(&run, path, ann), "200", "{path}");
        assert_eq!(status(&run, path, bob), "401", "{path}");
        assert_eq!(status(&run, path, "eDp5"), "401", "{path}");
    }
    std::fs::write(run.path("htpasswd"), format!("bob:{HASH}\n")).expect("room");
    run.reload();
    assert_eq!(status(&run, "/", ann), "401");
    assert_eq!(status(&run, "/", bob), "200");
}

/// An upstream that answers one request after the other with these heads, each on a connection of its own.
fn heads(heads: Vec<String>) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("it has one");
    std::thread::spawn(move || {
        for head in heads {
            let (mut stream, _) = listener.accept().expect("the front connects");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.extend(byte);
            }
            stream.write_all(head.as_bytes()).expect("it is read");
        }
    });
    address
}

#[test]
fn an_application_has_files_sent_from_inside_its_folders_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let media = folder.path().join("media");
    std::fs::create_dir(&media).expect("room");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    std::fs::write(media.join("a.txt"), "for her only").expect("room");
    std::fs::write(folder.path().join("secret"), "secret").expect("room");
    let named = |field: &str| format!("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\n{field}\r\n\r\n");
    let app = heads(vec![
        named("X-Accel-Redirect: /protected/a.txt"),
        named(&format!("X-Sendfile: {}/a.txt", media.display())),
        named("X-Accel-Redirect: /protected/../secret"),
        named("X-Sendfile: /etc/passwd"),
    ]);
    let routes = "routes = [{ path = '/api'";
    let sendfile = format!(
        "sendfile = {{ '/protected/' = 'media' }}\nroutes = [{{ path = '/files', to = 'http://{app}' }}, {{ path = '/api'"
    );
    let config = config("").replace(routes, &sendfile);
    let run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    for _ in 0..2 {
        let answer = get(&run, "shop.example", "/files/1");
        let (status, cookie, body) = parts(&answer, "Set-Cookie");
        assert_eq!(
            (&*status, &*cookie, &*body),
            ("HTTP/1.1 200 OK", "a", "for her only")
        );
    }
    let (status, ..) = parts(&get(&run, "shop.example", "/files/1"), "X");
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    let answer = get(&run, "shop.example", "/files/1");
    let (status, named, _) = parts(&answer, "X-Sendfile");
    assert_eq!((&*status, &*named), ("HTTP/1.1 502 Bad Gateway", ""));
}

#[test]
fn who_is_asked_decides_who_passes_and_the_log_has_the_user() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    std::fs::write(folder.path().join("files/a.css"), "body {}").expect("room");
    let passes =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\nRemote-User: ann\r\n\r\n";
    let refuses = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nWWW-Authenticate: Form\r\nContent-Length: 2\r\n\r\nno";
    let broken = "HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let asked = heads([passes, refuses, broken].map(str::to_owned).into());
    let hosts = "hosts = ['shop.example', '*.shop.example']\n";
    let auth = format!("{hosts}forward_auth = {{ to = 'http://{asked}', path = '/verify' }}\n");
    let config = config("").replace(hosts, &auth);
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let answer = get(&run, "shop.example", "/static/a.css");
    assert!(answer.ends_with("\r\n\r\nbody {}"), "{answer}");
    let answer = get(&run, "shop.example", "/static/a.css");
    let (status, challenge, body) = parts(&answer, "WWW-Authenticate");
    assert_eq!(
        (&*status, &*challenge, &*body),
        ("HTTP/1.1 401 Unauthorized", "Form", "no")
    );
    let (status, ..) = parts(&get(&run, "shop.example", "/"), "X");
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
    run.stop();
    let log = std::fs::read_to_string(run.path("access.log")).expect("a log");
    let served = log.lines().find(|line| line.contains("\" 200 "));
    assert!(
        served.is_some_and(|line| line.contains(" - ann [")),
        "{log}"
    );
}

#[test]
fn a_route_rewrites_paths_and_tells_what_is_known_of_the_client() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let app = listener.local_addr().expect("it has one");
    let seen = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the front connects");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.extend(byte);
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer.as_bytes()).expect("it is read");
        String::from_utf8(request).expect("text")
    });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    let routes = "routes = [{ path = '/api'";
    let rewrite = format!(
        "request_headers = {{ set = {{ X-What = '{{scheme}} {{path}}' }} }}\nroutes = [{{ path = '/was', to = 'http://{app}', rewrite = '/is' }}, \
         {{ path = '/gone', redirect = '/is{{rest}}{{query}}' }}, {{ path = '/api'"
    );
    let run = Run::begin_in(folder, &config("").replace(routes, &rewrite), |_| {});
    run.message("READY=1");
    let answer = get(&run, "shop.example", "/was/a%20b?c");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    let request = seen.join().expect("a request");
    assert!(
        request.starts_with("GET /is/a%20b?c HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("X-What: http /was/a%20b\r\n"), "{request}");
    let answer = get(&run, "shop.example", "/gone/a%20b?c");
    let (_, location, _) = parts(&answer, "Location");
    assert_eq!(location, "/is/a%20b?c");
}

#[test]
fn what_is_kept_is_forgotten_by_all_workers_when_it_is_purged() {
    let response = |number: usize| {
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 1\r\n\r\n{number}"
        )
    };
    let app = heads((0..8).map(response).collect());
    let routes = format!(
        "cache = true\nroutes = [{{ path = '/page', to = 'http://{app}' }}, {{ path = '/api'"
    );
    let config = config("")
        .replace("routes = [{ path = '/api'", &routes)
        .replace("workers = 2", "workers = 1");
    let mut run = start(&config);
    let page = || parts(&get(&run, "shop.example", "/page?x"), "Cache-Status");
    let is = |expected: &str, status: &str| {
        let (_, found, body) = page();
        assert_eq!((&*body, &*found), (expected, status));
    };
    let purge = |what: &[&str]| {
        let file = run.path("app.toml");
        let mut command = preforkd();
        command.args(["-c", &file.display().to_string(), "purge"]);
        let output = command.args(what).output().expect("it starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    is("0", "preforkd; fwd=miss");
    is("0", "preforkd; hit");
    let (is_refused, text) = purge(&["nope"]);
    assert!(!is_refused && text.contains("no site \"nope\""), "{text}");
    is("0", "preforkd; hit");
    for (number, what) in [&["http://shop.example/page?x"][..], &["plain", "shop"], &[]]
        .into_iter()
        .enumerate()
    {
        let (is_done, text) = purge(what);
        assert!(is_done && text.starts_with("purged "), "{text}");
        let expected = (number + 1).to_string();
        is(&expected, "preforkd; fwd=miss");
        is(&expected, "preforkd; hit");
    }
    run.logged(&["purged all responses"]);
}
