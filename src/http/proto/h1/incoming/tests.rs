use proptest::prelude::*;

use super::*;

/// What has come of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: String,
    fields: Vec<String>,
    body: Vec<u8>,
    /// Complete; with the number of bytes that belong to it, and whether the connection is kept.
    done: Option<(usize, bool)>,
    fault: Option<&'static str>,
}

/// The response in pieces, with the end of the connection after it or not.
fn read(pieces: &[&[u8]], head_only: bool, end: bool) -> Seen {
    let mut incoming = Incoming::default();
    incoming.expect(Expected {
        head_only,
        ..Expected::default()
    });
    let mut seen = Seen {
        status: String::new(),
        fields: Vec::new(),
        body: Vec::new(),
        done: None,
        fault: None,
    };
    let mut taken = 0;
    for piece in pieces {
        let mut at = 0;
        loop {
            match incoming.advance(&piece[at..], |data| seen.body.extend_from_slice(data)) {
                Ok((n, step)) => {
                    at += n;
                    taken += n;
                    match step {
                        Step::Interim => {}
                        Step::Switch => unreachable!("nobody has asked"),
                        Step::Head => {
                            assert!(seen.status.is_empty(), "two heads");
                            seen.status = String::from_utf8_lossy(incoming.status()).into_owned();
                            let fields = incoming.fields();
                            let texts = fields.map(|(name, value)| [name, b": ", value].concat());
                            seen.fields = texts
                                .map(|text| String::from_utf8_lossy(&text).into_owned())
                                .collect();
                        }
                        Step::More => {
                            assert_eq!(at, piece.len());
                            break;
                        }
                        Step::Done => {
                            seen.done = Some((taken, incoming.keeps_connection()));
                            return seen;
                        }
                    }
                }
                Err(Fault(why)) => {
                    seen.fault = Some(why);
                    return seen;
                }
            }
        }
    }
    if end {
        match incoming.end() {
            Ok(()) => seen.done = Some((taken, incoming.keeps_connection())),
            Err(Fault(why)) => seen.fault = Some(why),
        }
    }
    seen
}

/// All bytes at once and each by itself must come to the same.
fn whole(text: &str, head_only: bool, end: bool) -> Seen {
    let at_once = read(&[text.as_bytes()], head_only, end);
    let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
    assert_eq!(read(&bytes, head_only, end), at_once, "{text}");
    at_once
}

#[test]
fn bodies_end_where_the_standard_says() {
    // RFC 9112 section 6.3: the response, HEAD or not, then the body, whether the connection is kept, and what is left over.
    let table: [(&str, bool, &str, bool, &str); 17] = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
            false,
            "ab",
            true,
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            false,
            "",
            true,
            "",
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nabHTTP",
            false,
            "ab",
            true,
            "HTTP",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n2;x\r\nbc\r\n0\r\nT: x\r\n\r\n",
            false,
            "abc",
            true,
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",
            false,
            "",
            true,
            "x",
        ),
        // Neither HEAD, 204 nor 304 has a body, whatever its fields say.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            true,
            "",
            true,
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
            "",
            true,
            "",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", true, "", true, ""),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            false,
            "",
            true,
            "",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, "", true, ""),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            false,
            "",
            true,
            "",
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
            false,
            "",
            false,
            "abc",
        ),
        (
            "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
            false,
            "",
            true,
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\na",
            false,
            "a",
            false,
            "",
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
            false,
            "a",
            false,
            "",
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na",
            false,
            "a",
            true,
            "",
        ),
        // Interim responses are not the response, however many there are.
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            false,
            "a",
            true,
            "",
        ),
    ];
    for (text, head_only, body, kept, left) in table {
        let seen = whole(text, head_only, false);
        assert_eq!(seen.fault, None, "{text}");
        assert_eq!(String::from_utf8_lossy(&seen.body), body, "{text}");
        let taken = text.len() - left.len();
        assert_eq!(seen.done, Some((taken, kept)), "{text}");
        assert!(!seen.fields.iter().any(|field| field.starts_with("Link")));
    }
}

#[test]
fn what_has_no_length_ends_with_the_connection_and_nothing_else_does() {
    let text = "HTTP/1.1 200 OK\r\n\r\nabc";
    assert_eq!(whole(text, false, false).done, None);
    let seen = whole(text, false, true);
    assert_eq!(
        (seen.body.as_slice(), seen.done),
        (&b"abc"[..], Some((text.len(), false)))
    );
    for cut in [
        "",
        "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let seen = whole(cut, false, true);
        assert_eq!(seen.done, None, "{cut}");
        assert!(
            seen.fault.is_some_and(|why| why.contains("closed")),
            "{cut}"
        );
    }
}

#[test]
fn what_is_malformed_or_ambiguous_is_an_error() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\nab");
    let two = |fields: &[&str]| {
        head(
            &fields
                .iter()
                .map(|f| format!("{f}\r\n"))
                .collect::<String>(),
        )
    };
    let table = [
        two(&["Content-Length: 2", "Transfer-Encoding: chunked"]),
        two(&["Content-Length: 2", "Content-Length: 3"]),
        two(&["Content-Length: 2", "Content-Length: 2"]),
        two(&["Content-Length: 2, 2"]),
        two(&["Content-Length: +2"]),
        two(&["Content-Length: "]),
        two(&["Content-Length: 99999999999999999999"]),
        two(&["Transfer-Encoding: gzip, chunked"]),
        two(&["Transfer-Encoding: chunked, chunked"]),
        two(&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]),
        two(&["Transfer-Encoding: xchunked"]),
        two(&["Transfer-Encoding: identity"]),
        two(&["A: b", " folded"]),
        two(&["A : b"]),
        two(&["A b: c"]),
        two(&["A: b\rc"]),
        two(&["A: b\0c"]),
        two(&["no colon"]),
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nab".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.2 200 OK\r\n\r\n".to_owned(),
        "\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1  200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 20 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 000 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 O\rK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 O\0K\r\n\r\n".to_owned(),
        "220 mail ESMTP\r\n\r\n".to_owned(),
        "<html>\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned(),
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(33),
        head("Transfer-Encoding: chunked\r\n").replace("\r\nab", "\r\n5x\r\nab"),
        head("Transfer-Encoding: chunked\r\n").replace("\r\nab", "\r\n1\r\nab\r\n"),
        head("Transfer-Encoding: chunked\r\n").replace("\r\nab", "\r\n1\nab\r\n"),
        head(&"A: b\r\n".repeat(257)),
        head(&format!("A: {}\r\n", "b".repeat(MAX_HEAD))),
    ];
    for text in table {
        let seen = whole(&text, false, false);
        let shown = &text[..text.len().min(200)];
        assert!(seen.fault.is_some(), "{shown}: {seen:?}");
        assert_eq!(seen.done, None, "{shown}");
    }
}

#[test]
fn fields_of_the_connection_are_not_passed_on() {
    let text = "HTTP/1.1 200 OK\r\nConnection: X-A, keep-alive, Content-Type, x-c\r\nX-a: 1\r\nContent-Type: text/x\r\nKeep-Alive: 5\r\n\
                Upgrade: h2c\r\nTrailer: x\r\nProxy-Authenticate: x\r\nX-B: \u{fc}\r\nX-C: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
                Content-Length: 0\r\n\r\n";
    let fields = whole(text, false, false).fields;
    let expected = [
        "Content-Type: text/x",
        "X-B: \u{fc}",
        "Set-Cookie: a",
        "Set-Cookie: b",
        "Content-Length: 0",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_head_goes_into_a_response_of_ours_in_the_framing_of_its_client() {
    for (http11, expected) in [
        (
            true,
            "HTTP/1.1 404 Nicht da\r\nDate: x\r\nTransfer-Encoding: chunked\r\nServer: preforkd\r\n\r\n",
        ),
        (
            false,
            "HTTP/1.1 404 Nicht da\r\nDate: x\r\nServer: preforkd\r\nConnection: close\r\n\r\n",
        ),
    ] {
        let mut incoming = Incoming::default();
        incoming.expect(Expected::default());
        let text = b"HTTP/1.1 404 Nicht da\r\nConnection: close\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let step = incoming.advance(text, |_| {});
        assert_eq!(step, Ok((text.len(), Step::Head)));
        let mut response = Response::new(http11, false, true);
        incoming.copy_head(&mut response).unwrap();
        assert_eq!(String::from_utf8(response.take_out()).unwrap(), expected);
    }
}

#[test]
fn one_response_follows_another() {
    let mut incoming = Incoming::default();
    assert!(incoming.is_done());
    for _ in 0..2 {
        incoming.expect(Expected::default());
        assert!(!incoming.is_done() && !incoming.has_begun());
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
        let (n, step) = incoming.advance(text, |_| {}).unwrap();
        assert_eq!((step, n), (Step::Head, text.len() - 1));
        assert_eq!(incoming.advance(&text[n..], |_| {}), Ok((1, Step::Done)));
        assert!(incoming.is_done() && incoming.has_begun());
        // What nobody asked for is not taken.
        assert_eq!(incoming.advance(b"x", |_| {}), Ok((0, Step::Done)));
    }
}

/// Pieces of responses, right and wrong, in any order.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&'static [u8]> = vec![
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"X: y\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"hello",
        b" ",
        b":",
        b"\0",
    ];
    prop_oneof![
        6 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_is_the_same_however_it_is_split(
        parts in prop::collection::vec(part(), 0..8),
        cut in 1usize..20,
        head_only: bool,
        end: bool,
    ) {
        let text = parts.concat();
        let pieces: Vec<_> = text.chunks(cut).collect();
        prop_assert_eq!(read(&pieces, head_only, end), read(&[&text], head_only, end));
    }
}

/// What a response of ours becomes, with the bytes in pieces of this size; and whether the upstream has changed the protocol.
fn passed_on(bytes: &[u8], piece: usize, expected: Expected) -> (String, bool) {
    let mut incoming = Incoming::default();
    incoming.expect(expected);
    let mut response = Response::new(true, false, true);
    let mut switched = false;
    'all: for piece in bytes.chunks(piece) {
        let mut at = 0;
        loop {
            let (n, step) = incoming
                .advance(&piece[at..], |data| response.slice(data))
                .unwrap();
            at += n;
            match step {
                Step::More => break,
                Step::Interim => incoming.copy_interim(&mut response).unwrap(),
                Step::Head => incoming.copy_head(&mut response).unwrap(),
                Step::Switch => {
                    incoming.copy_switch(&mut response).unwrap();
                    switched = true;
                }
                Step::Done => {
                    for (name, value) in incoming.trailers() {
                        response.trailer(name, value);
                    }
                    response.end();
                    break 'all;
                }
            }
        }
    }
    let text = String::from_utf8(response.take_out()).unwrap();
    (text, switched)
}

#[test]
fn interim_responses_and_fields_after_the_body_are_the_same_however_they_come() {
    let bytes = b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: close\r\n\r\n\
        HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nDate: x\r\nServer: y\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n\
        0\r\nX-Sum: 1 \r\nSet-Cookie: a=b\r\nConnection: close\r\nX-B:\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nDate: x\r\nServer: y\r\nTransfer-Encoding: chunked\r\n\r\n";
    for trailers in [true, false] {
        let end = match trailers {
            true => "X-Sum: 1\r\nX-B: \r\n",
            false => "",
        };
        let expected = Expected {
            trailers,
            ..Expected::default()
        };
        for piece in 1..=bytes.len() {
            let seen = passed_on(bytes, piece, expected);
            assert_eq!(
                seen,
                (format!("{hints}{head}ab0\r\n{end}\r\n"), false),
                "{piece}"
            );
        }
    }
}

#[test]
fn a_change_of_the_protocol_is_the_same_however_it_comes() {
    let bytes = b"HTTP/1.1 101 Now\r\nUpgrade: x\r\nX-A: b\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\nHTTP/1.1 \0\n";
    let expected = Expected {
        upgrade: true,
        ..Expected::default()
    };
    let seen =
        "HTTP/1.1 101 Now\r\nX-A: b\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 \0\n";
    for piece in 1..=bytes.len() {
        assert_eq!(
            passed_on(bytes, piece, expected),
            (seen.to_owned(), true),
            "{piece}"
        );
    }
}
