//! Upstreams that speak HTTP/2.

mod common;
mod http2;
mod http2_upstream;

use std::time::Duration;

use bytes::Bytes;
use common::{Options, front, front_with, upstream};
use h2::Reason;
use http::{HeaderMap, Response};
use http2::{
    Client, DATA, END_STREAM, GOAWAY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, get, post,
};
use http2_upstream::{Server, call, grpc_end, grpc_head, head, one, one_with, raw};
use preforkd_front::upstream::protocol::Protocol;
use preforkd_http::Limits;

/// A response without anything.
fn ok() -> Response<()> {
    Response::new(())
}

/// The trailers of a response whose body was read.
fn trailers(client: &Client, body: &mut h2::RecvStream) -> Option<HeaderMap> {
    client.run(body.trailers()).unwrap()
}

#[test]
fn requests_pass_on_one_connection_one_after_the_other() {
    let (front, upstream) = one();
    let mut client = front.send(
        "GET /x?y=%2F HTTP/1.1\r\nHost: a:81\r\nCookie: a=1\r\nConnection: x-a\r\nX-A: b\r\n\r\n",
    );
    let mut server = Server::accept(&upstream);
    let (request, mut reply) = server.request();
    let (parts, body) = request.into_parts();
    assert!(body.is_end_stream());
    assert_eq!(parts.uri.to_string(), "http://a:81/x?y=%2F");
    assert_eq!(parts.headers["cookie"], "a=1");
    assert_eq!(parts.headers["x-forwarded-for"], "127.0.0.1");
    for name in ["host", "connection", "x-a", "te"] {
        assert!(!parts.headers.contains_key(name), "{name}");
    }
    let response = Response::builder()
        .status(201)
        .header("date", "x")
        .header("x-b", "c")
        .header("content-length", "2");
    let mut stream = reply
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    stream.send_data("ok".into(), true).unwrap();
    assert_eq!(
        client.message(),
        "HTTP/1.1 201 Created\r\ndate: x\r\nx-b: c\r\nContent-Length: 2\r\nServer: preforkd\r\n\r\nok"
    );
    for body in ["", "abc"] {
        let length = body.len();
        client.write(&format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let (request, mut reply) = server.request();
        assert_eq!(
            request.headers()["content-length"],
            length.to_string().as_str()
        );
        assert_eq!(server.body(&mut request.into_body()), body.as_bytes());
        reply.send_response(ok(), true).unwrap();
        assert!(client.message().contains("\r\nContent-Length: 0\r\n"));
    }
    client.write("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (_, mut reply) = server.request();
    let length = Response::builder().header("content-length", "5");
    reply.send_response(length.body(()).unwrap(), true).unwrap();
    assert!(client.head().contains("\r\nContent-Length: 5\r\n"));
    let (_, mut reply) = server.request();
    let hints = Response::builder().status(103).header("link", "x");
    reply.send_informational(hints.body(()).unwrap()).unwrap();
    assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
    let mut stream = reply.send_response(ok(), false).unwrap();
    stream.send_data("abc".into(), false).unwrap();
    let head = client.head();
    assert!(
        head.contains("\r\nTransfer-Encoding: chunked\r\n"),
        "{head}"
    );
    assert_eq!(client.read_to("3\r\nabc\r\n"), "3\r\nabc\r\n");
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(client.read_to("0\r\n\r\n"), "0\r\n\r\n");
    assert!(upstream.is_unused());
}

#[test]
fn a_host_or_target_without_a_form_in_http_2_is_refused() {
    let (front, upstream) = one();
    let mut client = front.send("GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.message().starts_with("HTTP/1.1 400 "));
    assert!(upstream.is_unused());
}

#[test]
fn a_call_passes_in_both_directions_message_by_message() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, mut request) = client.send(call("/S/Both"), false);
    // Its head goes before its first message.
    let mut server = Server::accept(&upstream);
    let (asked, mut reply) = server.request();
    assert_eq!(asked.uri().path(), "/S/Both");
    assert_eq!(asked.headers()["te"], "trailers");
    assert_eq!(asked.headers()["content-type"], "application/grpc");
    let mut asked = asked.into_body();
    let mut answer = reply.send_response(grpc_head(), false).unwrap();
    // And the head of the response before the first message of either.
    let response = client.head(response);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut seen = response.into_body();
    for message in ["one", "two", "three"] {
        client.data(&mut request, message.into(), false);
        assert_eq!(server.piece(&mut asked).unwrap(), message);
        answer.send_data(message.into(), false).unwrap();
        assert_eq!(client.piece(&mut seen).unwrap().unwrap(), message);
    }
    client.data(&mut request, Bytes::new(), true);
    assert_eq!(server.piece(&mut asked), None);
    answer.send_data("last".into(), false).unwrap();
    assert_eq!(client.piece(&mut seen).unwrap().unwrap(), "last");
    answer.send_trailers(grpc_end("0")).unwrap();
    assert_eq!(client.piece(&mut seen).unwrap(), None);
    assert_eq!(trailers(&client, &mut seen), Some(grpc_end("0")));
    // The connection serves the next call.
    let (response, _) = client.send(call("/S/Next"), true);
    let (asked, mut reply) = server.request();
    assert_eq!(asked.uri().path(), "/S/Next");
    reply.send_response(grpc_head(), true).unwrap();
    assert_eq!(client.whole(response).status, 200);
}

#[test]
fn the_status_of_a_call_arrives_with_and_without_messages() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, _) = client.send(call("/only"), true);
    let mut server = Server::accept(&upstream);
    // In the head, which ends the stream.
    let (_, mut reply) = server.request();
    let mut only = grpc_head();
    only.headers_mut().extend(grpc_end("12"));
    reply.send_response(only, true).unwrap();
    let response = client.head(response);
    assert_eq!(response.headers()["grpc-status"], "12");
    assert!(response.body().is_end_stream());
    for length in [None, Some(0), Some(3)] {
        // Some leave out that field.
        let mut asked = call("/after");
        asked.headers_mut().remove("te");
        let (response, _) = client.send(asked, true);
        let (asked, mut reply) = server.request();
        assert_eq!(asked.headers()["te"], "trailers");
        let mut answer = grpc_head();
        if let Some(length) = length {
            answer.headers_mut().insert("content-length", length.into());
        }
        let mut answer = reply.send_response(answer, false).unwrap();
        let response = client.head(response);
        assert!(!response.body().is_end_stream());
        let mut seen = response.into_body();
        if length == Some(3) {
            answer.send_data("abc".into(), false).unwrap();
            assert_eq!(client.piece(&mut seen).unwrap().unwrap(), "abc");
        }
        answer.send_trailers(grpc_end("5")).unwrap();
        assert_eq!(client.piece(&mut seen).unwrap(), None);
        assert_eq!(trailers(&client, &mut seen), Some(grpc_end("5")));
    }
}

#[test]
fn trailers_reach_those_who_take_them() {
    let (front, upstream) = one();
    let mut client = front.connect();
    let mut server = None;
    for (te, has_trailers) in [("", false), ("Connection: TE\r\nTE: trailers\r\n", true)] {
        client.write(&format!("GET / HTTP/1.1\r\nHost: a\r\n{te}\r\n"));
        let server = server.get_or_insert_with(|| Server::accept(&upstream));
        let (request, mut reply) = server.request();
        assert_eq!(request.headers().contains_key("te"), has_trailers);
        // It announces them, and their length does not take their place away.
        let head = Response::builder()
            .header("trailer", "x-sum")
            .header("content-length", "3");
        let mut stream = reply.send_response(head.body(()).unwrap(), false).unwrap();
        stream.send_data("abc".into(), false).unwrap();
        let mut fields = HeaderMap::new();
        fields.insert("x-sum", "6".parse().unwrap());
        stream.send_trailers(fields).unwrap();
        assert!(client.head().contains("\r\nTransfer-Encoding: chunked\r\n"));
        let expected = match has_trailers {
            true => "3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n",
            false => "3\r\nabc\r\n0\r\n\r\n",
        };
        assert_eq!(client.read_to(expected), expected);
    }
}

#[test]
fn trailers_of_a_request_arrive() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, mut request) = client.send(post("/stream"), false);
    client.data(&mut request, "abc".into(), false);
    let mut fields = HeaderMap::new();
    fields.insert("x-sum", "6".parse().unwrap());
    request.send_trailers(fields.clone()).unwrap();
    let mut server = Server::accept(&upstream);
    let (asked, mut reply) = server.request();
    assert!(!asked.headers().contains_key("transfer-encoding"));
    let mut asked = asked.into_body();
    assert_eq!(server.body(&mut asked), b"abc");
    let seen = server.run(asked.trailers()).unwrap();
    assert_eq!(seen, Some(fields));
    reply.send_response(ok(), true).unwrap();
    assert_eq!(client.whole(response).status, 200);
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let data: Bytes = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    for path in ["/", "/stream"] {
        let (response, mut request) = client.send(post(path), false);
        let sent = data.clone();
        let server = std::thread::scope(|scope| {
            let upstream = &upstream;
            let expected = &data;
            let server = scope.spawn(move || {
                let mut server = Server::accept(upstream);
                let (asked, mut reply) = server.request();
                assert!(server.body(&mut asked.into_body()) == *expected);
                let mut stream = reply.send_response(ok(), false).unwrap();
                server.data(&mut stream, expected.clone());
                stream.send_data(Bytes::new(), true).unwrap();
                server
            });
            client.data(&mut request, sent, true);
            assert!(client.whole(response).body == data);
            server.join().unwrap()
        });
        drop(server);
    }
}

#[test]
fn many_small_messages_pass_also_when_they_come_at_once() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, _) = client.send(call("/S/Many"), true);
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    peer.headers(stream, &RESPONSE, false);
    let message = http2::Frame::new(DATA, 0, stream, *b"x").bytes();
    const MANY: usize = 20_000;
    std::io::Write::write_all(&mut peer.stream, &message.repeat(MANY)).unwrap();
    peer.send(DATA, END_STREAM, stream, *b"");
    assert_eq!(client.whole(response).body.len(), MANY);
}

#[test]
fn many_small_messages_of_a_client_pass_too() {
    let (front, upstream) = one();
    let mut client = http2::Raw::new(front.address());
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/S/Join"),
        (":authority", "a.example"),
        ("content-type", "application/grpc"),
    ];
    client.headers(1, &fields, false);
    let message = http2::Frame::new(DATA, 0, 1, *b"x").bytes();
    const MANY: usize = 6000;
    std::io::Write::write_all(&mut client.stream, &message.repeat(MANY)).unwrap();
    client.send(DATA, END_STREAM, 1, *b"");
    let mut server = Server::accept(&upstream);
    let (asked, mut reply) = server.request();
    assert_eq!(server.body(&mut asked.into_body()).len(), MANY);
    reply.send_response(grpc_head(), true).unwrap();
    client.find(|frame| frame.kind == http2::HEADERS && frame.flags & END_STREAM != 0);
}

#[test]
fn a_client_that_reads_nothing_stops_its_upstream_and_hinders_no_request() {
    let limits = Limits {
        response_in_memory: 0,
        response_in_file: 0,
        ..Limits::default()
    };
    let (front, upstream) = one_with(Options {
        limits,
        held: 0,
        ..Options::default()
    });
    let mut client = Client::with(front.address(), |builder| {
        builder.initial_window_size(1000);
    });
    let (response, mut request) = client.send(call("/S/Both"), false);
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    peer.headers(stream, &RESPONSE, false);
    let response = client.head(response);
    let (mut room, mut sent) = (65_535u32, 0u32);
    // As long as it is given room; so much is never taken.
    const MUCH: u32 = 8 * 1024 * 1024;
    let mut rounds = 0;
    while rounds < 30 && sent < MUCH {
        let updates = peer.sync();
        let of_connection =
            |frame: &&http2::Frame| frame.kind == WINDOW_UPDATE && frame.stream == 0;
        for update in updates.iter().filter(of_connection) {
            room += u32::from_be_bytes(update.payload[..].try_into().unwrap());
        }
        rounds = if room == 0 { rounds + 1 } else { 0 };
        while room > 0 {
            let n = room.min(16 * 1024);
            peer.send(DATA, 0, stream, vec![b'x'; n as usize]);
            (room, sent) = (room - n, sent + n);
        }
    }
    assert!(sent < MUCH, "{sent}");
    // The other direction flows all the same, beyond the window that the upstream has begun with.
    for _ in 0..20 {
        client.data(&mut request, vec![b'y'; 16 * 1024].into(), false);
        let mut left = 16 * 1024;
        while left > 0 {
            let length = peer.find(|frame| frame.kind == DATA).payload.len();
            left -= length;
            for stream in [0, stream] {
                peer.send(WINDOW_UPDATE, 0, stream, (length as u32).to_be_bytes());
            }
        }
    }
    // And when it reads, all comes.
    let mut seen = response.into_body();
    let mut left = sent as usize;
    while left > 0 {
        left -= client.piece(&mut seen).unwrap().unwrap().len();
    }
}

#[test]
fn a_client_that_leaves_has_its_stream_reset() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, mut request) = client.send(call("/S/Both"), false);
    let mut server = Server::accept(&upstream);
    let (_asked, mut reply) = server.request();
    let mut answer = reply.send_response(grpc_head(), false).unwrap();
    let seen = client.head(response);
    request.send_reset(Reason::CANCEL);
    drop(seen);
    assert_eq!(server.reset(&mut answer), Reason::CANCEL);
    // Before the head, too.
    let mut peer = front.get();
    let mut server = Server::accept(&upstream);
    let (_, mut reply) = server.request();
    peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
    let reset = server.run(std::future::poll_fn(|cx| reply.poll_reset(cx)));
    assert_eq!(reset.unwrap(), Reason::CANCEL);
    assert_eq!(peer.rest(), "");
}

#[test]
fn a_reset_before_the_head_is_502_and_after_it_breaks_the_response_off() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let mut server = None;
    for begins in [false, true] {
        let (response, _) = client.send(call("/S/Get"), true);
        let mut accepted = Server::accept(&upstream);
        let (_, mut reply) = accepted.request();
        if begins {
            let mut answer = reply.send_response(grpc_head(), false).unwrap();
            let mut seen = client.head(response).into_body();
            answer.send_data("abc".into(), false).unwrap();
            assert_eq!(client.piece(&mut seen).unwrap().unwrap(), "abc");
            answer.send_reset(Reason::ENHANCE_YOUR_CALM);
            let error = client.piece(&mut seen).unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        } else {
            reply.send_reset(Reason::ENHANCE_YOUR_CALM);
            assert_eq!(client.whole(response).status, 502);
        }
        server = Some(accepted);
    }
    drop(server);
    // It was sent once.
    assert!(upstream.is_unused());
}

#[test]
fn a_call_that_the_upstream_has_refused_is_sent_again() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, mut request) = client.send(call("/S/Get"), false);
    client.data(&mut request, "message".into(), false);
    for _ in 0..2 {
        let mut server = Server::accept(&upstream);
        let (asked, mut reply) = server.request();
        assert_eq!(server.piece(&mut asked.into_body()).unwrap(), "message");
        reply.send_reset(Reason::REFUSED_STREAM);
        // The connection ends.
        assert!(server.try_request().is_none());
    }
    let mut server = Server::accept(&upstream);
    let (asked, mut reply) = server.request();
    let mut asked = asked.into_body();
    assert_eq!(server.piece(&mut asked).unwrap(), "message");
    client.data(&mut request, "another".into(), true);
    assert_eq!(server.body(&mut asked), b"another");
    reply.send_response(grpc_head(), true).unwrap();
    assert_eq!(client.whole(response).status, 200);
    // It has an end.
    let (response, _) = client.send(call("/S/Get"), true);
    let (_, mut reply) = server.request();
    reply.send_reset(Reason::REFUSED_STREAM);
    for _ in 0..3 {
        let mut server = Server::accept(&upstream);
        let (_, mut reply) = server.request();
        reply.send_reset(Reason::REFUSED_STREAM);
        assert!(server.try_request().is_none());
    }
    assert_eq!(client.whole(response).status, 503);
    assert!(upstream.is_unused());
}

#[test]
fn a_call_of_which_much_was_sent_is_not_sent_again() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, mut request) = client.send(call("/S/Put"), false);
    client.data(&mut request, vec![b'x'; 40_000].into(), false);
    let mut server = Server::accept(&upstream);
    let (asked, mut reply) = server.request();
    let mut asked = asked.into_body();
    let mut left = 40_000;
    while left > 0 {
        left -= server.piece(&mut asked).unwrap().len();
    }
    reply.send_reset(Reason::REFUSED_STREAM);
    assert_eq!(client.whole(response).status, 503);
    assert!(upstream.is_unused());
}

#[test]
fn a_goaway_ends_no_call_that_has_begun_and_the_next_takes_a_new_connection() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (response, _) = client.send(call("/S/Get"), true);
    let mut server = Server::accept(&upstream);
    let (_, mut reply) = server.request();
    let mut answer = reply.send_response(grpc_head(), false).unwrap();
    let mut seen = client.head(response).into_body();
    server.stop();
    let (response, _) = client.send(call("/S/Next"), true);
    let mut next = Server::accept(&upstream);
    let (_, mut reply) = next.request();
    reply.send_response(grpc_head(), true).unwrap();
    assert_eq!(client.whole(response).status, 200);
    answer.send_data("abc".into(), false).unwrap();
    answer.send_trailers(grpc_end("0")).unwrap();
    assert_eq!(client.piece(&mut seen).unwrap().unwrap(), "abc");
    assert_eq!(client.piece(&mut seen).unwrap(), None);
    assert_eq!(trailers(&client, &mut seen), Some(grpc_end("0")));
    assert!(server.try_request().is_none());
}

const RESPONSE: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

#[test]
fn what_a_goaway_says_was_not_processed_is_sent_again() {
    // A POST is sent again only because of that.
    for last in [0, 1] {
        let (front, upstream) = one();
        let mut client = Client::new(front.address());
        let (first, _) = client.send(call("/first"), true);
        let mut peer = raw(&upstream);
        let stream = head(&mut peer);
        peer.headers(stream, &RESPONSE, true);
        assert_eq!(client.whole(first).status, 200);
        let (response, _) = client.send(call("/second"), true);
        assert_eq!(head(&mut peer), 3);
        let last = last * 2 + 1;
        peer.send(GOAWAY, 0, 0, [0, 0, 0, last, 0, 0, 0, 0]);
        match last {
            1 => {
                let mut peer = raw(&upstream);
                let stream = head(&mut peer);
                peer.headers(stream, &RESPONSE, true);
                assert_eq!(client.whole(response).status, 200);
            }
            _ => {
                // It may have been begun, and there is no answer.
                drop(peer);
                assert_eq!(client.whole(response).status, 502);
                assert!(upstream.is_unused());
            }
        }
    }
}

#[test]
fn a_kept_connection_on_which_a_goaway_waits_is_not_used() {
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    peer.headers(stream, &[(":status", "204")], true);
    client.head();
    peer.sync();
    peer.send(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0]);
    // It has seen it.
    peer.ends_with();
    client.write(common::POST);
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    peer.headers(stream, &[(":status", "204")], true);
    assert!(client.head().starts_with("HTTP/1.1 204 "));
}

#[test]
fn a_complete_response_followed_by_a_reset_is_complete() {
    // RFC 9113 section 8.1: NO_ERROR only says that the rest of the request is not wanted.
    for (length, ends) in [(true, true), (false, true), (false, false)] {
        let (front, upstream) = one();
        let mut client =
            front.send("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\nabc");
        let mut peer = raw(&upstream);
        let stream = head(&mut peer);
        let mut fields = vec![(":status", "413")];
        if length {
            fields.push(("content-length", "3"));
        }
        let mut bytes = Vec::new();
        let fields = block(&fields);
        for (kind, flags, payload) in [
            (http2::HEADERS, http2::END_HEADERS, &fields[..]),
            (DATA, if ends { END_STREAM } else { 0 }, b"no\n"),
            (RST_STREAM, 0, &[0, 0, 0, 0]),
        ] {
            bytes.extend(http2::Frame::new(kind, flags, stream, payload).bytes());
        }
        std::io::Write::write_all(&mut peer.stream, &bytes).unwrap();
        let answer = client.rest();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        let is_whole = answer.ends_with("\r\n0\r\n\r\n") || answer.ends_with("\r\n\r\nno\n");
        assert_eq!(is_whole, ends, "{answer}");
    }
}

#[test]
fn what_breaks_the_protocol_is_502() {
    // It speaks HTTP/1.1.
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = upstream.accept();
    peer.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    assert!(client.message().starts_with("HTTP/1.1 502 "));
    // A length without a body (RFC 9113 section 8.1.1), and a field of HTTP/1.
    for field in [("content-length", "5"), ("connection", "close")] {
        let (front, upstream) = one();
        let mut client = front.get();
        let mut peer = raw(&upstream);
        let stream = head(&mut peer);
        peer.headers(stream, &[(":status", "200"), field], true);
        assert!(client.message().starts_with("HTTP/1.1 502 "), "{field:?}");
    }
    // Less than its length.
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    peer.headers(
        stream,
        &[(":status", "200"), ("content-length", "5")],
        false,
    );
    peer.send(DATA, END_STREAM, stream, *b"abc");
    let answer = client.rest();
    assert!(
        !answer.contains("abc") || answer.ends_with("abc"),
        "{answer}"
    );
    // An end without one.
    let mut client = front.get();
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    peer.headers(stream, &[(":status", "200")], false);
    peer.send(DATA, 0, stream, *b"abc");
    drop(peer);
    let answer = client.rest();
    assert!(answer.ends_with("3\r\nabc\r\n"), "{answer}");
}

#[test]
fn an_upstream_that_takes_no_stream_gets_none_until_it_does() {
    let (front, upstream) = one();
    let mut client = Client::new(front.address());
    let (first, _) = client.send(get("/"), true);
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    // SETTINGS_MAX_CONCURRENT_STREAMS
    peer.settings(&[(3, 0)]);
    peer.headers(stream, &[(":status", "204")], true);
    assert_eq!(client.whole(first).status, 204);
    let (second, _) = client.send(get("/"), true);
    let seen = peer.sync();
    assert!(seen.iter().all(|frame| frame.kind != http2::HEADERS));
    peer.settings(&[(3, 1)]);
    let stream = head(&mut peer);
    peer.headers(stream, &[(":status", "204")], true);
    assert_eq!(client.whole(second).status, 204);
    assert!(upstream.is_unused());
}

#[test]
fn calls_may_be_silent_and_large_and_others_may_not() {
    let limits = Limits {
        body_timeout: Duration::from_millis(50),
        max_body: 1000,
        ..Limits::default()
    };
    let (upstream, address) = upstream();
    let options = Options {
        limits,
        ..Options::default()
    };
    let front = front_with(vec![address], options, |settings| {
        settings.protocol = Protocol::H2c;
        (settings.head_timeout, settings.silence_timeout) =
            (Duration::from_millis(50), Duration::from_millis(50));
    });
    let mut client = Client::new(front.address());
    let (response, mut request) = client.send(call("/S/Both"), false);
    let mut server = Server::accept(&upstream);
    let (asked, mut reply) = server.request();
    let mut asked = asked.into_body();
    // A request that is no call, and waits for as long, is answered twice meanwhile.
    for (path, status) in [("/", 504), ("/stream", 408)] {
        let (response, body) = client.send(post(path), path == "/");
        let mut server = Server::accept(&upstream);
        let _answer = server.request();
        assert_eq!(client.whole(response).status, status);
        drop(body);
    }
    for _ in 0..3 {
        client.data(&mut request, vec![b'x'; 1000].into(), false);
        let mut left = 1000;
        while left > 0 {
            left -= server.piece(&mut asked).unwrap().len();
        }
    }
    reply.send_response(grpc_head(), true).unwrap();
    assert_eq!(client.whole(response).status, 200);
    let (response, mut request) = client.send(post("/stream"), false);
    client.data(&mut request, vec![b'x'; 1001].into(), false);
    assert_eq!(client.whole(response).status, 413);
}

#[test]
fn a_call_in_which_both_are_silent_for_too_long_ends() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |settings| {
        settings.protocol = Protocol::H2c;
        settings.upgraded_timeout = Duration::from_millis(50);
    });
    let mut client = Client::new(front.address());
    let (response, _request) = client.send(call("/S/Both"), false);
    let mut server = Server::accept(&upstream);
    let (_, mut reply) = server.request();
    let mut answer = reply.send_response(grpc_head(), false).unwrap();
    let mut seen = client.head(response).into_body();
    assert!(client.piece(&mut seen).is_err());
    assert_eq!(server.reset(&mut answer), Reason::CANCEL);
}

#[test]
fn frames_between_requests_are_answered() {
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = raw(&upstream);
    let stream = head(&mut peer);
    peer.headers(stream, &[(":status", "204")], true);
    client.head();
    peer.sync();
    peer.settings(&[(4, 1000)]);
    peer.find(|frame| frame.kind == SETTINGS && frame.flags == http2::ACK);
    client.write(common::GET);
    let stream = head(&mut peer);
    peer.headers(stream, &[(":status", "204")], true);
    assert!(client.head().starts_with("HTTP/1.1 204 "));
    assert!(upstream.is_unused());
}

#[test]
fn an_upstream_that_floods_is_left() {
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = raw(&upstream);
    head(&mut peer);
    let ping = http2::Frame::new(http2::PING, 0, 0, [0; 8]);
    // It reads none of the answers.
    let flood: Vec<u8> = ping.bytes().repeat(10_000);
    peer.stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while sent < 64 * 1024 * 1024 {
        match std::io::Write::write(&mut peer.stream, &flood) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    assert!(sent < 64 * 1024 * 1024);
    // Others are served meanwhile.
    let mut other = front.get();
    let mut second = raw(&upstream);
    let stream = head(&mut second);
    second.headers(stream, &[(":status", "204")], true);
    assert!(other.head().starts_with("HTTP/1.1 204 "));
    drop(peer);
    // A GET is asked again.
    let stream = head(&mut second);
    second.headers(stream, &[(":status", "204")], true);
    assert!(client.head().starts_with("HTTP/1.1 204 "));
}
