//! What connections cost while nothing goes on on them.

#[allow(dead_code, reason = "other tests use the rest")]
mod served;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use preforkd_front::tls::terms::Address;
use preforkd_http::Limits;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use served::{Authority, keys, response, serve_with, terms};

/// Set in the process that serves.
const ISSUER: &str = "PREFORKD_TEST_IDLE";
const CONNECTIONS: usize = 400;
/// Connections before the first measurement: what the process needs once is not theirs.
const FIRST: usize = 50;

/// Serves until standard input ends; the process has nothing else to do, so that its memory is that of the server.
fn serve_alone() {
    let authority = Authority::new();
    let limits = Limits {
        max_connections: 10_000,
        ..Limits::default()
    };
    let pair = authority.pair(&["localhost"]);
    let server = serve_with(Address::new(terms(pair, &keys(1))), limits, |_| {});
    fs::write(env::var(ISSUER).unwrap(), &authority.pem).unwrap();
    println!("\nport {}", server.address.port());
    let _ = std::io::stdin().read(&mut [0]);
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    1024 * word.unwrap().parse::<u64>().unwrap()
}

#[test]
fn an_idle_connection_takes_ten_kilobytes_at_most() {
    if env::var_os(ISSUER).is_some() {
        return serve_alone();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "an_idle_connection_takes_ten_kilobytes_at_most",
        ])
        .env(ISSUER, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines
        .by_ref()
        .find_map(|line| line.unwrap().strip_prefix("port ")?.parse::<u16>().ok())
        .unwrap();
    let config = Arc::new(Authority::client_of(&fs::read_to_string(&path).unwrap()));
    let connect = |_| {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut client = StreamOwned::new(connection, socket);
        // A request and a response of some length, as what they have needed must not stay.
        client
            .write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n")
            .unwrap();
        client.write_all(&[b'x'; 50_000]).unwrap();
        assert_eq!(response(&mut client).unwrap().len(), 50_000);
        client.sock
    };
    let first: Vec<_> = (0..FIRST).map(connect).collect();
    let before = resident(child.id());
    let rest: Vec<_> = (0..CONNECTIONS).map(connect).collect();
    let each = (resident(child.id()) - before) / CONNECTIONS as u64;
    println!("{each} bytes for each idle connection");
    assert!(each < 10_000, "{each} bytes");
    drop((first, rest));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
