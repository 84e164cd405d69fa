//! Upstreams of HTTP/2: one by the library, and one that writes frames by hand.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::task::Poll;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use preforkd_front::upstream::protocol::Protocol;
use tokio::runtime::{self, Runtime};
use tokio::sync::mpsc;

use crate::common::{Front, Options, Upstream, front_with, upstream};
use crate::http2::{GUARD, Raw};

/// A front with one upstream that speaks HTTP/2.
pub fn one() -> (Front, Upstream) {
    one_with(Options::default())
}

pub fn one_with(options: Options) -> (Front, Upstream) {
    let (upstream, address) = upstream();
    let front = front_with(vec![address], options, |settings| {
        settings.protocol = Protocol::H2c;
    });
    (front, upstream)
}

/// A connection of the front, by the library.
pub struct Server {
    runtime: Runtime,
    requests: mpsc::UnboundedReceiver<(Request<RecvStream>, SendResponse<Bytes>)>,
    /// Has the connection end after the streams that there are.
    stop: mpsc::UnboundedSender<()>,
}

impl Server {
    pub fn accept(upstream: &Upstream) -> Self {
        let stream = upstream.listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let (stop, mut stopped) = mpsc::unbounded_channel();
        runtime.spawn(async move {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(65_535);
            // The messages of a client come one by one.
            builder.data_frame_budget(4 * 1024 * 1024);
            let mut connection: Connection<_, Bytes> = builder.handshake(stream).await.unwrap();
            loop {
                let next = std::future::poll_fn(|cx| {
                    if let Poll::Ready(Some(())) = stopped.poll_recv(cx) {
                        connection.graceful_shutdown();
                    }
                    connection.poll_accept(cx)
                });
                let request = next.await;
                match request {
                    Some(Ok(request)) => drop(sender.send(request)),
                    _ => return,
                }
            }
        });
        Self {
            runtime,
            requests,
            stop,
        }
    }

    pub fn run<T>(&self, step: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(GUARD, step).await.expect("in time") })
    }

    /// The next request; none when the connection has ended.
    pub fn try_request(&mut self) -> Option<(Request<RecvStream>, SendResponse<Bytes>)> {
        let requests = &mut self.requests;
        self.runtime.block_on(async {
            let next = tokio::time::timeout(GUARD, requests.recv()).await;
            next.expect("in time")
        })
    }

    pub fn request(&mut self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        self.try_request().expect("a request")
    }

    /// The next piece of a body.
    pub fn piece(&self, body: &mut RecvStream) -> Option<Bytes> {
        self.try_piece(body).unwrap()
    }

    pub fn try_piece(&self, body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
        loop {
            let piece = self.run(body.data()).transpose()?;
            if let Some(piece) = &piece {
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            if piece.as_ref().is_none_or(|piece| !piece.is_empty()) {
                return Ok(piece);
            }
        }
    }

    /// All of a body.
    pub fn body(&self, body: &mut RecvStream) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece(body) {
            all.extend_from_slice(&piece);
        }
        all
    }

    /// What the front resets a stream with.
    pub fn reset(&self, stream: &mut SendStream<Bytes>) -> Reason {
        self.run(std::future::poll_fn(|cx| stream.poll_reset(cx)))
            .unwrap()
    }

    /// Sends a part of a body as the front has room for it.
    pub fn data(&self, body: &mut SendStream<Bytes>, mut data: Bytes) {
        self.run(async {
            while !data.is_empty() {
                body.reserve_capacity(data.len());
                let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                let piece = data.split_to(room.unwrap().unwrap().min(data.len()));
                body.send_data(piece, false).unwrap();
            }
        });
    }

    /// Has the connection end after the streams that there are.
    pub fn stop(&self) {
        self.stop.send(()).unwrap();
    }
}

/// The head of a response of gRPC.
pub fn grpc_head() -> Response<()> {
    Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

/// The fields that end one.
pub fn grpc_end(status: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", status.parse().unwrap());
    fields.insert("grpc-message", "it%20is".parse().unwrap());
    fields
}

/// A call of gRPC.
pub fn call(path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// A connection of the front, on which frames are written by hand. The preface was read.
pub fn raw(upstream: &Upstream) -> Raw {
    let mut raw = Raw::of(upstream.listener.accept().unwrap().0);
    raw.preface();
    raw.settings(&[]);
    raw
}

/// Takes what the front sends up to the head of a request; the stream of that.
pub fn head(raw: &mut Raw) -> u32 {
    raw.find(|frame| frame.kind == crate::http2::HEADERS).stream
}
