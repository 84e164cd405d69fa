use std::sync::Arc;

use preforkd_http::{Connection, Event, Limits};

use super::*;

fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    let header = [1, kind, 0, 1, high, low, padding, 0];
    [&header[..], content, &vec![b'p'; padding.into()]].concat()
}

fn stdout(content: &str) -> Vec<u8> {
    record(6, content.as_bytes(), 3)
}

fn stderr(content: &str) -> Vec<u8> {
    record(7, content.as_bytes(), 1)
}

fn end() -> Vec<u8> {
    record(3, &[0; 8], 0)
}

/// What has become of a response.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is complete, with so many bytes left over; whether the connection serves on.
    Whole(usize, bool),
    /// More is needed; what the end of the connection means.
    Ended(Result<(), String>),
    Fault(String),
}

/// Reads a response in pieces: what the client gets, the text for the log, and what has become of it.
fn read(protocol: Protocol, method: &str, pieces: &[&[u8]]) -> (String, Vec<String>, Outcome) {
    let head_only = method == "HEAD";
    let mut response = Response::new(true, head_only, true);
    let mut reader = Reader::new(protocol);
    reader.expect(Expected {
        head_only,
        ..Expected::default()
    });
    let mut said = Vec::new();
    let mut outcome = None;
    for piece in pieces {
        match reader.read(piece, &mut response, true) {
            Ok(Progress::More | Progress::Switched | Progress::Judged(_)) => {}
            Ok(Progress::Done(taken)) => {
                let keeps = reader.keeps_connection();
                outcome = Some(Outcome::Whole(piece.len() - taken, keeps));
            }
            Err(fault) => outcome = Some(Outcome::Fault(fault.to_string())),
        }
        said.append(&mut reader.said());
        if outcome.is_some() {
            break;
        }
    }
    let outcome =
        outcome.unwrap_or_else(|| Outcome::Ended(reader.end().map_err(|fault| fault.to_string())));
    said.append(&mut reader.said());
    if !matches!(outcome, Outcome::Fault(_) | Outcome::Ended(Err(_))) {
        response.end();
    }
    let sent = String::from_utf8_lossy(response.piece().bytes()).into_owned();
    let lines: Vec<_> = sent
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("Date: ") && !line.starts_with("Server: "))
        .collect();
    (lines.concat(), said, outcome)
}

#[test]
fn a_response_of_cgi_is_one_of_http() {
    // What the program writes, and what the client gets.
    let table = [
        (
            "Content-Type: a/b\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        ),
        // RFC 3875 section 6.1: the system's line end.
        (
            "Status: 404 Not here\nContent-Length: 4\n\nbody",
            "HTTP/1.1 404 Not here\r\nContent-Length: 4\r\n\r\nbody",
        ),
        (
            "status: 201\r\nContent-Length: 0\r\nConnection: close\r\nKeep-Alive: 1\r\n\r\n",
            "HTTP/1.1 201 \r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "Location: https://b.example/\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: https://b.example/\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "Location: /local\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: /local\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "Status: 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "Status: 304 Same\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n",
        ),
        ("Status: 204 None\r\n\r\n", "HTTP/1.1 204 None\r\n\r\n"),
    ];
    for (written, expected) in table {
        let whole = [stdout(written), end()].concat();
        let found = read(Protocol::FastCgi, "GET", &[&whole]);
        assert_eq!(found.0, expected, "{written}");
        assert_eq!(found.2, Outcome::Whole(0, true), "{written}");
        // The same however it is cut.
        for at in 0..whole.len() {
            let split = read(Protocol::FastCgi, "GET", &[&whole[..at], &whole[at..]]);
            assert_eq!(
                (split.2, split.1),
                (Outcome::Whole(0, true), Vec::new()),
                "{written}: {at}"
            );
            let body = |text: &str| text.replace("\r\n", "").replace(char::is_numeric, "");
            assert_eq!(body(&split.0), body(&found.0), "{written}: {at}");
        }
        let scgi = read(Protocol::Scgi, "GET", &[written.as_bytes()]);
        assert_eq!(
            (&*scgi.0, scgi.2),
            (expected, Outcome::Ended(Ok(()))),
            "{written}"
        );
    }
}

#[test]
fn a_head_that_is_not_valid_is_a_fault_with_a_reason() {
    let long = format!("X: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("{}\r\n", "X: y\r\n".repeat(preforkd_http::MOST_FIELDS + 1));
    for (head, why) in [
        ("\r\n", "the head of the response is empty"),
        ("no colon\r\n\r\n", "a line of the head has no colon"),
        (
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            "a line of the head has no colon",
        ),
        (
            "A: b\r\n folded: c\r\n\r\n",
            "the response has an invalid header field",
        ),
        ("A : b\r\n\r\n", "the response has an invalid header field"),
        (": b\r\n\r\n", "the response has an invalid header field"),
        (
            "A: b\rC: d\r\n\r\n",
            "the response has an invalid header field",
        ),
        ("A: b\0\r\n\r\n", "the response has an invalid header field"),
        (
            "Status: abc\r\n\r\n",
            "the status is not three digits and a reason",
        ),
        (
            "Status: 100 Continue\r\n\r\n",
            "the status is not three digits and a reason",
        ),
        (
            "Status: 101 Switch\r\n\r\n",
            "the status is not three digits and a reason",
        ),
        (
            "Status: 200 OK\r\nStatus: 404 No\r\n\r\n",
            "there is more than one status",
        ),
        (
            "Content-Length: +1\r\n\r\n",
            "Content-Length is not a number",
        ),
        (
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "there is more than one Content-Length",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding in a response of CGI",
        ),
        (&many, "the response has too many header fields"),
    ] {
        let (sent, _, outcome) = read(Protocol::FastCgi, "GET", &[&stdout(head), &end()]);
        assert_eq!(
            (&*sent, outcome),
            ("", Outcome::Fault(why.into())),
            "{head:.60}"
        );
    }
    let (_, _, outcome) = read(Protocol::Scgi, "GET", &[long.as_bytes()]);
    assert_eq!(
        outcome,
        Outcome::Fault("the head of the response is too long".into())
    );
    let (_, _, outcome) = read(Protocol::Scgi, "GET", &[b"HTTP/1.12 200 OK\r\n\r\n"]);
    assert_eq!(
        outcome,
        Outcome::Fault("the status line is malformed".into())
    );
}

#[test]
fn a_response_of_scgi_may_begin_with_a_status_line() {
    let text = b"HTTP/1.0 404 Not Found\r\nContent-Length: 1\r\n\r\nx";
    let (sent, _, outcome) = read(Protocol::Scgi, "GET", &[text]);
    assert_eq!(sent, "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(outcome, Outcome::Ended(Ok(())));
}

#[test]
fn bodies_of_all_sizes_are_complete() {
    for size in [
        0, 1, 7, 8, 4096, 8184, 65_534, 65_535, 65_536, 131_070, 300_000,
    ] {
        let body: Vec<u8> = (0..size).map(|n| n as u8).collect();
        for padding in [0, 1, 7, 255] {
            let head = format!("Content-Length: {size}\r\n\r\n");
            let text = [head.as_bytes(), &body].concat();
            let mut bytes = Vec::new();
            for part in text.chunks(65_535) {
                bytes.extend(record(6, part, padding));
            }
            bytes.extend(record(6, b"", padding));
            bytes.extend(record(3, &[0, 0, 0, 1, 0, 0, 0, 0], padding));
            // A response to HEAD, too, is read to its end.
            for (method, expected) in [("GET", size), ("HEAD", 0)] {
                let pieces: Vec<_> = bytes.chunks(4099).collect();
                let mut response = Response::new(true, method == "HEAD", true);
                let mut reader = Reader::new(Protocol::FastCgi);
                reader.expect(Expected {
                    head_only: method == "HEAD",
                    ..Expected::default()
                });
                let mut done = None;
                for (at, piece) in pieces.iter().enumerate() {
                    let read = reader.read(piece, &mut response, true).unwrap();
                    let is_done = matches!(read, Progress::Done(_));
                    done = done.or(is_done.then_some(at));
                }
                response.end();
                assert_eq!(done, Some(pieces.len() - 1), "{size} {padding}");
                assert!(reader.keeps_connection());
                let sent = response.piece();
                let at = sent
                    .bytes()
                    .windows(4)
                    .position(|w| w == b"\r\n\r\n")
                    .unwrap()
                    + 4;
                assert_eq!(&sent.bytes()[at..], &body[..expected], "{size} {padding}");
            }
        }
    }
}

#[test]
fn standard_error_is_for_the_log_wherever_it_comes() {
    let said = ["PHP message: one".to_owned(), "two".to_owned()];
    for pieces in [
        [
            stderr("PHP message: one\ntwo"),
            stdout("A: b\r\nContent-Length: 1\r\n\r\nx"),
            end(),
        ],
        [
            stdout("A: b\r\nContent-Length: 1\r\n\r\nx"),
            stderr("PHP message: one\ntwo\n"),
            end(),
        ],
        [
            stderr("PHP mess"),
            [
                stdout("A: b\r\nConte"),
                stderr("age: one\n"),
                stdout("nt-Length: 1\r\n\r\nx"),
            ]
            .concat(),
            [stderr("two\n"), record(7, b"", 0), end()].concat(),
        ],
    ] {
        let pieces: Vec<_> = pieces.iter().map(|piece| &piece[..]).collect();
        let (sent, lines, outcome) = read(Protocol::FastCgi, "GET", &pieces);
        assert_eq!(
            sent,
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\n\r\nx"
        );
        assert_eq!((&lines[..], outcome), (&said[..], Outcome::Whole(0, true)));
    }
    // Much of it is no head that is too long, and not all of it is logged.
    let much = record(7, &[b'x'; 65_535], 0).repeat(3);
    let all = [much, stdout("A: b\r\n\r\n"), end()].concat();
    let (sent, lines, outcome) = read(Protocol::FastCgi, "GET", &[&all]);
    assert!(sent.starts_with("HTTP/1.1 200 OK") && outcome == Outcome::Whole(0, true));
    assert!(lines.iter().map(String::len).sum::<usize>() < 70_000);
}

#[test]
fn what_breaks_off_or_contradicts_itself_is_not_complete() {
    let head = "Content-Length: 5\r\n\r\n";
    let fault = |why: &str| Outcome::Fault(why.into());
    let ended = |why: &str| Outcome::Ended(Err(why.into()));
    let table: Vec<(Vec<u8>, Outcome)> = vec![
        (
            Vec::new(),
            ended("it closed the connection before the end of the request"),
        ),
        (
            stdout("A: b\r\n"),
            ended("it closed the connection before the end of the request"),
        ),
        (
            stdout("A: b\r\n\r\nabc"),
            ended("it closed the connection before the end of the request"),
        ),
        (
            [stdout("A: b\r\n"), end()].concat(),
            fault("it ended within the head of the response"),
        ),
        (end(), fault("it ended without a response")),
        (
            [stdout(head), stdout("abcd"), end()].concat(),
            fault("the response is shorter than its Content-Length"),
        ),
        // All is there that was announced.
        (
            [stdout(head), stdout("abcde")].concat(),
            Outcome::Ended(Ok(())),
        ),
        (
            [stdout("A: b\r\n\r\nabc"), stdout("")].concat(),
            Outcome::Ended(Ok(())),
        ),
        // What goes on behind it does not reach the client, and no request follows on that connection.
        (
            [stdout(head), stdout("abcdefgh"), end()].concat(),
            Outcome::Whole(0, false),
        ),
        (
            [stdout("A: b\r\n\r\n"), end(), stdout("x")].concat(),
            Outcome::Whole(12, true),
        ),
        (
            [stdout("A: b\r\n\r\n"), stdout(""), stdout("x")].concat(),
            fault("it goes on after the end of the response"),
        ),
        (
            [
                stdout("A: b\r\n\r\n"),
                record(3, &[0, 0, 0, 0, 2, 0, 0, 0], 0),
            ]
            .concat(),
            fault("it is overloaded, as it says"),
        ),
        (
            record(3, &[0, 0, 0, 0, 1, 0, 0, 0], 0),
            fault("it takes one request at a time on a connection"),
        ),
        (
            record(3, &[0, 0, 0, 0, 3, 0, 0, 0], 0),
            fault("it does not take the role of a responder"),
        ),
        (
            record(3, &[0; 7], 0),
            fault("the last record of FastCGI has a wrong length"),
        ),
        (
            record(11, &[0; 8], 0),
            fault("a record of FastCGI has an unexpected type"),
        ),
        (
            vec![1, 6, 0, 2, 0, 0, 0, 0],
            fault("a record of FastCGI is for another request"),
        ),
        (b"HTTP/1.1".to_vec(), fault("it does not speak FastCGI 1")),
    ];
    for (bytes, expected) in table {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (sent, _, outcome) = read(Protocol::FastCgi, "GET", &[&bytes]);
        assert_eq!(outcome, expected, "{text:?}");
        assert!(!sent.contains("fgh"), "{text:?}");
    }
    for (text, why) in [
        ("", "it ended without a response"),
        ("A: b\r\n", "it ended within the head of the response"),
        (
            "Content-Length: 5\r\n\r\nabcd",
            "the response is shorter than its Content-Length",
        ),
    ] {
        let (_, _, outcome) = read(Protocol::Scgi, "GET", &[text.as_bytes()]);
        assert_eq!(outcome, ended(why), "{text}");
    }
}

/// A request on its way to an upstream.
fn written(protocol: Protocol, request: &str, passing: Passing<'_>) -> Result<Vec<u8>, Refused> {
    let mut connection = Connection::new(Arc::new(Limits {
        max_head: 200_000,
        ..Limits::default()
    }));
    connection.receive(request.as_bytes());
    assert_eq!(connection.advance(), Event::Request, "{request:.80}");
    let origin = Origin {
        listener: 0,
        peer: Some(([10, 1, 2, 3], 4567).into()),
        relayed: None,
    };
    connection.take_body().unwrap();
    let mut out = Vec::new();
    write(
        protocol,
        &mut out,
        connection.request(),
        &origin,
        passing,
        false,
    )?;
    Ok(out)
}

/// Variables out of records of FastCGI, without those that are always the same.
fn variables(request: &str, passing: Passing<'_>) -> Vec<(String, String)> {
    let out = written(Protocol::FastCgi, request, passing).unwrap();
    let (mut pairs, mut rest) = (Vec::new(), &out[16..]);
    while let [1, 4, 0, 1, high, low, 0, 0, more @ ..] = rest {
        let n = usize::from(u16::from_be_bytes([*high, *low]));
        pairs.extend_from_slice(&more[..n]);
        rest = &more[n..];
    }
    assert!(rest.is_empty());
    let mut rest = &pairs[..];
    let length = |rest: &mut &[u8]| match **rest {
        [short @ 0..=127, ref more @ ..] => {
            *rest = more;
            usize::from(short)
        }
        [a, b, c, d, ref more @ ..] => {
            *rest = more;
            (u32::from_be_bytes([a, b, c, d]) & !(1 << 31)) as usize
        }
        _ => panic!("no length"),
    };
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (name, value) = (length(&mut rest), length(&mut rest));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.push((text(&rest[..name]), text(&rest[name..name + value])));
        rest = &rest[name + value..];
    }
    found
}

fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut all = variables.iter().filter(|(known, _)| known == name);
    let found = all.next().map(|(_, value)| &**value);
    assert!(all.next().is_none(), "{name} is there twice");
    found
}

#[test]
fn a_request_is_its_variables() {
    let script = Script {
        root: b"/srv/www".to_vec(),
        name: b"/a/x.php".to_vec(),
        info: b"/in fo".to_vec(),
    };
    let request = "POST /p/a/x.php/in%20fo?q=%41&b HTTP/1.1\r\nHost: A.example:8080\r\nContent-Type: t/t\r\nContent-Length: 2\r\n\
        Cookie: a=1\r\nCookie: b=2\r\nX-Two: 1\r\nx-two: 2\r\nProxy: http://evil\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
        X.Two: dot\r\nX_Two: line\r\nX!Two: !\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nAuthorization: Basic x\r\n\
        PHP-VALUE: auto_prepend_file=x\r\n\r\nab";
    let outgoing = Outgoing {
        strip: 2,
        ..Outgoing::default()
    };
    let found = variables(
        request,
        Passing {
            outgoing,
            script: Some(&script),
            ..Passing::default()
        },
    );
    for (name, expected) in [
        ("SCRIPT_FILENAME", Some("/srv/www/a/x.php")),
        ("DOCUMENT_ROOT", Some("/srv/www")),
        ("SCRIPT_NAME", Some("/p/a/x.php")),
        ("PATH_INFO", Some("/in fo")),
        ("DOCUMENT_URI", Some("/p/a/x.php/in fo")),
        ("REQUEST_URI", Some("/p/a/x.php/in%20fo?q=%41&b")),
        ("QUERY_STRING", Some("q=%41&b")),
        ("REQUEST_METHOD", Some("POST")),
        ("SERVER_PROTOCOL", Some("HTTP/1.1")),
        ("SERVER_NAME", Some("A.example")),
        ("SERVER_PORT", Some("8080")),
        ("REMOTE_ADDR", Some("10.1.2.3")),
        ("REMOTE_PORT", Some("4567")),
        ("CONTENT_TYPE", Some("t/t")),
        ("CONTENT_LENGTH", Some("2")),
        ("HTTPS", None),
        ("REDIRECT_STATUS", Some("200")),
        ("HTTP_HOST", Some("A.example:8080")),
        ("HTTP_COOKIE", Some("a=1; b=2")),
        ("HTTP_X_TWO", Some("1, 2")),
        ("HTTP_AUTHORIZATION", Some("Basic x")),
        ("HTTP_PHP_VALUE", Some("auto_prepend_file=x")),
        ("PHP_VALUE", None),
        ("HTTP_PROXY", None),
        ("HTTP_X_FORWARDED_FOR", None),
        ("HTTP_X_REAL_IP", None),
        ("HTTP_X_HOP", None),
        ("HTTP_TE", None),
        ("HTTP_CONNECTION", None),
        ("HTTP_CONTENT_TYPE", None),
        ("HTTP_CONTENT_LENGTH", None),
        ("HTTP_X!TWO", None),
        ("HTTP_X.TWO", None),
    ] {
        assert_eq!(value(&found, name), expected, "{name}");
    }
    let https = Outgoing {
        https: true,
        ..Outgoing::default()
    };
    let found = variables("GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", https.into());
    for (name, expected) in [
        ("HTTPS", Some("on")),
        ("SERVER_PORT", Some("443")),
        ("SCRIPT_NAME", Some("")),
        ("PATH_INFO", Some("/a/b")),
        ("SCRIPT_FILENAME", None),
        ("CONTENT_LENGTH", None),
    ] {
        assert_eq!(value(&found, name), expected, "{name}");
    }
}

#[test]
fn variables_may_be_long_and_lie_in_several_records() {
    for length in [0, 127, 128, 65_000, 65_535, 65_536, 150_000] {
        let long = "x".repeat(length);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\nX-Last: y\r\n\r\n");
        let found = variables(&request, Passing::default());
        assert_eq!(value(&found, "HTTP_X_LONG"), Some(&*long), "{length}");
        assert_eq!(value(&found, "HTTP_X_LAST"), Some("y"), "{length}");
        let uwsgi = written(Protocol::Uwsgi, &request, Passing::default());
        assert_eq!(uwsgi.is_ok(), length <= 65_000, "{length}");
    }
}

#[test]
fn a_path_with_a_nul_cannot_be_said() {
    for protocol in [Protocol::FastCgi, Protocol::Scgi, Protocol::Uwsgi] {
        let out = written(
            protocol,
            "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
            Passing::default(),
        );
        assert_eq!(out, Err(Refused::Nul));
    }
}

#[test]
fn a_request_without_a_body_has_an_empty_one() {
    let body = upload(Protocol::FastCgi, Body::default(), 0);
    assert_eq!(body.length(), 8);
    assert_eq!(upload(Protocol::Http, Body::default(), 0).length(), 0);
    let out = written(
        Protocol::Scgi,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Passing::default(),
    );
    let text = String::from_utf8(out.unwrap()).unwrap();
    let (length, rest) = text.split_once(':').unwrap();
    assert_eq!(length.parse(), Ok(rest.len() - 1));
    assert!(rest.starts_with("CONTENT_LENGTH\x000\0SCGI\x001\0") && rest.ends_with(','));
}

proptest::proptest! {
    /// Whatever comes, in whatever pieces: no panic, and the same end.
    #[test]
    fn any_bytes_in_any_pieces_have_one_meaning(
        parts in proptest::collection::vec((0_u8..9, "[A-Za-z:\\r\\n 0-9]{0,20}", 0_u8..3), 0..6),
        cut in 0_usize..200,
    ) {
        let mut bytes = Vec::new();
        for (kind, text, padding) in parts {
            bytes.extend(match kind {
                3 => end(),
                0 => text.into_bytes(),
                kind => record(if kind > 5 { 6 } else { kind }, text.as_bytes(), padding),
            });
        }
        let cut = cut.min(bytes.len());
        let (_, said, whole) = read(Protocol::FastCgi, "GET", &[&bytes]);
        let (_, said_in_two, in_two) = read(Protocol::FastCgi, "GET", &[&bytes[..cut], &bytes[cut..]]);
        let same = match (&whole, &in_two) {
            (Outcome::Whole(left, keeps), Outcome::Whole(_, other)) => keeps == other && *left <= bytes.len(),
            (one, other) => one == other,
        };
        proptest::prop_assert!(same, "{:?} {:?}", whole, in_two);
        proptest::prop_assert_eq!(said, said_in_two);
    }
}
