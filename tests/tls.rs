//! TLS of sites: certificates, session tickets, and what becomes of connections when they change.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use common::kept::Kept;
use common::{Run, app, build_front, preforkd, worker};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

/// An app, and the workers for sites.
fn config(sites: &str) -> String {
    build_front();
    format!(
        "[master]\ncontrol = 'control'\n{}\n[app.api]\ncommand = '{}'\n[front]\nworkers = 2\n{sites}",
        app(""),
        worker(),
    )
}

/// A site whose certificate has its name.
fn site(name: &str, host: &str) -> String {
    format!(
        "[site.{name}]\nlisten = 'unix:tls.sock'\nhosts = '{host}'\napp = 'api'\ntls = {{ cert = '{name}.pem', key = '{name}.key' }}\n"
    )
}

/// A key and a certificate for these hosts, as files.
fn certificate(folder: &std::path::Path, name: &str, hosts: &str) {
    let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            &format!("subjectAltName={hosts}"),
        ])
        .args(["-keyout", &key, "-out", &cert])
        .current_dir(folder)
        .output();
    let made = made.expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
}

/// What a client gets over TLS that trusts only this certificate.
fn over_tls(run: &Run, host: &str, path: &str, trusted: &str) -> (bool, String) {
    let trusted = run.path(trusted).display().to_string();
    let url = format!("https://{host}{path}");
    curl(run, "tls.sock", &["--cacert", &trusted, &url])
}

/// What curl(1) gets with these arguments, by way of a socket.
fn curl(run: &Run, socket: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--include",
            "--http1.1",
            "--unix-socket",
        ])
        .arg(run.path(socket))
        .args(arguments)
        .output()
        .expect("curl runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (output.status.success(), text)
}

/// The workers of an app in the newest generation.
fn pids(run: &Run, name: &str) -> BTreeSet<i32> {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(["status", "--json", "-c", &file]).output();
    let status: Value =
        serde_json::from_slice(&output.expect("preforkd runs").stdout).expect("JSON");
    let apps = status["apps"].as_array().expect("a list");
    let app = apps.iter().find(|app| app["name"] == name);
    let workers = app.expect("it is there")["workers"].as_array();
    let workers = workers.expect("a list").iter();
    let number = |worker: &Value, key: &str| worker[key].as_i64().expect("a number");
    let newest = workers.clone().map(|one| number(one, "generation")).max();
    let newest = workers.filter(|one| Some(number(one, "generation")) == newest);
    newest.map(|one| number(one, "pid") as i32).collect()
}

#[test]
fn clients_are_told_to_come_back_with_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    std::fs::write(folder.path().join("files/a.css"), "body {}").expect("room");
    for (name, host) in [("shop", "tls.example"), ("plain", "plain.example")] {
        certificate(folder.path(), name, &format!("DNS:{host}"));
    }
    let shop = site("shop", "tls.example")
        + "hsts = 'max-age=86400; includeSubDomains'\nstatic = { '/static/' = 'files' }\n\
           routes = [{ path = '/old', redirect = '/new' }]\n";
    let redirect =
        "[site.http]\nlisten = 'unix:http.sock'\nhosts = 'tls.example'\nredirect = 'https'\n";
    let sites = shop + &site("plain", "plain.example") + redirect;
    let mut run = Run::begin_in(folder, &config(&sites), |_| {});
    run.message("READY=1");
    let told = "\r\nStrict-Transport-Security: max-age=86400; includeSubDomains\r\n";
    for (path, status) in [
        ("/echo", "200 OK"),
        ("/static/a.css", "200 OK"),
        ("/static/b.css", "404 Not Found"),
        ("/old", "302 Found"),
    ] {
        let (_, answer) = over_tls(&run, "tls.example", path, "shop.pem");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert_eq!(answer.matches(told).count(), 1, "{answer}");
    }
    let (_, answer) = over_tls(&run, "plain.example", "/echo", "plain.pem");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(!answer.contains("Strict-Transport"), "{answer}");
    // Whoever comes without is sent to it, and would not believe the field.
    let output = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--include", "--unix-socket"])
        .arg(run.path("http.sock"))
        .arg("http://tls.example/a%20b?c=d")
        .output()
        .expect("curl runs");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    assert!(
        answer.contains("\r\nLocation: https://tls.example/a%20b?c=d\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("Strict-Transport"), "{answer}");
    run.stop();
}

#[test]
fn each_site_has_its_certificate_and_a_reload_takes_in_another_one() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("room");
    certificate(folder.path(), "shop", "DNS:tls.example");
    certificate(folder.path(), "other", "DNS:*.other.example");
    let site = |name: &str, host: &str| {
        format!(
            "[site.{name}-tls]\nlisten = 'unix:tls.sock'\nhosts = '{host}'\napp = 'api'\ntls = {{ cert = '{name}.pem', key = '{name}.key' }}\n"
        )
    };
    let sites = [
        site("shop", "tls.example"),
        site("other", "*.other.example"),
    ]
    .concat();
    let mut run = Run::begin_in(folder, &config(&sites), |_| {});
    run.message("READY=1");
    for (host, trusted) in [
        ("tls.example", "shop.pem"),
        ("a.other.example", "other.pem"),
    ] {
        let (_, answer) = over_tls(&run, host, "/echo", trusted);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("X-Forwarded-Proto: https"), "{answer}");
        let other = if trusted == "shop.pem" {
            "other.pem"
        } else {
            "shop.pem"
        };
        assert!(!over_tls(&run, host, "/echo", other).0);
    }

    // What does not fit refuses the reload, and is said.
    let front = pids(&run, "front");
    std::fs::copy(run.path("other.key"), run.path("shop.key")).expect("room");
    run.signal(Signal::SIGHUP);
    run.logged(&[
        "tls: cannot use the certificate of [site.shop-tls]",
        "shop.key",
    ]);
    let checked = preforkd()
        .arg("-t")
        .arg("-c")
        .arg(run.path("app.toml"))
        .output();
    let checked = checked.expect("preforkd runs");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        said.contains("tls: cannot use the certificate of [site.shop-tls]"),
        "{said}"
    );
    run.message("READY=1");
    assert_eq!(pids(&run, "front"), front);
    assert!(over_tls(&run, "tls.example", "/echo", "shop.pem").0);

    std::fs::copy(run.path("shop.pem"), run.path("old.pem")).expect("room");
    certificate(run.folder.path(), "shop", "DNS:tls.example");
    run.reload();
    // By themselves or with the reload, whichever comes first.
    assert_eq!(pids(&run, "front"), front);
    for _ in 0..4 {
        assert!(over_tls(&run, "tls.example", "/echo", "shop.pem").0);
        assert!(!over_tls(&run, "tls.example", "/echo", "old.pem").0);
    }
    run.stop();
}

/// A certificate of a client, from an authority of its own with the same name.
fn client_certificate(folder: &std::path::Path, name: &str) {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        let made = command.args(arguments).current_dir(folder).output();
        let made = made.expect("openssl runs");
        assert!(made.status.success(), "{made:?}");
    };
    let (ca, ca_key) = (format!("{name}-ca.pem"), format!("{name}-ca.key"));
    let (key, request, own) = (
        format!("{name}-client.key"),
        format!("{name}.csr"),
        format!("{name}-client.pem"),
    );
    let new = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let authority = format!("/CN={name} authority");
    let subject = format!("/O=Example/CN={name}");
    let files = ["-keyout", &ca_key, "-out", &ca];
    openssl(
        &[
            &["req", "-x509", "-days", "2", "-subj", &authority][..],
            &new,
            &files,
        ]
        .concat(),
    );
    let files = ["-keyout", &key, "-out", &request];
    openssl(&[&["req", "-subj", &subject][..], &new, &files].concat());
    std::fs::write(folder.join("client.ext"), "extendedKeyUsage = clientAuth\n").expect("room");
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-extfile",
        "client.ext",
        "-set_serial",
        "0x1234",
        "-out",
        &own,
    ]);
}

/// A client that asks for one name in the handshake, with a certificate, if it has one.
fn client(run: &Run, name: &str, certificate: Option<&str>) -> Child {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-quiet", "-servername", name, "-unix"]);
    client.arg(run.path("tls.sock"));
    if let Some(certificate) = certificate {
        client
            .arg("-cert")
            .arg(run.path(&format!("{certificate}-client.pem")));
        client
            .arg("-key")
            .arg(run.path(&format!("{certificate}-client.key")));
    }
    client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs")
}

/// What a client gets that asks for one name in the handshake, and then for a host.
fn ask(run: &Run, name: &str, host: &str, certificate: Option<&str>) -> String {
    let mut client = client(run, name, certificate);
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: {host}\r\nX-SSL-Client-Verify: SUCCESS\r\nX-SSL-Client-Subject: CN=root\r\nX_SSL_Client_Subject: CN=root\r\nConnection: close\r\n\r\n"
    );
    let mut stdin = client.stdin.take().expect("a pipe");
    // It may have been turned away before.
    let _ = stdin.write_all(request.as_bytes());
    let output = client.wait_with_output().expect("it ends");
    drop(stdin);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn clients_show_certificates_and_nobody_gets_past_that() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["staff", "partner"] {
        client_certificate(folder.path(), name);
    }
    let names = "DNS:open.example,DNS:staff.example,DNS:maybe.example,DNS:other.example";
    let sites = [
        ("open", ""),
        ("other", ""),
        ("staff", "client_ca = 'staff-ca.pem'\n"),
        (
            "maybe",
            "client_ca = 'partner-ca.pem'\nclient_certificate = 'optional'\n",
        ),
    ];
    let sites = sites.map(|(name, more)| {
        certificate(folder.path(), name, names);
        site(name, &format!("{name}.example")) + more
    });
    let mut run = Run::begin_in(folder, &config(&sites.concat()), |_| {});
    run.message("READY=1");
    let ok = "HTTP/1.1 200 OK";
    let misdirected = "HTTP/1.1 421 Misdirected Request";
    for (name, host, certificate, expected) in [
        ("open", "open", None, ok),
        // The certificate covers that name too.
        ("open", "other", None, ok),
        ("staff", "staff", Some("staff"), ok),
        ("staff", "staff", None, "alert"),
        ("staff", "staff", Some("partner"), "alert"),
        ("maybe", "maybe", None, ok),
        ("maybe", "maybe", Some("partner"), ok),
        ("maybe", "maybe", Some("staff"), "alert"),
        // Past the certificates of another site.
        ("open", "staff", None, misdirected),
        ("open", "maybe", None, misdirected),
        ("maybe", "staff", Some("partner"), misdirected),
        ("staff", "open", Some("staff"), misdirected),
        ("unknown", "staff", None, misdirected),
    ] {
        let (name, host) = (format!("{name}.example"), format!("{host}.example"));
        let answer = ask(&run, &name, &host, certificate);
        assert!(
            answer.contains(expected),
            "{name} {host} {certificate:?}: {answer}"
        );
        // What the client has written about itself does not pass.
        assert!(!answer.contains("CN=root"), "{answer}");
        let told: Vec<_> = answer
            .lines()
            .filter(|line| line.starts_with("X-SSL-Client"))
            .collect();
        match (expected == ok, certificate, name.starts_with("maybe")) {
            (true, Some(by), _) => {
                assert_eq!(told.len(), 5, "{answer}");
                assert_eq!(told[0], "X-SSL-Client-Verify: SUCCESS");
                assert_eq!(told[1], format!("X-SSL-Client-Subject: CN={by},O=Example"));
                assert_eq!(told[2], format!("X-SSL-Client-Issuer: CN={by} authority"));
                assert_eq!(told[3], "X-SSL-Client-Serial: 1234");
                let digits = told[4].strip_prefix("X-SSL-Client-Fingerprint: ");
                assert_eq!(digits.map(str::len), Some(64), "{answer}");
            }
            (true, None, true) => assert_eq!(told, ["X-SSL-Client-Verify: NONE"]),
            _ => assert_eq!(told, [] as [&str; 0], "{answer}"),
        }
    }

    // Others count as soon as the file has changed, also on connections that are open.
    std::fs::copy(run.path("partner-ca.pem"), run.path("new.pem")).expect("room");
    std::fs::rename(run.path("new.pem"), run.path("staff-ca.pem")).expect("ours");
    run.logged(&["app=front: new certificates, handed to 2 workers"]);
    let answer = ask(&run, "staff.example", "staff.example", Some("partner"));
    assert!(answer.contains(ok), "{answer}");
    let answer = ask(&run, "staff.example", "staff.example", Some("staff"));
    assert!(answer.contains("alert"), "{answer}");
    run.stop();
}

#[test]
fn a_request_that_was_allowed_stays_so_and_the_next_one_is_judged_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["staff", "partner"] {
        client_certificate(folder.path(), name);
    }
    certificate(folder.path(), "staff", "DNS:staff.example");
    let sites = site("staff", "staff.example") + "client_ca = 'staff-ca.pem'\n";
    // The worker that has the request is the one that is asked whether it knows of the change.
    let config = config(&sites).replace("[front]\nworkers = 2", "[front]\nworkers = 1");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let mut client = client(&run, "staff.example", Some("staff"));
    let mut request = client.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(client.stdout.take().expect("a pipe")).lines();
    let mut status = || {
        let mut lines = answers.by_ref().map_while(Result::ok);
        lines.find(|line| line.starts_with("HTTP/1.1 "))
    };
    let head = "GET /echo HTTP/1.1\r\nHost: staff.example\r\n";
    let body = "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    write!(request, "{head}{body}").expect("it listens");
    assert_eq!(status().as_deref(), Some("HTTP/1.1 100 Continue"));

    std::fs::copy(run.path("partner-ca.pem"), run.path("new.pem")).expect("room");
    std::fs::rename(run.path("new.pem"), run.path("staff-ca.pem")).expect("ours");
    run.logged(&["app=front: new certificates, handed to a worker"]);
    let other = ask(&run, "staff.example", "staff.example", Some("partner"));
    assert!(other.contains("HTTP/1.1 200 OK"), "{other}");

    write!(request, "body{head}\r\n").expect("it listens");
    assert_eq!(status().as_deref(), Some("HTTP/1.1 200 OK"));
    let next = status().expect("an answer");
    assert!(next.starts_with("HTTP/1.1 421 "), "{next}");
    drop(request);
    client.kill().expect("it is ours");
    client.wait().expect("it ends");
    run.stop();
}

#[test]
fn new_certificates_are_taken_in_by_themselves_and_open_connections_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["one", "two", "three"] {
        std::fs::create_dir(at(name)).expect("room");
        certificate(&at(name), "shop", "DNS:tls.example");
    }
    // As Kubernetes has it.
    symlink("one", at("..data")).expect("room");
    for name in ["shop.pem", "shop.key"] {
        symlink(format!("..data/{name}"), at(name)).expect("room");
    }
    let relink = |run: &Run, name: &str, to: &str| {
        symlink(to, run.path("new")).expect("room");
        std::fs::rename(run.path("new"), run.path(name)).expect("ours");
    };
    let shows = |run: &Run, which: &str| {
        let trusted = format!("{which}/shop.pem");
        (0..4).all(|_| over_tls(run, "tls.example", "/echo", &trusted).0)
    };
    let mut run = Run::begin_in(folder, &config(&site("shop", "tls.example")), |_| {});
    run.message("READY=1");
    let front = pids(&run, "front");
    let mut kept = [
        Kept::open(&run, "tls.example"),
        Kept::open(&run, "tls.example"),
        Kept::open(&run, "tls.example"),
    ];
    let mut all_answer = || {
        for kept in &mut kept {
            assert_eq!(kept.ask(), "HTTP/1.1 200 OK");
        }
    };
    all_answer();
    assert!(shows(&run, "one"));
    relink(&run, "..data", "two");
    run.logged(&["app=front: new certificates, handed to 2 workers"]);
    assert!(shows(&run, "two"));
    assert!(!over_tls(&run, "tls.example", "/echo", "one/shop.pem").0);
    all_answer();

    // One of both is not taken, and is said once.
    relink(&run, "shop.pem", "three/shop.pem");
    let line = run.logged(&[
        "new certificates are not taken in",
        "shop.key",
        "stay in use",
    ]);
    assert!(line.contains("shop.pem"), "{line}");
    assert!(shows(&run, "two"));
    relink(&run, "shop.key", "three/shop.key");
    run.logged(&["app=front: new certificates, handed to 2 workers"]);
    assert!(shows(&run, "three"));
    all_answer();

    // Nor is a file that is missing.
    std::fs::remove_file(run.path("three/shop.key")).expect("ours");
    run.logged(&[
        "new certificates are not taken in",
        "shop.key",
        "No such file",
    ]);
    assert!(shows(&run, "three"));

    // A worker that takes the place of another one begins with the latest.
    let worker = *front.first().expect("a worker");
    nix::sys::signal::kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it runs");
    run.logged(&["app=front", &format!("pid={worker}"), "SIGKILL"]);
    run.status("front 1/2 ready");
    run.status("front 2/2 ready");
    assert!(shows(&run, "three"));
    run.stop();
}

/// Connects with a session from a file, or writes one to it. Returns what openssl(1) says.
fn session(run: &Run, version: &str, file: (&str, &str)) -> String {
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-ign_eof",
            version,
            "-servername",
            "tls.example",
        ])
        .arg("-unix")
        .arg(run.path("tls.sock"))
        .arg(file.0)
        .arg(run.path(file.1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let request = b"GET /echo HTTP/1.1\r\nHost: tls.example\r\nConnection: close\r\n\r\n";
    let mut stdin = client.stdin.take().expect("a pipe");
    stdin.write_all(request).expect("it is read");
    let output = client.wait_with_output().expect("it ends");
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    text
}

#[test]
fn any_worker_goes_on_with_a_session_and_so_does_the_next_generation() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), "shop", "DNS:tls.example");
    let sites = site("shop", "tls.example");
    let mut run = Run::begin_in(folder, &config(&sites), |_| {});
    run.message("READY=1");
    let workers: Vec<_> = pids(&run, "front").into_iter().map(Pid::from_raw).collect();
    let [one, two] = workers[..] else {
        panic!("{workers:?}");
    };
    let signal = |worker, signal| nix::sys::signal::kill(worker, signal).expect("it runs");
    // Only the other one can accept.
    let only = |worker: Pid, other: Pid| {
        signal(other, Signal::SIGSTOP);
        signal(worker, Signal::SIGCONT);
    };
    let versions = ["-tls1_3", "-tls1_2"];
    only(one, two);
    for version in versions {
        let text = session(&run, version, ("-sess_out", version));
        assert!(text.contains("New, TLSv1"), "{text}");
        assert!(text.contains("Compression: NONE"), "{text}");
        if version == "-tls1_3" {
            assert!(text.contains("Max Early Data: 0"), "{text}");
        }
    }
    let resumes = |run: &Run, when: &str| {
        for version in versions {
            let text = session(run, version, ("-sess_in", version));
            assert!(text.contains("Reused, TLSv1"), "{when} {version}: {text}");
        }
    };
    resumes(&run, "with the same worker");
    only(two, one);
    resumes(&run, "with another worker");
    signal(one, Signal::SIGCONT);

    run.reload();
    resumes(&run, "after a reload of the app");
    let more = "[site.more]\nlisten = 'unix:more.sock'\napp = 'api'\n";
    std::fs::write(run.path("app.toml"), config(&(sites + more))).expect("room");
    run.reload();
    let new = pids(&run, "front");
    assert!(workers.iter().all(|old| !new.contains(&old.as_raw())));
    for _ in 0..5 {
        resumes(&run, "after a reload of the front");
    }

    // Whoever runs code of an application has no descriptor with keys.
    for app in ["api", "web"] {
        for pid in pids(&run, app) {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
            for entry in open {
                let to = std::fs::read_link(entry.expect("an entry").path());
                let to = to.unwrap_or_default().display().to_string();
                let secret = ["settings", "certificates"];
                assert!(!secret.iter().any(|name| to.contains(name)), "{app}: {to}");
            }
        }
    }
    run.stop();
}

/// The processor time of a process of one thread until now, in nanoseconds: proc(5), schedstat.
fn processor_time(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    let first = text.split(' ').next();
    first.and_then(|time| time.parse().ok()).expect("a number")
}

#[test]
fn the_first_handshake_of_a_worker_keeps_other_clients_no_longer_than_the_next_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), "one", "DNS:one.example");
    let config = config(&site("one", "one.example")).replace("workers = 2", "workers = 1");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let front = *pids(&run, "front").first().expect("it runs");
    let handshake = || {
        let before = processor_time(front);
        let (is_well, said) = over_tls(&run, "one.example", "/", "one.pem");
        assert!(is_well, "{said}");
        processor_time(front) - before
    };
    let first = handshake();
    let mut next = [0; 5].map(|_| handshake());
    next.sort_unstable();
    assert!(first < 8 * next[2], "{first} ns, then {next:?}");
    run.stop();
}

#[test]
fn clients_speak_http_2_or_http_1_as_they_like() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), "shop", "DNS:tls.example");
    let sites = format!(
        "access_log = 'access.log'\n{}[site.plain]\nlisten = 'unix:plain.sock'\napp = 'api'\n",
        site("shop", "tls.example"),
    );
    let mut run = Run::begin_in(folder, &config(&sites), |_| {});
    run.message("READY=1");
    let trusted = run.path("shop.pem").display().to_string();
    let (tls, plain) = ("https://tls.example/echo", "http://a.example/echo");
    for (socket, option, url, protocol, scheme) in [
        ("tls.sock", "--http2", tls, "HTTP/2 200", "https"),
        ("tls.sock", "--http1.1", tls, "HTTP/1.1 200", "https"),
        (
            "plain.sock",
            "--http2-prior-knowledge",
            plain,
            "HTTP/2 200",
            "http",
        ),
        ("plain.sock", "--http1.1", plain, "HTTP/1.1 200", "http"),
    ] {
        let (is_whole, answer) = curl(&run, socket, &[option, "--cacert", &trusted, url]);
        assert!(
            is_whole && answer.starts_with(protocol),
            "{option}: {answer}"
        );
        let forwarded = format!("X-Forwarded-Proto: {scheme}\n");
        assert!(answer.contains(&forwarded), "{option}: {answer}");
    }
    let without = sites.replacen("access_log", "http2 = false\naccess_log", 1);
    run.write("app.toml", &config(&without));
    run.reload();
    let (_, answer) = curl(&run, "tls.sock", &["--http2", "--cacert", &trusted, tls]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (is_whole, answer) = curl(&run, "plain.sock", &["--http2-prior-knowledge", plain]);
    assert!(!is_whole, "{answer}");
    run.stop();
    let log = std::fs::read_to_string(run.path("access.log")).expect("a log");
    for protocol in ["HTTP/2.0", "HTTP/1.1"] {
        let lines = log
            .lines()
            .filter(|line| line.contains(&format!("GET /echo {protocol}")));
        assert_eq!(
            lines.count(),
            2 + usize::from(protocol == "HTTP/1.1"),
            "{log}"
        );
    }
}
