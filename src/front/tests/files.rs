//! Static files as they are sent: whole, to whoever takes them slowly, and never anything else if they change meanwhile.

mod common;
mod http2;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use common::{Options, front_with};
use h2::Reason;
use http2::{Client, get};
use preforkd_http::Files;
use preforkd_worker::settings::Mapping;

/// More than the buffers of both sockets hold.
const LARGE: u64 = 256 << 20;

/// A front that serves the files of this folder.
fn front(folder: &Path) -> common::Front {
    let mapping = Mapping {
        path: folder.to_path_buf(),
        ..Mapping::default()
    };
    let mappings = [("/".to_owned(), mapping)].into();
    let options = Options {
        files: Files::new(&mappings, "", "test".into()).unwrap(),
        ..Options::default()
    };
    front_with(Vec::new(), options, |_| {})
}

#[test]
fn a_file_that_is_cut_off_while_it_is_sent_breaks_off_and_no_response_takes_the_place_of_its_rest()
{
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("next"), "the next response").unwrap();
    let file = File::create(folder.path().join("large")).unwrap();
    let front = front(folder.path());

    file.set_len(LARGE).unwrap();
    let mut client =
        front.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head();
    assert!(
        head.contains(&format!("\r\nContent-Length: {LARGE}\r\n")),
        "{head}"
    );
    file.set_len(1000).unwrap();
    let rest = client.rest();
    assert!((rest.len() as u64) < LARGE, "{}", rest.len());
    assert!(
        rest.bytes().all(|byte| byte == 0),
        "something else than the file"
    );

    file.set_len(LARGE).unwrap();
    let mut client = Client::new(front.address());
    let (large, _) = client.send(get("/large"), true);
    let mut body = client.head(large).into_body();
    file.set_len(1000).unwrap();
    let error = loop {
        match client.piece(&mut body) {
            Ok(Some(piece)) => assert!(piece.iter().all(|&byte| byte == 0)),
            Ok(None) => panic!("an end that is none"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    // The connection goes on.
    let (next, _) = client.send(get("/next"), true);
    assert_eq!(client.whole(next).body, b"the next response");
}

/// A file that is held in memory, and more than one record of TLS or frame of HTTP/2.
fn small() -> Vec<u8> {
    (0..40_000_u32).map(|n| (n % 251) as u8).collect()
}

#[test]
fn a_file_in_memory_comes_whole_however_slowly_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small"), small()).unwrap();
    let front = front(folder.path());

    // More than the buffers of both sockets hold, so that writes end anywhere.
    const REQUESTS: usize = 500;
    let mut client = TcpStream::connect(front.address()).unwrap();
    client.set_read_timeout(Some(http2::GUARD)).unwrap();
    let request = "GET /small HTTP/1.1\r\nHost: a\r\n\r\n";
    let range = "GET /small HTTP/1.1\r\nHost: a\r\nRange: bytes=30000-39998\r\n\r\n";
    let last = "GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let all = [&request.repeat(REQUESTS), range, last].concat();
    client.write_all(all.as_bytes()).unwrap();
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).unwrap();
    let mut rest = &answers[..];
    for number in 0..REQUESTS + 2 {
        let end = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, body) = rest.split_at(end.unwrap() + 4);
        let head = str::from_utf8(head).unwrap();
        let expected = match number == REQUESTS {
            true => &small()[30_000..39_999],
            false => &small()[..],
        };
        let length = format!("\r\nContent-Length: {}\r\n", expected.len());
        assert!(head.contains(&length), "{number}: {head}");
        assert!(body.starts_with(expected), "{number}");
        rest = &body[expected.len()..];
    }
    assert!(rest.is_empty());

    for window in [1000, 20_000, 1 << 20] {
        let mut client = Client::with(front.address(), |builder| {
            builder.initial_window_size(window);
        });
        let (first, _) = client.send(get("/small"), true);
        let (second, _) = client.send(get("/small"), true);
        for pending in [second, first] {
            let whole = client.whole(pending);
            assert_eq!(whole.fields["content-length"], "40000");
            assert!(whole.body == small(), "{window}");
        }
    }
}
