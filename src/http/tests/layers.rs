//! A layer sees each exchange: it answers, removes fields, notes facts, changes heads, and is told of the end.

mod common;

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Running, start, start_with};
use preforkd_http::layer::{Arrived, Ended, Layer, Stages};
use preforkd_http::{Body, Exchange, Facts, Handler, Head, Limits, Origin, Reject, Request};

/// A sample: requests with a name of their own, which the response repeats; nobody asks for /closed; `X-Secret` stays outside.
struct Names {
    ended: Mutex<Sender<(u16, u64, String)>>,
}

impl Layer for Names {
    fn stages(&self) -> Stages {
        Stages {
            request: true,
            response: true,
            ended: true,
            ..Stages::default()
        }
    }

    fn request(&self, arrived: &mut Arrived<'_>) -> Option<Reject> {
        arrived.remove_fields(|name| name.eq_ignore_ascii_case(b"x-secret"));
        let id = arrived.request().field(b"x-id").map_or_else(
            || "none".to_owned(),
            |id| String::from_utf8_lossy(id).into_owned(),
        );
        let peer = arrived.origin().peer.map(|peer| peer.ip());
        let facts = arrived.facts();
        facts.request_id = Some(id.into());
        facts.client = peer;
        let is_closed = arrived.request().path() == b"/closed";
        is_closed.then(|| Reject::with(403, "closed today"))
    }

    fn response(&self, facts: &Facts, head: &mut Head) {
        let id = facts.request_id.as_deref().expect("was noted");
        head.set(b"X-Id", id.as_bytes()).expect("valid");
        head.remove(b"X-Powered-By");
    }

    fn ended(&self, ended: &Ended<'_>) {
        let path = ended.request.map_or_else(String::new, |request| {
            String::from_utf8_lossy(request.path()).into_owned()
        });
        let told = (ended.status, ended.bytes, path);
        self.ended.lock().unwrap().send(told).unwrap();
    }
}

/// Answers with the names of the fields, and what is known of the client.
#[derive(Clone)]
struct Fields;

impl Handler for Fields {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let names = request
            .fields()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        let client = request.facts().and_then(|facts| facts.client);
        let text = format!("{} {client:?}", Vec::from_iter(names).join(","));
        exchange.begin(b"200 OK").unwrap();
        exchange.field(b"X-Powered-By", b"a handler").unwrap();
        exchange.field(b"X-Id", b"of the handler").unwrap();
        exchange.finish(Some(text.len() as u64));
        exchange.write(text.as_bytes());
        exchange.end();
        exchange
    }
}

fn ask(running: &Running, path: &str) -> (String, String) {
    let mut stream = running.connect();
    let fields = "Host: a\r\nX-Secret: 1\r\nX-Id: 77\r\nx-secret: 2\r\nConnection: close\r\n";
    write!(stream, "GET {path} HTTP/1.1\r\n{fields}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn a_layer_sees_requests_heads_and_ends() {
    for threads in [0, 2] {
        let (sender, told) = channel();
        let names = Arc::new(Names {
            ended: Mutex::new(sender),
        });
        let running = start_with(threads, Limits::default(), Fields, vec![names]);

        let (head, body) = ask(&running, "/a");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nX-Id: 77\r\n"), "{head}");
        assert!(
            !head.contains("Powered") && !head.contains("of the handler"),
            "{head}"
        );
        let client = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(body, format!("Host,X-Id,Connection {client:?}"));

        let (head, body) = ask(&running, "/closed");
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert!(body.contains("closed today"), "{body}");
        assert!(head.contains("\r\nX-Id: 77\r\n"), "{head}");
        let refusal = body.len() as u64;

        let next = || {
            told.recv_timeout(Duration::from_secs(20))
                .expect("is told of")
        };
        let length = format!("Host,X-Id,Connection {client:?}").len() as u64;
        assert_eq!(next(), (200, length, "/a".to_owned()));
        assert_eq!(next(), (403, refusal, "/closed".to_owned()));
        running.stop();
    }
}

/// Refuses what another layer has refused before, which counts.
struct Later(Mutex<Sender<String>>);

impl Layer for Later {
    fn stages(&self) -> Stages {
        Stages {
            request: true,
            ..Stages::default()
        }
    }

    fn request(&self, arrived: &mut Arrived<'_>) -> Option<Reject> {
        let path = String::from_utf8_lossy(arrived.request().path()).into_owned();
        self.0.lock().unwrap().send(path).unwrap();
        Some(Reject::with(404, "too late")).filter(|_| arrived.request().path() == b"/closed")
    }
}

#[test]
fn layers_see_each_request_once_and_before_its_body() {
    for threads in [0, 2] {
        let ((ended, _ends), (seen, paths)) = (channel(), channel());
        let names = Arc::new(Names {
            ended: Mutex::new(ended),
        });
        let layers: Vec<Arc<dyn Layer>> = vec![names, Arc::new(Later(Mutex::new(seen)))];
        let running = start_with(threads, Limits::default(), Fields, layers);
        let fields = "Host: a\r\nX-Id: 7\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

        // The body is never sent.
        let mut stream = running.connect();
        write!(stream, "POST /closed HTTP/1.1\r\n{fields}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.contains("\r\nX-Id: 7\r\n"), "{answer}");

        let mut stream = running.connect();
        write!(stream, "POST /a HTTP/1.1\r\n{fields}").unwrap();
        let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        stream.read_exact(&mut interim).unwrap();
        assert!(interim.starts_with(b"HTTP/1.1 100 "));
        stream.write_all(b"bo").unwrap();
        let rest = "dyGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(rest.as_bytes()).unwrap();
        stream.read_to_string(&mut answer).unwrap();
        running.stop();
        assert_eq!(Vec::from_iter(paths), ["/closed", "/a", "/b"]);
    }
}

#[test]
fn without_layers_nothing_is_said_of_a_request() {
    for threads in [0, 2] {
        let running = start(threads, Limits::default(), Fields);
        let (head, body) = ask(&running, "/closed");
        assert!(head.contains("\r\nX-Powered-By: a handler\r\n"), "{head}");
        assert_eq!(body, "Host,X-Secret,X-Id,x-secret,Connection None");
        running.stop();
    }
}
