//! What must hold of a response whatever an upstream sends, for random tests and for the fuzzer.

use preforkd_http::{Expected, Response};

use super::{Progress, Protocol, Reader};

/// What has become of a response: what the client gets of it, the lines for the log, whether it is complete, and how many bytes were left
/// over.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    sent: Vec<u8>,
    said: Vec<String>,
    fault: Option<String>,
    is_whole: bool,
    left_over: usize,
}

fn read(protocol: Protocol, pieces: &[&[u8]]) -> Seen {
    // Without chunks, which tell the pieces.
    let mut response = Response::new(false, false, false);
    let mut reader = Reader::new(protocol);
    reader.expect(Expected::default());
    let mut seen = Seen::default();
    let mut rest = pieces.iter();
    let mut ended = false;
    for piece in rest.by_ref() {
        match reader.read(piece, &mut response, true) {
            Ok(Progress::More | Progress::Switched | Progress::Judged(_)) => {}
            Ok(Progress::Done(taken)) => {
                (seen.is_whole, seen.left_over) = (true, piece.len() - taken);
                ended = true;
            }
            Err(fault) => {
                seen.fault = Some(fault.to_string());
                ended = true;
            }
        }
        seen.said.append(&mut reader.said());
        if ended {
            break;
        }
    }
    seen.left_over += rest.map(|piece| piece.len()).sum::<usize>();
    if !ended {
        match reader.end() {
            Ok(()) => seen.is_whole = true,
            Err(fault) => seen.fault = Some(fault.to_string()),
        }
        seen.said.append(&mut reader.said());
    }
    match seen.is_whole {
        true => response.end(),
        false => response.cut(),
    }
    response.flush();
    seen.sent = without_time(response.piece().bytes());
    if seen.fault.is_some() {
        // How much of the piece that holds the fault was passed on before depends on where it begins.
        (seen.left_over, seen.sent) = (0, Vec::new());
    }
    seen
}

/// A response without the time that it was made at: the next one may be made in another second.
fn without_time(sent: &[u8]) -> Vec<u8> {
    const FIELD: &[u8] = b"\r\nDate: ";
    const LENGTH: usize = "Fri, 27 Nov 2026 13:52:49 GMT".len();
    let mut sent = sent.to_vec();
    let found = sent.windows(FIELD.len()).position(|text| text == FIELD);
    let at = found.map_or(sent.len(), |at| at + FIELD.len());
    if let Some(time) = sent.get_mut(at..at + LENGTH)
        && time.ends_with(b" GMT")
    {
        time.fill(b'x');
    }
    sent
}

/// Reads these bytes as a response. What becomes of it does not depend on how they were split, and nothing that follows it is a part of it.
///
/// # Panics
/// It does not hold.
pub fn check(protocol: Protocol, bytes: &[u8], cut: usize) {
    let whole = read(protocol, &[bytes]);
    let (one, other) = bytes.split_at(cut.min(bytes.len()));
    assert_eq!(read(protocol, &[one, other]), whole, "split at {cut}");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(protocol, &single), whole, "byte by byte");
    assert!(whole.left_over <= bytes.len());
    assert_ne!(whole.is_whole, whole.fault.is_some());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let [high, low] = (content.len() as u16).to_be_bytes();
        let header = [1, kind, 0, 1, high, low, padding, 0];
        [&header[..], content, &vec![b'p'; padding.into()]].concat()
    }

    /// What a program writes.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let known = vec![
            "Content-Type: a/b\r\n",
            "Status: 404\n",
            "Content-Length: 4\r\n",
            "Location: /a\r\n",
            "\r\n",
            "\n",
            "body",
            "bo",
            "HTTP/1.1 200 OK\r\n",
            "Transfer-Encoding: chunked\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
            "Status: 2000\r\n",
            "",
        ];
        prop::collection::vec(prop::sample::select(known), 0..4)
            .prop_map(|parts| parts.concat().into_bytes())
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => (text(), 0u8..4).prop_map(|(text, padding)| record(6, &text, padding)),
            1 => text().prop_map(|text| record(7, &text, 0)),
            2 => Just(record(6, b"", 0)),
            2 => Just(record(3, &[0; 8], 0)),
            1 => Just(record(3, &[0, 0, 0, 0, 1, 0, 0, 0], 0)),
            1 => (any::<u8>(), text()).prop_map(|(kind, text)| record(kind, &text, 0)),
            1 => prop::collection::vec(any::<u8>(), 0..9),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_response_of_fastcgi_is_the_same_however_it_comes(parts in prop::collection::vec(part(), 0..8), cut in 0usize..200) {
            check(Protocol::FastCgi, &parts.concat(), cut);
        }

        #[test]
        fn so_is_one_of_http_or_scgi(parts in prop::collection::vec(text(), 0..6), cut in 0usize..200) {
            for protocol in [Protocol::Http, Protocol::Scgi] {
                check(protocol, &parts.concat(), cut);
            }
        }
    }
}
