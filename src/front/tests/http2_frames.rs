//! HTTP/2 by hand: what the library of a client would not send, and what the cases of h2spec are about.

mod common;
mod http2;

use std::io::Write;

use common::{Front, OK, front, upstream};
use http2::*;

/// A server whose upstream is never asked.
fn server() -> (Front, common::Upstream) {
    let (upstream, address) = upstream();
    (front(vec![address], |_| {}), upstream)
}

/// GET without the fields of these names, and with these.
fn get_with<'a>(without: &[&str], with: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields: Vec<_> = GET
        .into_iter()
        .filter(|(name, _)| !without.contains(name))
        .collect();
    fields.extend(with);
    fields
}

#[test]
fn malformed_requests_reach_nobody() {
    let (front, upstream) = server();
    let cases: &[Vec<(&str, &str)>] = &[
        // RFC 9113 section 8.2: names.
        get_with(&[], &[("X-A", "b")]),
        get_with(&[], &[("x a", "b")]),
        get_with(&[], &[("x\ra", "b")]),
        get_with(&[], &[("", "b")]),
        get_with(&[], &[("x:", "b")]),
        // Values.
        get_with(&[], &[("x", "a\rb")]),
        get_with(&[], &[("x", "a\nb")]),
        get_with(&[], &[("x", "a\r\nhost: evil")]),
        get_with(&[], &[("x", "a\0b")]),
        get_with(&[], &[("x", " a")]),
        get_with(&[], &[("x", "a\t")]),
        // Fields of one connection (section 8.2.2).
        get_with(&[], &[("connection", "keep-alive")]),
        get_with(&[], &[("keep-alive", "1")]),
        get_with(&[], &[("proxy-connection", "x")]),
        get_with(&[], &[("transfer-encoding", "chunked")]),
        get_with(&[], &[("upgrade", "h2c")]),
        get_with(&[], &[("te", "trailers, deflate")]),
        // Pseudo-header fields (section 8.3).
        get_with(&[], &[(":unknown", "x")]),
        get_with(&[], &[(":status", "200")]),
        get_with(&[":method"], &[]),
        get_with(&[":scheme"], &[]),
        get_with(&[":path"], &[]),
        get_with(&[":path"], &[(":path", "")]),
        get_with(&[":path"], &[(":path", "a")]),
        get_with(&[":path"], &[(":path", "http://b/")]),
        get_with(&[":path"], &[(":path", "/a b")]),
        get_with(&[":path"], &[(":path", "/ HTTP/1.1\r\nx: y")]),
        get_with(&[":scheme"], &[(":scheme", "ftp")]),
        get_with(&[], &[(":method", "GET")]),
        get_with(&[], &[(":path", "/")]),
        get_with(&[], &[("x", "y"), (":authority", "a.example")]),
        get_with(&[":method"], &[(":method", "G T")]),
        get_with(&[":authority"], &[(":authority", "a\r\nx: y")]),
        // Two hosts (section 8.3.1).
        get_with(&[], &[("host", "b.example")]),
        get_with(&[":authority"], &[("host", "a"), ("host", "b")]),
        // A length that is not that of the body, which is empty (section 8.1.1).
        get_with(&[], &[("content-length", "5")]),
        get_with(&[], &[("content-length", "0"), ("content-length", "1")]),
        get_with(&[], &[("content-length", "+0")]),
    ];
    for fields in cases {
        let mut raw = Raw::new(front.address());
        raw.headers(1, fields, true);
        let answer = raw.find(|frame| {
            frame.reset().is_some() || frame.goaway().is_some() || frame.kind == HEADERS
        });
        match answer.reset().or(answer.goaway().map(|(_, error)| error)) {
            Some(error) => {
                let errors = [PROTOCOL_ERROR, COMPRESSION_ERROR];
                assert!(errors.contains(&error), "{fields:?}: {error}");
            }
            // What the library takes for a request all the same the parser refuses: 400 in the static table.
            None => assert_eq!(answer.payload[0], 0x8c, "{fields:?}"),
        }
    }
    assert!(upstream.is_unused());
}

#[test]
fn a_malformed_request_is_reset_and_the_connection_goes_on() {
    let (front, upstream) = server();
    let mut raw = Raw::new(front.address());
    let cases = [("x", " a"), ("te", "gzip"), ("host", "b"), ("upgrade", "x")];
    for (number, field) in cases.into_iter().enumerate() {
        let stream = 2 * number as u32 + 1;
        raw.headers(stream, &get_with(&[], &[field]), true);
        let reset = raw.find(|frame| frame.stream == stream);
        assert_eq!(reset.reset(), Some(PROTOCOL_ERROR), "{field:?}");
    }
    raw.headers(9, &GET, true);
    let (mut peer, _) = upstream.request();
    peer.write(OK);
    let head = raw.find(|frame| frame.stream == 9 && frame.kind == HEADERS);
    assert_eq!(head.payload[0], 0x88);
}

#[test]
fn a_body_that_is_not_as_long_as_it_was_said_is_reset() {
    let (front, upstream) = server();
    let mut raw = Raw::new(front.address());
    for (number, (length, pieces)) in [
        ("3", &["ab"][..]),
        ("3", &["abcd"]),
        ("3", &["ab", "cd"]),
        ("0", &["a"]),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = 2 * number as u32 + 1;
        let fields = [(":method", "POST"), ("content-length", length)];
        raw.headers(stream, &get_with(&[":method"], &fields), false);
        for (at, piece) in pieces.iter().enumerate() {
            let ends = at + 1 == pieces.len();
            raw.send(DATA, if ends { END_STREAM } else { 0 }, stream, *piece);
        }
        let reset = raw.find(|frame| frame.stream == stream);
        assert_eq!(reset.reset(), Some(PROTOCOL_ERROR), "{length} {pieces:?}");
    }
    assert!(upstream.is_unused());
}

#[test]
fn what_breaks_the_connection_ends_it_with_the_right_error() {
    // Numbers of sections of RFC 9113.
    let head = || block(&GET);
    let cases: Vec<(&str, Vec<Frame>, &[u32])> = vec![
        (
            "4.1: an unknown frame is left out",
            vec![Frame::new(0x16, 0, 0, "x"), Frame::new(DATA, 0, 0, "")],
            &[PROTOCOL_ERROR],
        ),
        (
            "4.2: a frame that is too large",
            vec![
                Frame::new(HEADERS, 5, 1, head()),
                Frame::new(DATA, 0, 1, vec![0; 16385]),
            ],
            &[FRAME_SIZE_ERROR],
        ),
        (
            "4.3: a header block that is none",
            vec![Frame::new(HEADERS, 5, 1, [0xff; 16])],
            &[COMPRESSION_ERROR, PROTOCOL_ERROR],
        ),
        (
            "4.3: another frame within a header block",
            vec![
                Frame::new(HEADERS, 1, 1, head()),
                Frame::new(PING, 0, 0, [0; 8]),
            ],
            &[PROTOCOL_ERROR],
        ),
        (
            "5.1: DATA on a stream that is idle",
            vec![Frame::new(DATA, 0, 1, "x")],
            &[PROTOCOL_ERROR],
        ),
        (
            "5.1: RST_STREAM on a stream that is idle",
            vec![Frame::new(RST_STREAM, 0, 1, [0; 4])],
            &[PROTOCOL_ERROR],
        ),
        (
            "5.1: WINDOW_UPDATE on a stream that is idle",
            vec![Frame::new(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1])],
            &[PROTOCOL_ERROR],
        ),
        (
            "5.1: CONTINUATION on a stream that is idle",
            vec![Frame::new(CONTINUATION, 4, 1, head())],
            &[PROTOCOL_ERROR],
        ),
        (
            "5.1.1: a stream with an even number",
            vec![Frame::new(HEADERS, 5, 2, head())],
            &[PROTOCOL_ERROR],
        ),
        (
            "5.1.1: a number that is lower than an earlier one",
            vec![
                Frame::new(HEADERS, 5, 5, head()),
                Frame::new(HEADERS, 5, 3, head()),
            ],
            &[PROTOCOL_ERROR, STREAM_CLOSED],
        ),
        (
            "6.1: DATA on the connection",
            vec![Frame::new(DATA, 0, 0, "x")],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.1: more padding than payload",
            vec![
                Frame::new(HEADERS, 4, 1, head()),
                Frame::new(DATA, PADDED, 1, [9, 0]),
            ],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.2: HEADERS on the connection",
            vec![Frame::new(HEADERS, 5, 0, head())],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.2: more padding than payload",
            vec![Frame::new(HEADERS, 5 | PADDED, 1, [200, 0])],
            &[PROTOCOL_ERROR, FRAME_SIZE_ERROR],
        ),
        (
            "6.4: RST_STREAM on the connection",
            vec![Frame::new(RST_STREAM, 0, 0, [0; 4])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.4: RST_STREAM of another size",
            vec![
                Frame::new(HEADERS, 4, 1, head()),
                Frame::new(RST_STREAM, 0, 1, [0; 3]),
            ],
            &[FRAME_SIZE_ERROR],
        ),
        (
            "6.5: SETTINGS on a stream",
            vec![Frame::new(SETTINGS, 0, 1, "")],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.5: SETTINGS of another size",
            vec![Frame::new(SETTINGS, 0, 0, [0; 5])],
            &[FRAME_SIZE_ERROR],
        ),
        (
            "6.5: an acknowledgement with a payload",
            vec![Frame::new(SETTINGS, ACK, 0, [0; 6])],
            &[FRAME_SIZE_ERROR],
        ),
        (
            "6.5.2: ENABLE_PUSH of 2",
            vec![Frame::new(SETTINGS, 0, 0, [0, 2, 0, 0, 0, 2])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.5.2: INITIAL_WINDOW_SIZE above the most",
            vec![Frame::new(SETTINGS, 0, 0, [0, 4, 128, 0, 0, 0])],
            &[FLOW_CONTROL_ERROR],
        ),
        (
            "6.5.2: MAX_FRAME_SIZE below the least",
            vec![Frame::new(SETTINGS, 0, 0, [0, 5, 0, 0, 63, 255])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.5.2: MAX_FRAME_SIZE above the most",
            vec![Frame::new(SETTINGS, 0, 0, [0, 5, 1, 0, 0, 0])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.6: PUSH_PROMISE of a client",
            vec![Frame::new(5, 4, 1, [0, 0, 0, 2, 0x82])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.7: PING on a stream",
            vec![Frame::new(PING, 0, 1, [0; 8])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.7: PING of another size",
            vec![Frame::new(PING, 0, 0, [0; 6])],
            &[FRAME_SIZE_ERROR],
        ),
        (
            "6.8: GOAWAY on a stream",
            vec![Frame::new(GOAWAY, 0, 1, [0; 8])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.9: WINDOW_UPDATE of nothing",
            vec![Frame::new(WINDOW_UPDATE, 0, 0, [0; 4])],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.9: WINDOW_UPDATE of another size",
            vec![Frame::new(WINDOW_UPDATE, 0, 0, [0; 3])],
            &[FRAME_SIZE_ERROR],
        ),
        (
            "6.9.1: a window above the most",
            vec![
                Frame::new(WINDOW_UPDATE, 0, 0, [127, 255, 255, 255]),
                Frame::new(WINDOW_UPDATE, 0, 0, [127, 255, 255, 255]),
            ],
            &[FLOW_CONTROL_ERROR],
        ),
        (
            "6.10: CONTINUATION after the end of its block",
            vec![
                Frame::new(HEADERS, 5, 1, head()),
                Frame::new(CONTINUATION, 4, 1, ""),
            ],
            &[PROTOCOL_ERROR],
        ),
        (
            "6.10: CONTINUATION on another stream",
            vec![
                Frame::new(HEADERS, 1, 1, head()),
                Frame::new(CONTINUATION, 4, 3, ""),
            ],
            &[PROTOCOL_ERROR],
        ),
    ];
    for (case, frames, errors) in cases {
        let (front, _upstream) = server();
        let mut raw = Raw::new(front.address());
        for frame in &frames {
            // The end may come before the last frame.
            raw.try_send(frame);
        }
        let error = raw.ends_with().expect("GOAWAY");
        // The general error is never wrong (section 7).
        let is_right = errors.contains(&error) || error == PROTOCOL_ERROR;
        assert!(is_right, "{case}: {error}");
    }
}

#[test]
fn what_is_allowed_is_served() {
    let head = || block(&GET);
    let (first, rest) = (head()[..10].to_vec(), head()[10..].to_vec());
    let padded = [&[3][..], &head(), &[0; 3]].concat();
    let with_priority = [&[0, 0, 0, 0, 200][..], &head()].concat();
    let cases: Vec<(&str, Vec<Frame>)> = vec![
        (
            "6.2: padding",
            vec![Frame::new(HEADERS, 5 | PADDED, 1, padded)],
        ),
        (
            "6.2: a priority",
            vec![Frame::new(HEADERS, 5 | PRIORITY, 1, with_priority)],
        ),
        (
            "6.3: PRIORITY on a stream that is idle",
            vec![
                Frame::new(2, 0, 1, [0, 0, 0, 0, 16]),
                Frame::new(HEADERS, 5, 1, head()),
            ],
        ),
        (
            "6.10: CONTINUATION",
            vec![
                Frame::new(HEADERS, 1, 1, first),
                Frame::new(CONTINUATION, 4, 1, rest),
            ],
        ),
        (
            "6.5.2: an unknown setting",
            vec![
                Frame::new(SETTINGS, 0, 0, [0, 99, 0, 0, 0, 1]),
                Frame::new(HEADERS, 5, 1, head()),
            ],
        ),
        (
            "5.5: an unknown frame on a stream",
            vec![
                Frame::new(HEADERS, 4, 1, head()),
                Frame::new(0x42, 0xff, 1, "x"),
                Frame::new(DATA, 1, 1, ""),
            ],
        ),
        (
            "8.1: trailers",
            vec![
                Frame::new(HEADERS, 4, 1, head()),
                Frame::new(DATA, 0, 1, "x"),
                Frame::new(HEADERS, 5, 1, block(&[("x-end", "1")])),
            ],
        ),
    ];
    for (case, frames) in cases {
        let (front, upstream) = server();
        let mut raw = Raw::new(front.address());
        for frame in frames {
            raw.stream.write_all(&frame.bytes()).unwrap();
        }
        let (mut peer, request) = upstream.request();
        assert!(
            request.starts_with("GET / HTTP/1.1\r\nHost: a.example\r\n"),
            "{case}: {request}"
        );
        peer.write(OK);
        raw.find(|frame| frame.stream == 1 && frame.kind == HEADERS);
        let data = raw.find(|frame| frame.kind == DATA);
        assert_eq!(
            (&*data.payload, data.flags),
            (&b"ok"[..], END_STREAM),
            "{case}"
        );
    }
}

#[test]
fn a_window_is_kept_to_whatever_its_size() {
    let (front, upstream) = server();
    // 4: INITIAL_WINDOW_SIZE.
    let mut raw = Raw::with(front.address(), &[(4, 1)]);
    raw.headers(1, &GET, true);
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde");
    let data = |raw: &mut Raw| {
        let frame = raw.find(|frame| frame.kind == DATA);
        String::from_utf8(frame.payload).unwrap()
    };
    assert_eq!(data(&mut raw), "a");
    raw.send(WINDOW_UPDATE, 0, 1, [0, 0, 0, 2]);
    assert_eq!(data(&mut raw), "bc");
    // Two more, of which both were used before: nothing comes.
    raw.settings(&[(4, 3)]);
    assert_eq!(data(&mut raw), "de");
}

/// Writes until the other side ends; the error of its GOAWAY.
fn flood(raw: &mut Raw, mut frame: impl FnMut(u32) -> Vec<Frame>) -> Option<u32> {
    let mut sender = raw.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| raw.ends_with());
        for number in 0..1_000_000 {
            let bytes: Vec<u8> = frame(number).iter().flat_map(Frame::bytes).collect();
            if sender.write_all(&bytes).is_err() {
                return reader.join().unwrap();
            }
        }
        panic!("a flood without an end")
    })
}

#[test]
fn floods_end_the_connection_and_nothing_else() {
    type Frames = Box<dyn FnMut(u32) -> Vec<Frame>>;
    let head = || block(&GET);
    let cases: Vec<(&str, Frames)> = vec![
        (
            "PING",
            Box::new(|_| vec![Frame::new(PING, 0, 0, [0; 8]); 100]),
        ),
        (
            "SETTINGS",
            Box::new(|_| vec![Frame::new(SETTINGS, 0, 0, ""); 100]),
        ),
        (
            "PRIORITY",
            Box::new(|_| vec![Frame::new(2, 0, 1, [0, 0, 0, 0, 16]); 100]),
        ),
        (
            "unknown",
            Box::new(|_| vec![Frame::new(0x42, 0, 0, ""); 100]),
        ),
        (
            "WINDOW_UPDATE",
            Box::new(|_| vec![Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]); 100]),
        ),
        (
            "rapid reset",
            Box::new(move |number| {
                let stream = 2 * number + 1;
                vec![
                    Frame::new(HEADERS, 5, stream, block(&GET)),
                    Frame::new(RST_STREAM, 0, stream, [0, 0, 0, 8]),
                ]
            }),
        ),
        (
            "malformed requests",
            Box::new(move |number| {
                let fields = [&GET[..], &[("x", " a")]].concat();
                vec![Frame::new(HEADERS, 5, 2 * number + 1, block(&fields))]
            }),
        ),
        (
            "CONTINUATION",
            Box::new(move |number| match number {
                0 => vec![Frame::new(HEADERS, 1, 1, block(&GET))],
                _ => vec![Frame::new(CONTINUATION, 0, 1, block(&[("x", "y")])); 10],
            }),
        ),
        (
            "empty DATA",
            Box::new(move |number| match number {
                0 => vec![Frame::new(HEADERS, 4, 1, head())],
                _ => vec![Frame::new(DATA, 0, 1, ""); 100],
            }),
        ),
        (
            "padded DATA",
            Box::new(move |number| match number {
                0 => vec![Frame::new(HEADERS, 4, 1, block(&GET))],
                _ => vec![Frame::new(DATA, PADDED, 1, [vec![255], vec![0; 255]].concat()); 10],
            }),
        ),
    ];
    for (case, frames) in cases {
        let (front, upstream) = server();
        let mut other = Raw::new(front.address());
        let mut raw = Raw::new(front.address());
        let error = flood(&mut raw, frames);
        // The GOAWAY may be lost where we still write; what ends it is not.
        let errors = [None, Some(ENHANCE_YOUR_CALM), Some(PROTOCOL_ERROR)];
        assert!(errors.contains(&error), "{case}: {error:?}");
        drop(raw);
        other.headers(1, &get_with(&[":path"], &[(":path", "/other")]), true);
        loop {
            // Requests that were cancelled may have come before it, and have left.
            let mut peer = upstream.accept();
            let head = peer.try_head();
            if head.is_some_and(|head| head.starts_with("GET /other ")) {
                break peer.write(OK);
            }
        }
        other.find(|frame| frame.stream == 1 && frame.kind == HEADERS);
    }
}
