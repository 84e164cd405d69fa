//! Limits of the front that hold for all of its workers together: also when one of them is killed, and across a reload.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use common::{Run, app, build_front, preforkd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A site for whose clients something counts, and two workers for it.
fn config(site: &str, front: &str) -> String {
    build_front();
    format!(
        "[master]\ncontrol = 'control'\n{}\n[site.shop]\nlisten = 'unix:site.sock'\n\
        routes = [{{ path = '/free', answer = {{ text = 'free' }} }}, {{ path = '/', {site}answer = {{ text = 'the shop' }} }}]\n\
        [front]\nworkers = 2\n{front}\n",
        app(""),
    )
}

fn connect(run: &Run) -> UnixStream {
    UnixStream::connect(run.path("site.sock")).expect("the site listens")
}

/// The head of the answer to a request over a connection that stays.
fn ask(stream: &mut (impl Read + Write), path: &str, fields: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("it is read");
    answer(stream)
}

/// The head of an answer; what has come if the connection ends before.
fn answer(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            _ => break,
        }
    }
    let text = String::from_utf8(text).expect("text");
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.map_or(0, |length| length.parse().expect("a number"));
    stream.read_exact(&mut vec![0; length]).expect("a body");
    text
}

fn is_served(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

/// The workers of the front with the number of their open connections.
fn workers(run: &Run) -> BTreeMap<i32, u64> {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(["status", "--json", "-c", &file]).output();
    let status: Value =
        serde_json::from_slice(&output.expect("preforkd runs").stdout).expect("JSON");
    let apps = status["apps"].as_array().expect("a list");
    let front = apps.iter().find(|app| app["name"] == "front");
    let workers = front.expect("a front")["workers"]
        .as_array()
        .expect("a list");
    let workers = workers.iter().map(|worker| {
        let pid = i32::try_from(worker["pid"].as_u64().expect("a number")).expect("a pid");
        (pid, worker["connections"].as_u64().unwrap_or_default())
    });
    workers.collect()
}

/// A connection to each worker of the front, which has asked for something that no limit is for.
fn one_of_each<S: Read + Write>(run: &Run, mut connect: impl FnMut() -> S) -> Vec<(i32, S)> {
    let mut found: Vec<(i32, S)> = Vec::new();
    for _ in 0..100 {
        let before = workers(run);
        let mut stream = connect();
        assert!(is_served(&ask(&mut stream, "/free", "")));
        let after = workers(run);
        let mut grown = after
            .iter()
            .filter(|(pid, number)| before.get(pid) < Some(number));
        let (pid, _) = grown.next().expect("a worker has it");
        if found.iter().all(|(other, _)| other != pid) {
            found.push((*pid, stream));
        } else {
            // It must be gone before the next look.
            drop(stream);
            while workers(run)[pid] > 1 {}
        }
        if found.len() == after.len() {
            return found;
        }
    }
    panic!("one worker takes all connections");
}

#[test]
fn a_rate_limit_counts_for_all_workers_together_and_outlasts_them() {
    let limit = "rate_limit = { rate = '2/d', burst = 5, key = 'X-Key' }, ";
    let limited = config(limit, "");
    let mut run = Run::start(&limited);
    let mut both = one_of_each(&run, || connect(&run));
    let ask_both = |both: &mut Vec<(i32, UnixStream)>, key: &str| -> Vec<bool> {
        let fields = format!("X-Key: {key}\r\n");
        let rounds = (0..6).flat_map(|_| {
            let ask = |(_, stream): &mut (i32, UnixStream)| is_served(&ask(stream, "/", &fields));
            both.iter_mut().map(ask).collect::<Vec<_>>()
        });
        rounds.collect()
    };
    let passed = ask_both(&mut both, "a");
    let expected: Vec<bool> = (0..12).map(|n| n < 6).collect();
    assert_eq!(passed, expected, "six in all, three at each");

    // A worker that is killed takes nothing with it of what was counted.
    let (killed, stream) = both.pop().expect("two");
    drop(stream);
    kill(Pid::from_raw(killed), Signal::SIGKILL).expect("it runs");
    while workers(&run).contains_key(&killed) || workers(&run).len() < 2 {}
    drop(both);
    while workers(&run).values().any(|number| *number > 0) {}
    let mut both = one_of_each(&run, || connect(&run));
    assert_eq!(ask_both(&mut both, "a"), vec![false; 12]);

    // The limit is as it was after a reload that leaves it so, and begins anew if it is another one.
    run.write("app.toml", &limited.replace("the shop", "a new shop"));
    run.reload();
    let answer = ask(&mut connect(&run), "/", "X-Key: a\r\n");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 4"), "{answer}");
    run.write("app.toml", &limited.replace("burst = 5", "burst = 6"));
    run.reload();
    assert!(is_served(&ask(&mut connect(&run), "/", "X-Key: a\r\n")));
    run.stop();
}

/// Waits until the workers have so many connections together.
fn until_open(run: &Run, number: u64) {
    while workers(run).values().sum::<u64>() != number {}
}

#[test]
fn a_client_has_no_more_connections_in_all_workers_than_it_may_and_those_of_a_killed_one_do_not_count()
 {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("bound");
    drop(port);
    let limited = config("", "max_connections_per_client = 6");
    let tcp = |config: &str| config.replace("unix:site.sock", &address.to_string());
    let mut run = Run::start(&tcp(&limited));
    let connect = || TcpStream::connect(address).expect("the site listens");
    let mut both = one_of_each(&run, connect);
    let more = |number: usize| -> Vec<TcpStream> {
        let mut more: Vec<_> = (0..number).map(|_| connect()).collect();
        for stream in &mut more {
            assert!(is_served(&ask(stream, "/", "")));
        }
        more
    };
    let refused = || {
        let mut stream = connect();
        // It may be closed before this is sent.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        text.is_empty()
    };
    let mut others = more(4);
    assert!(refused() && refused());
    let log = run.logged(&[
        "closed a connection from 127.0.0.1",
        "max_connections_per_client",
    ]);
    assert!(log.contains("app=front"), "{log}");
    drop(others.pop());
    until_open(&run, 5);
    others.extend(more(1));
    assert!(refused());

    drop(both.pop());
    until_open(&run, 5);
    let all = more(1);
    assert!(refused());

    // One is killed.
    let before = workers(&run);
    let (killed, held) = before.iter().find(|(_, number)| **number > 0).expect("one");
    kill(Pid::from_raw(*killed), Signal::SIGKILL).expect("it runs");
    while workers(&run).contains_key(killed) || workers(&run).len() < 2 {}
    let again = more(usize::try_from(*held).expect("a few"));
    assert!(refused());
    drop((all, again, both, others));
    until_open(&run, 0);
    assert_eq!(more(6).len(), 6);
    run.stop();
}

#[test]
fn behind_a_proxy_the_client_counts_that_its_header_names() {
    let proxy = "max_connections_per_client = 2\nproxy_protocol = true\ntrusted_proxies = 'unix'";
    let mut run = Run::start(&config("", proxy));
    let from = |run: &Run, client: &str| {
        let mut stream = connect(run);
        let header = format!("PROXY TCP6 {client} 2001:db8::80 4000 80\r\n");
        stream.write_all(header.as_bytes()).expect("room");
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = answer(&mut stream);
        (is_served(&answer), stream)
    };
    // Two addresses of one network.
    let (one, other) = (
        from(&run, "2001:db8:0:1::1"),
        from(&run, "2001:db8:0:1:ffff::2"),
    );
    assert!(one.0 && other.0);
    assert!(!from(&run, "2001:db8:0:1::3").0);
    assert!(from(&run, "2001:db8:0:2::1").0);
    run.logged(&["closed a connection from 2001:db8:0:1::3"]);
    drop(one);
    until_open(&run, 1);
    assert!(from(&run, "2001:db8:0:1::3").0);
    run.stop();
}

/// A connection whose request the site has begun to read; what it was answered at once, if it is refused.
fn begin(run: &Run) -> Result<UnixStream, String> {
    let mut stream = connect(run);
    let fields = "Host: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n";
    let request = format!("POST / HTTP/1.1\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("room");
    match answer(&mut stream) {
        text if text.starts_with("HTTP/1.1 100 ") => Ok(stream),
        text => Err(text),
    }
}

#[test]
fn a_site_has_no_more_connections_in_all_workers_than_it_may_and_those_of_a_killed_one_do_not_count()
 {
    let limited = config("", "").replace("[site.shop]\n", "[site.shop]\nmax_connections = 6\n");
    let mut run = Run::start(&limited);
    let both = one_of_each(&run, || connect(&run));
    let mut begun: Vec<_> = (0..4).map(|_| begin(&run).expect("room")).collect();
    let refused = |run: &Run| {
        let answer = begin(run).expect_err("no room");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    };
    refused(&run);
    refused(&run);
    let log = run.logged(&["refused a request: site=shop has 6", "max_connections"]);
    assert!(log.contains("app=front"), "{log}");

    // Both workers have their connections closed while there is no room, and then there is.
    for (_, mut stream) in both {
        let answer = ask(&mut stream, "/", "");
        assert!(is_served(&answer));
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0, "{answer}");
        drop(stream);
        let next = std::iter::repeat_with(|| begin(&run)).find_map(Result::ok);
        begun.extend(next);
        refused(&run);
    }
    let before = workers(&run);
    let held = |pid: &i32| usize::try_from(before[pid]).expect("a few");
    let killed = before.keys().find(|pid| held(pid) > 0).expect("one");
    kill(Pid::from_raw(*killed), Signal::SIGKILL).expect("it runs");
    while workers(&run).contains_key(killed) || workers(&run).len() < 2 {}
    begun.extend((0..held(killed)).map(|_| begin(&run).expect("room")));
    refused(&run);
    // Those of workers that a reload has replaced count until they end.
    run.write("app.toml", &limited.replace("the shop", "a new shop"));
    run.reload();
    refused(&run);
    drop(begun);
    while begin(&run).is_err() {}
    run.stop();
}
