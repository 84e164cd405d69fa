//! Requests over HTTP/2 on their way to an upstream, and responses on the way back.

mod common;
mod http2;

use std::time::Duration;

use bytes::Bytes;
use common::{Options, front, front_with, upstream};
use h2::Reason;
use http::Request;
use http2::{Client, get, post};
use preforkd_http::Limits;

#[test]
fn a_request_gets_to_the_upstream_as_over_http_1() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    let request = Request::get("http://a.example/x?y=%2F")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("x-a", "b")
        .body(())
        .unwrap();
    let (response, _) = client.send(request, true);
    let (mut peer, request) = upstream.request();
    assert!(
        request.starts_with("GET /x?y=%2F HTTP/1.1\r\nHost: a.example\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\ncookie: a=1; b=2\r\n"), "{request}");
    assert!(request.contains("\r\nx-a: b\r\n"), "{request}");
    assert!(
        !request.contains("transfer-encoding") && !request.contains("\r\nte:"),
        "{request}"
    );
    assert!(request.contains("\r\nX-Forwarded-For: 127.0.0.1\r\n"));
    peer.write(
        "HTTP/1.1 200 OK\r\nDate: x\r\nConnection: keep-alive\r\nKeep-Alive: x\r\nX-B: c\r\nContent-Length: 2\r\n\r\nok",
    );
    let whole = client.whole(response);
    assert_eq!((whole.status, &*whole.body), (200, &b"ok"[..]));
    let mut names: Vec<_> = whole.fields.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "date", "server", "x-b"]);
}

/// An upstream's response to what it is asked for, and what that was.
fn answer(upstream: &common::Upstream, response: &str) -> String {
    let (mut peer, request) = upstream.request();
    peer.write(response);
    request
}

#[test]
fn a_body_gets_to_the_upstream_whole_with_and_without_its_length() {
    for announced in [true, false] {
        let (upstream, address) = upstream();
        let front = front(vec![address], |_| {});
        let mut client = Client::new(front.address());
        let mut request = post("/");
        if announced {
            let length = "300000".parse().unwrap();
            request.headers_mut().insert("content-length", length);
        }
        let (response, mut body) = client.send(request, false);
        for piece in [b'a', b'b', b'c'] {
            let last = piece == b'c';
            client.data(&mut body, vec![piece; 100_000].into(), last);
        }
        let request = answer(&upstream, common::OK);
        assert!(
            request.contains("\r\nContent-Length: 300000\r\n"),
            "{announced}"
        );
        assert!(!request.contains("ransfer-"), "{announced}");
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let runs = body.as_bytes().chunk_by(|one, other| one == other);
        let runs: Vec<_> = runs.map(|run| (run[0], run.len())).collect();
        assert_eq!(runs, [(b'a', 100_000), (b'b', 100_000), (b'c', 100_000)]);
        assert_eq!(client.whole(response).body, b"ok");
    }
}

#[test]
fn an_empty_body_may_end_in_a_frame_of_its_own() {
    for length in [None, Some("0")] {
        let (upstream, address) = upstream();
        let front = front(vec![address], |_| {});
        let mut client = Client::new(front.address());
        let mut request = post("/");
        if let Some(length) = length {
            let length = length.parse().unwrap();
            request.headers_mut().insert("content-length", length);
        }
        let (response, mut body) = client.send(request, false);
        client.data(&mut body, Bytes::new(), true);
        let request = answer(&upstream, common::OK);
        assert!(request.contains("\r\nContent-Length: 0\r\n"), "{request}");
        assert_eq!(client.whole(response).status, 200);
    }
}

#[test]
fn a_response_without_a_body_ends_with_its_head() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    for (method, response, status, length) in [
        ("HEAD", "200 OK\r\nContent-Length: 7", 200, Some("7")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", 200, None),
        ("GET", "204 No Content", 204, None),
        (
            "GET",
            "304 Not Modified\r\nContent-Length: 7",
            304,
            Some("7"),
        ),
        ("GET", "200 OK\r\nContent-Length: 0", 200, Some("0")),
    ] {
        let request = Request::builder().method(method).uri("http://a/");
        let (pending, _) = client.send(request.body(()).unwrap(), true);
        let response = format!("HTTP/1.1 {response}\r\nConnection: close\r\n\r\n");
        answer(&upstream, &response);
        let head = client.head(pending);
        assert_eq!(head.status(), status, "{method} {response}");
        let found = head.headers().get("content-length");
        assert_eq!(
            found.map(|value| value.to_str().unwrap()),
            length,
            "{response}"
        );
        assert!(head.body().is_end_stream(), "{method} {response}");
    }
}

#[test]
fn a_response_of_unknown_length_comes_piece_by_piece() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    let (pending, _) = client.send(get("/"), true);
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (head, mut body) = client.head(pending).into_parts();
    assert!(!head.headers.contains_key("transfer-encoding"));
    for piece in ["one", "two"] {
        peer.write(&format!("3\r\n{piece}\r\n"));
        assert_eq!(client.piece(&mut body).unwrap().unwrap(), piece);
    }
    peer.write("0\r\n\r\n");
    assert!(client.piece(&mut body).unwrap().is_none());
}

#[test]
fn a_response_that_breaks_off_is_reset() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let (upstream, address) = upstream();
        let front = front(vec![address], |_| {});
        let mut client = Client::new(front.address());
        let (pending, _) = client.send(get("/"), true);
        let (mut peer, _) = upstream.request();
        peer.write(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n"));
        let (_, mut body) = client.head(pending).into_parts();
        assert!(client.piece(&mut body).unwrap().is_some());
        drop(peer);
        let error = loop {
            match client.piece(&mut body) {
                Ok(piece) => assert!(piece.is_some(), "{head}: an end that is none"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{head}");
        // The connection goes on.
        let (pending, _) = client.send(get("/"), true);
        answer(&upstream, common::OK);
        assert_eq!(client.whole(pending).body, b"ok");
    }
}

#[test]
fn a_client_that_resets_its_stream_takes_the_request_to_the_upstream_with_it() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    // Before the head of the response, and after it.
    for begun in [false, true] {
        let (pending, mut stream) = client.send(get("/"), true);
        let (other, _) = client.send(get("/other"), true);
        let mut peers = [upstream.request(), upstream.request()];
        peers.sort_by_key(|(_, request)| request.starts_with("GET /other"));
        let [(mut peer, _), (mut other_peer, _)] = peers;
        if begun {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
            let _body = client.head(pending).into_body();
            stream.send_reset(Reason::CANCEL);
            peer.ends();
        } else {
            stream.send_reset(Reason::CANCEL);
            peer.ends();
        }
        other_peer.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.whole(other).body, b"ok");
    }
}

#[test]
fn a_client_that_leaves_takes_all_its_requests_with_it() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    let _pending: Vec<_> = (0..3).map(|_| client.send(get("/"), true)).collect();
    let peers: Vec<_> = (0..3).map(|_| upstream.request().0).collect();
    drop(client);
    for mut peer in peers {
        peer.ends();
    }
}

#[test]
fn a_stream_that_is_not_read_leaves_its_upstream_waiting_and_does_not_hold_up_others() {
    let (upstream, address) = upstream();
    let limits = Limits {
        response_in_file: 0,
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::default()
    };
    let front = front_with(vec![address], options, |_| {});
    let mut client = Client::with(front.address(), |builder| {
        builder
            .initial_window_size(1000)
            .initial_connection_window_size(1 << 20);
    });
    let (unread, _) = client.send(get("/unread"), true);
    let (mut peer, _) = upstream.request();
    let sender = std::thread::spawn(move || {
        let stream = &mut peer.stream;
        let piece = vec![b'x'; 1 << 20];
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n";
        std::io::Write::write_all(stream, head.as_bytes()).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let mut sent = 0;
        while let Ok(n) = std::io::Write::write(stream, &piece) {
            sent += n;
        }
        (sent, peer)
    });
    let (head, mut body) = client.head(unread).into_parts();
    assert_eq!(head.status, 200);
    for _ in 0..5 {
        let (pending, _) = client.send(get("/"), true);
        answer(
            &upstream,
            common::OK
                .replace("Date", "Connection: close\r\nDate")
                .as_str(),
        );
        assert_eq!(client.whole(pending).body, b"ok");
    }
    // What fits into the buffers of both sockets, and not the whole of it.
    let (sent, _peer) = sender.join().unwrap();
    assert!(sent < 48 << 20, "{sent}");
    assert_eq!(client.piece(&mut body).unwrap().unwrap().len(), 1000);
}

#[test]
fn many_streams_at_once_each_get_their_own_response() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    let pending: Vec<_> = (0..100)
        .map(|number| client.send(get(&format!("/{number}")), true).0)
        .collect();
    for _ in 0..100 {
        let (mut peer, request) = upstream.request();
        let path = request.split(' ').nth(1).unwrap();
        let length = path.len();
        peer.write(&format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{path}"
        ));
    }
    for (number, response) in pending.into_iter().enumerate() {
        assert_eq!(client.whole(response).body, format!("/{number}").as_bytes());
    }
}

#[test]
fn what_the_direct_mode_refuses_is_refused() {
    let (upstream, address) = upstream();
    let limits = Limits {
        max_head: 2000,
        max_body: 10,
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::default()
    };
    let front = front_with(vec![address], options, |_| {});
    let mut client = Client::new(front.address());
    let long = "a".repeat(2500);
    for (method, uri, field, status) in [
        ("GET", "http://a,b/", ("x", "y"), 400),
        ("GET", "http://u@a/", ("x", "y"), 400),
        ("CONNECT", "a:443", ("x", "y"), 501),
        ("GET", "http://a/\u{e4}", ("x", "y"), 400),
        ("GET", "http://a/", ("expect", "a"), 417),
        ("GET", "http://a/", ("x", &*long), 431),
        ("GET", &*format!("http://a/{long}"), ("x", "y"), 414),
        ("POST", "http://a/", ("content-length", "11"), 413),
    ] {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header(field.0, field.1).body(()).unwrap();
        let ends = method != "POST";
        let (pending, _stream) = client.send(request, ends);
        assert_eq!(
            client.whole(pending).status,
            status,
            "{method} {uri} {field:?}"
        );
    }
    assert!(upstream.is_unused());
}

#[test]
fn a_client_is_told_to_go_on_with_its_body() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    let mut request = post("/");
    let expect = "100-continue".parse().unwrap();
    request.headers_mut().insert("expect", expect);
    let (mut pending, mut body) = client.send(request, false);
    let informed = std::future::poll_fn(|cx| pending.poll_informational(cx));
    let head = client.run(informed).unwrap().unwrap();
    assert_eq!(head.status(), 100);
    client.data(&mut body, "abc".into(), true);
    assert!(answer(&upstream, common::OK).ends_with("abc"));
    assert_eq!(client.whole(pending).body, b"ok");
}

#[test]
fn what_comes_before_and_after_a_response_is_passed_on() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    let mut request = get("/");
    let trailers = "trailers".parse().unwrap();
    request.headers_mut().insert("te", trailers);
    let (mut pending, _) = client.send(request, true);
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let informed = std::future::poll_fn(|cx| pending.poll_informational(cx));
    let hints = client.run(informed).unwrap().unwrap();
    assert_eq!(
        (hints.status(), &hints.headers()["link"]),
        (http::StatusCode::EARLY_HINTS, &"</a>".parse().unwrap())
    );
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n");
    let mut body = client.head(pending).into_body();
    assert_eq!(client.piece(&mut body).unwrap().unwrap(), "ok");
    assert!(client.piece(&mut body).unwrap().is_none());
    let fields = client.run(std::future::poll_fn(|cx| body.poll_trailers(cx)));
    let fields = fields.unwrap().unwrap();
    assert_eq!(fields["grpc-status"], "0");
}

#[test]
fn a_body_that_is_streamed_is_passed_on_while_it_arrives() {
    for length in [None, Some("6")] {
        let (upstream, address) = upstream();
        let front = front(vec![address], |_| {});
        let mut client = Client::new(front.address());
        let mut request = post("/stream");
        if let Some(length) = length {
            let length = length.parse().unwrap();
            request.headers_mut().insert("content-length", length);
        }
        let (pending, mut body) = client.send(request, false);
        client.data(&mut body, "abc".into(), false);
        let mut peer = upstream.accept();
        // The last byte of a known length waits for the end.
        let (first, rest) = match length {
            None => ("\r\n\r\n3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"),
            Some(_) => ("\r\n\r\nabc", "def"),
        };
        peer.read_to(first);
        client.data(&mut body, "def".into(), true);
        peer.read_to(rest);
        peer.write(common::OK);
        assert_eq!(client.whole(pending).body, b"ok");
    }
}

#[test]
fn what_has_waited_in_a_file_comes_as_it_was() {
    let body = "0123456789".repeat(500_000);
    let chunk = |piece: &str| format!("{:x}\r\n{piece}\r\n", piece.len());
    let small: String = body
        .as_bytes()
        .chunks(7)
        .map(|piece| chunk(str::from_utf8(piece).unwrap()))
        .collect();
    for (framing, sent) in [
        ("Content-Length: 5000000", body.clone()),
        ("Transfer-Encoding: chunked", chunk(&body) + "0\r\n\r\n"),
        ("Transfer-Encoding: chunked", small + "0\r\n\r\n"),
    ] {
        let (upstream, address) = upstream();
        let mut options = Options::default();
        options.limits.response_in_memory = 10_000;
        let front = front_with(vec![address], options, |_| {});
        let mut client = Client::new(front.address());
        let (pending, _) = client.send(get("/"), true);
        let (mut peer, _) = upstream.request();
        // Nothing of it was read before all of it has been taken in.
        peer.write(&format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n{framing}\r\n\r\n{sent}"
        ));
        peer.ends();
        assert!(client.whole(pending).body == body.as_bytes(), "{framing}");
    }
}

#[test]
fn fields_after_the_body_of_a_request_are_passed_on_where_it_is_streamed() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let mut client = Client::new(front.address());
    for (path, ends_with) in [("/stream", "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"), ("/", "a")] {
        let (pending, mut body) = client.send(post(path), false);
        client.data(&mut body, "a".into(), false);
        let mut fields = http::HeaderMap::new();
        fields.insert("x-sum", "1".parse().unwrap());
        fields.insert("content-length", "9".parse().unwrap());
        fields.insert("host", "b".parse().unwrap());
        body.send_trailers(fields).unwrap();
        let mut peer = upstream.accept();
        let head = peer.head();
        assert_eq!(peer.read_to(ends_with), ends_with, "{head}");
        peer.write(
            common::OK
                .replace("Date", "Connection: close\r\nDate")
                .as_str(),
        );
        assert_eq!(client.whole(pending).body, b"ok");
        assert!(peer.unread().is_empty());
    }
}
