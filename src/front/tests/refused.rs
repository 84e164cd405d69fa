//! What the log says of clients that cannot agree on TLS with the server.

#[allow(dead_code, reason = "other tests use the rest")]
mod served;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

use preforkd_front::tls::terms::Address;
use served::{Authority, keys, serve, terms};

/// Hands lines on.
struct Lines(OnceLock<Mutex<Sender<String>>>);

static LINES: Lines = Lines(OnceLock::new());

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("preforkd")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            let lines = self.0.get().expect("set before").lock().unwrap();
            lines.send(line).unwrap();
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_line_says_what_the_client_has_done() {
    let (sender, lines) = channel();
    assert!(LINES.0.set(Mutex::new(sender)).is_ok());
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let authority = Authority::new();
    let server = serve(Address::new(terms(
        authority.pair(&["localhost"]),
        &keys(1),
    )));
    for (bytes, why) in [
        (
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            "it speaks plain HTTP, and TLS is spoken here",
        ),
        (b"\0\0\0\0\0", "could not agree on TLS: "),
    ] {
        let mut client = server.connect();
        client.write_all(bytes).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        let line = lines.recv().unwrap();
        let expected = format!("refused a connection of 127.0.0.1: {why}");
        assert!(line.starts_with(&expected), "{line}");
    }
    // A client that does not believe the certificate says so.
    let config = Arc::new(Authority::new().client());
    let mut client = server.client(&config, "localhost");
    client.write_all(b"GET").unwrap_err();
    let line = lines.recv().unwrap();
    let expected = "could not agree on TLS: received fatal alert: ";
    assert!(line.contains(expected), "{line}");
}
