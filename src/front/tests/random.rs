//! Upstreams that behave badly in all ways at once: each client gets the response to its own request, whole or visibly not, and no
//! request that must not be repeated is carried out twice.

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{GUARD, front};
use preforkd_front::upstream::address::Address;

const CLIENTS: usize = 8;
const REQUESTS: usize = 60;

/// Numbers that look random, the same in each run.
struct Chance(u64);

impl Chance {
    /// One of so many.
    fn of(&mut self, most: u64) -> u64 {
        // Knuth, The Art of Computer Programming, section 3.3.4, line 26 of table 1.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// How often each request was carried out.
type Done = Arc<Mutex<HashMap<String, u32>>>;

/// Reads a head and the body of its Content-Length; the first line, or none at the end.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    head.lines().next().map(str::to_owned)
}

/// A body that says whose it is, in every part of it.
fn body(id: &str, length: u64) -> String {
    format!("{id};").repeat(length as usize)
}

fn respond(mut stream: TcpStream, seed: u64, done: &Done) {
    let mut chance = Chance(seed);
    while let Some(line) = request(&mut stream) {
        let id = line.split(' ').nth(1).unwrap().to_owned();
        if chance.of(12) == 0 {
            // It dies before it has done anything.
            return;
        }
        *done.lock().unwrap().entry(line.clone()).or_default() += 1;
        if chance.of(20) == 0 {
            // It dies after that.
            return;
        }
        let body = body(&id, 1 + chance.of(3000));
        let mut text = String::new();
        if chance.of(4) == 0 {
            text += "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        }
        let way = chance.of(3);
        text += "HTTP/1.1 200 OK\r\n";
        match way {
            0 => text += &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            1 => {
                text += "Transfer-Encoding: chunked\r\n\r\n";
                for piece in body.as_bytes().chunks(1 + chance.of(5000) as usize) {
                    let piece = std::str::from_utf8(piece).unwrap();
                    text += &format!("{:x}\r\n{piece}\r\n", piece.len());
                }
                text += "0\r\n\r\n";
            }
            _ => text += &format!("Connection: close\r\n\r\n{body}"),
        }
        let mut bytes = text.into_bytes();
        // Not where only the end of the connection is the end: nobody can see that it came too early.
        let cut = way < 2 && chance.of(10) == 0;
        if cut {
            bytes.truncate(chance.of(bytes.len() as u64) as usize);
        }
        let junk = way < 2 && !cut && chance.of(10) == 0;
        if junk {
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
        }
        for piece in bytes.chunks(1 + chance.of(20_000) as usize) {
            if stream.write_all(piece).is_err() {
                return;
            }
        }
        if cut || way == 2 || chance.of(10) == 0 {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Reads one response; the status and the body, and whether it is complete and the connection can be used again.
fn response(stream: &mut TcpStream) -> (u16, String, bool) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some((status, body)) = parse(&bytes) {
            let goes_on = !bytes.windows(17).any(|text| text == b"Connection: close");
            return (status, body, goes_on);
        }
        match stream.read(&mut buffer) {
            Ok(n @ 1..) => bytes.extend_from_slice(&buffer[..n]),
            // A response that broke off.
            _ => return (0, String::from_utf8_lossy(&bytes).into_owned(), false),
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let (mut head, mut rest) = text.split_once("\r\n\r\n")?;
    if head.starts_with("HTTP/1.1 103 ") {
        (head, rest) = rest.split_once("\r\n\r\n")?;
    }
    let status = head[9..12].parse().unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    if let Some(length) = length {
        let length: usize = length.parse().unwrap();
        assert!(rest.len() <= length, "more than one response");
        return (rest.len() == length).then(|| (status, rest.to_owned()));
    }
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).unwrap();
        let piece = after.get(..size)?;
        rest = after.get(size..)?.strip_prefix("\r\n")?;
        if size == 0 {
            assert_eq!(rest, "");
            return Some((status, body));
        }
        body += piece;
    }
}

fn ask(address: std::net::SocketAddr, number: usize) -> u32 {
    let mut chance = Chance(number as u64);
    let mut stream = None;
    let mut answered = 0;
    for request in 0..REQUESTS {
        let open = || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(GUARD)).unwrap();
            stream
        };
        let mut connection = stream.take().unwrap_or_else(open);
        // Some bodies are passed on while they arrive.
        let path = ["", "stream"][chance.of(2) as usize];
        let id = format!("/{path}{number}-{request}");
        let text = match chance.of(2) {
            0 => format!("GET {id} HTTP/1.1\r\nHost: a\r\n\r\n"),
            _ => format!("POST {id} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        };
        connection.write_all(text.as_bytes()).unwrap();
        if chance.of(15) == 0 {
            // It leaves without its answer.
            continue;
        }
        let (status, got, whole) = response(&mut connection);
        match status {
            200 => {
                assert!(
                    got.split_terminator(';').all(|part| part == id),
                    "{id}: {got}"
                );
                answered += 1;
            }
            0 => assert!(!got.contains("forged"), "{id}: {got}"),
            502 => assert!(got.starts_with("502 Bad Gateway"), "{id}: {got}"),
            status => panic!("{id}: {status}"),
        }
        stream = whole.then_some(connection);
    }
    answered
}

#[test]
fn each_client_gets_its_own_response_whatever_upstreams_do() {
    let done = Done::default();
    let mut addresses = Vec::new();
    for upstream in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        addresses.push(Address::Tcp(listener.local_addr().unwrap()));
        let done = done.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (stream, done) = (stream.unwrap(), done.clone());
                let seed = upstream * 1_000_000 + number as u64;
                thread::spawn(move || respond(stream, seed, &done));
            }
        });
    }
    let front = front(addresses, |settings| settings.limits.most_running = 2);
    let address = front.address();
    let clients = Vec::from_iter((0..CLIENTS).map(|n| thread::spawn(move || ask(address, n))));
    let answered: u32 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    assert!(
        answered as usize > CLIENTS * REQUESTS / 2,
        "{answered} answers"
    );
    for (line, times) in done.lock().unwrap().iter() {
        assert!(
            *times == 1 || line.starts_with("GET "),
            "{line}: {times} times"
        );
    }
}
