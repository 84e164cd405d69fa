//! A connection driven through bytes, and what must hold whatever they are; for random tests and for the fuzzer.

use std::sync::Arc;

use preforkd_http::{Connection, Event, Limits};

/// Everything that the application would see of each request, and the status of a rejection.
pub fn run(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<u16>) {
    let limits = Limits {
        max_head: 300,
        max_fields: 8,
        max_body: 64,
        body_in_memory: 1 << 20,
        ..Limits::default()
    };
    let mut connection = Connection::new(Arc::new(limits));
    let (mut requests, mut rejected) = (Vec::new(), None);
    for piece in pieces {
        connection.receive(piece);
        loop {
            match connection.advance() {
                Event::Wait => break,
                Event::Continue | Event::Head => {}
                Event::Request => {
                    assert_eq!(rejected, None, "a request after a rejection");
                    let body = connection.take_body().unwrap();
                    let request = connection.request();
                    let mut seen = [request.method(), request.path(), request.query()].concat();
                    for (name, value) in request.fields() {
                        assert!(!name.contains(&b'_'));
                        assert!(!value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')));
                        seen.extend_from_slice(name);
                        seen.extend_from_slice(value);
                    }
                    seen.extend(format!("{body:?}").bytes());
                    requests.push(seen);
                    connection.next();
                }
                Event::Reject(reject) => {
                    rejected = Some(reject.status);
                    break;
                }
            }
        }
    }
    (requests, rejected)
}
