//! Static files that change while they are sent.

mod common;
mod http2;

use std::fs::File;
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
