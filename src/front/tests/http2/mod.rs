//! Clients of HTTP/2: one by the library, and one that writes frames by hand.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::runtime::{self, Runtime};

/// Only so that a test that hangs fails.
pub const GUARD: Duration = Duration::from_secs(20);

/// A connection of a client by the library.
pub struct Client {
    runtime: Runtime,
    pub requests: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A response with its body.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self::with(address, |_| {})
    }

    pub fn with(address: SocketAddr, change: impl FnOnce(&mut Builder)) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut builder = Builder::new();
        change(&mut builder);
        let (requests, connection) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            builder.handshake(stream).await.unwrap()
        });
        let connection = runtime.spawn(connection);
        Self {
            runtime,
            requests,
            connection,
        }
    }

    /// Runs a step of a test.
    pub fn run<T>(&self, step: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(GUARD, step).await.expect("in time") })
    }

    /// Sends a head; the response is to come.
    pub fn send(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let requests = self.requests.clone();
        self.run(async {
            let mut requests = requests.ready().await.unwrap();
            requests.send_request(request, ends).unwrap()
        })
    }

    pub fn head(&self, response: ResponseFuture) -> Response<RecvStream> {
        self.run(response).unwrap()
    }

    /// Sends a part of a body as the server has room for it.
    pub fn data(&self, body: &mut SendStream<Bytes>, mut data: Bytes, ends: bool) {
        self.run(async {
            while !data.is_empty() {
                body.reserve_capacity(data.len());
                let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                let piece = data.split_to(room.unwrap().unwrap().min(data.len()));
                body.send_data(piece, false).unwrap();
            }
            if ends {
                // In a frame without data.
                body.send_data(Bytes::new(), true).unwrap();
            }
        });
    }

    /// The next piece of a body; none at its end.
    pub fn piece(&self, body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
        loop {
            let piece = self.run(body.data()).transpose()?;
            if let Some(piece) = &piece {
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            // A stream may end in a frame without data.
            if piece.as_ref().is_none_or(|piece| !piece.is_empty()) {
                return Ok(piece);
            }
        }
    }

    pub fn whole(&self, response: ResponseFuture) -> Whole {
        let (head, mut body) = self.head(response).into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut body).unwrap() {
            bytes.extend_from_slice(&piece);
        }
        Whole {
            status: head.status.as_u16(),
            fields: head.headers,
            body: bytes,
        }
    }

    /// How the connection ends.
    pub fn end(self) -> Result<(), h2::Error> {
        let Self {
            runtime,
            requests,
            connection,
        } = self;
        runtime.block_on(async {
            let end = tokio::time::timeout(GUARD, connection).await;
            drop(requests);
            end.expect("in time").unwrap()
        })
    }
}

pub fn get(path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::get(uri).body(()).unwrap()
}

pub fn post(path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::post(uri).body(()).unwrap()
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 32;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame (RFC 9113 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The error of RST_STREAM.
    pub fn reset(&self) -> Option<u32> {
        (self.kind == RST_STREAM).then(|| self.number(0))
    }

    /// The last stream and the error of GOAWAY.
    pub fn goaway(&self) -> Option<(u32, u32)> {
        (self.kind == GOAWAY).then(|| (self.number(0), self.number(4)))
    }
}

/// A header block without compression (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match text.len() {
                length @ 0..127 => block.push(length as u8),
                length => {
                    block.push(127);
                    let mut rest = length - 127;
                    while rest >= 128 {
                        block.push((rest % 128 + 128) as u8);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The fields of a GET.
pub const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a.example"),
];

/// A client that writes frames by hand.
pub struct Raw {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// One that has sent its preface and these settings, and has not read ours.
    pub fn with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::connect(address);
        raw.stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        raw.settings(settings);
        raw
    }

    pub fn new(address: SocketAddr) -> Self {
        Self::with(address, &[])
    }

    /// One that has sent nothing.
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// The same over this connection, whose other side may be a client.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.set_write_timeout(Some(GUARD)).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Reads the preface of a client.
    pub fn preface(&mut self) {
        let mut preface = [0; 24];
        self.stream.read_exact(&mut preface).unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }

    pub fn settings(&mut self, settings: &[(u16, u32)]) {
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        self.send(SETTINGS, 0, 0, payload);
    }

    /// Sends a frame; whether the other side still took it.
    pub fn try_send(&mut self, frame: &Frame) -> bool {
        self.stream.write_all(&frame.bytes()).is_ok()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) {
        let frame = Frame::new(kind, flags, stream, payload);
        self.stream.write_all(&frame.bytes()).unwrap();
    }

    pub fn headers(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, block(fields));
    }

    /// The next frame; none at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(header) = self.buffer.get(..9) {
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    let bytes: Vec<u8> = self.buffer.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
                    return Some(Frame::new(bytes[3], bytes[4], stream, &bytes[9..]));
                }
            }
            let mut more = [0; 16 * 1024];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&more[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame: {error}"),
            }
        }
    }

    /// The next frame that is such a one; others are left out.
    pub fn find(&mut self, is: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.frame().expect("a frame before the end");
            if is(&frame) {
                return frame;
            }
        }
    }

    /// The error of the GOAWAY that comes, and then the connection ends.
    pub fn ends_with(&mut self) -> Option<u32> {
        let mut error = None;
        while let Some(frame) = self.frame() {
            error = frame.goaway().map(|(_, error)| error).or(error);
        }
        error
    }

    /// A PING is answered, and so all before it was taken in; what comes before the answer.
    pub fn sync(&mut self) -> Vec<Frame> {
        const MARK: [u8; 8] = *b"preforkd";
        self.send(PING, 0, 0, MARK);
        let mut frames = Vec::new();
        loop {
            let frame = self.frame().expect("the answer to a PING");
            if frame.kind == PING && frame.flags == ACK && frame.payload == MARK {
                return frames;
            }
            frames.push(frame);
        }
    }
}
