//! Who connects to a busy server gets a turn among those whose connections stay.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Running, start};
use preforkd_http::{Body, Exchange, Handler, Limits, Origin, Request};

const CLIENTS: usize = 8;
/// Requests that each client who stays has sent ahead.
const AHEAD: usize = 50;

/// Notes in which order requests run; under `/gate` waits until it may go on.
#[derive(Clone)]
struct Noting {
    order: Arc<Mutex<Vec<String>>>,
    entered: Sender<()>,
    gate: Arc<Mutex<Receiver<()>>>,
    takes: Duration,
}

impl Handler for Noting {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let path = String::from_utf8_lossy(request.path()).into_owned();
        if path == "/gate" {
            self.entered.send(()).unwrap();
            self.gate.lock().unwrap().recv().unwrap();
        }
        thread::sleep(self.takes);
        self.order.lock().unwrap().push(path);
        exchange.begin(b"200 OK").unwrap();
        exchange.finish(Some(0));
        exchange.end();
        exchange
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn read_answers(client: &mut TcpStream, number: usize) {
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    let count = |bytes: &[u8]| bytes.windows(4).filter(|w| w == b"\r\n\r\n").count();
    while count(&answers) < number {
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection ended");
        answers.extend_from_slice(&buffer[..read]);
    }
}

/// Clients whose connections stay have much to ask, then as many come anew; the paths in the order in which they ran.
fn play(threads: usize, takes: Duration) -> Vec<String> {
    let (entered, inside) = channel();
    let (open, gate) = channel();
    let order = Arc::default();
    let noting = Noting {
        order: Arc::clone(&order),
        entered,
        gate: Arc::new(Mutex::new(gate)),
        takes,
    };
    let running: Running = start(threads, Limits::default(), noting);
    let mut stay: Vec<TcpStream> = (0..CLIENTS).map(|_| running.connect()).collect();
    for client in &mut stay {
        client.write_all(get("/first").as_bytes()).unwrap();
        read_answers(client, 1);
    }
    // Every thread is held up until everything has been sent.
    let mut keepers: Vec<TcpStream> = (0..threads.max(1)).map(|_| running.connect()).collect();
    for keeper in &mut keepers {
        keeper.write_all(get("/gate").as_bytes()).unwrap();
        inside.recv().unwrap();
    }
    for client in &mut stay {
        client
            .write_all(get("/stay").repeat(AHEAD).as_bytes())
            .unwrap();
    }
    let mut new: Vec<TcpStream> = (0..CLIENTS).map(|_| running.connect()).collect();
    for client in &mut new {
        client.write_all(get("/new").as_bytes()).unwrap();
    }
    for _ in &keepers {
        open.send(()).unwrap();
    }
    new.iter_mut().for_each(|client| read_answers(client, 1));
    stay.iter_mut()
        .for_each(|client| read_answers(client, AHEAD));
    running.stop();
    Arc::into_inner(order).unwrap().into_inner().unwrap()
}

/// How many requests of those who stay ran before the last one of those who came anew.
fn before_the_last(order: &[String]) -> usize {
    let last = order.iter().rposition(|path| path == "/new").unwrap();
    order[..last].iter().filter(|path| *path == "/stay").count()
}

#[test]
fn on_the_loops_thread_all_who_come_anew_have_their_turn_in_the_next_round() {
    let order = play(0, Duration::ZERO);
    assert!(before_the_last(&order) <= 3 * CLIENTS, "{order:?}");
}

#[test]
fn threads_that_are_never_idle_do_not_leave_them_out() {
    let order = play(2, Duration::from_millis(1));
    assert!(before_the_last(&order) < CLIENTS * AHEAD / 2, "{order:?}");
}
