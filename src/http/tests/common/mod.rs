//! A server on a thread of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use preforkd_http::layer::Layer;
use preforkd_http::{Config, FrontListeners, serve_inline, serve_pool};
use preforkd_http::{Files, Handler, Limits, pool};
use rustix::event::{EventfdFlags, eventfd};

/// Serves one listener.
pub fn config(limits: Limits, listener: TcpListener, stop: OwnedFd) -> Config {
    Config {
        limits: Arc::new(limits),
        listeners: vec![listener.into()],
        files: Files::default(),
        private: false,
        front: FrontListeners::default(),
        proxy_protocol: None,
        layers: Vec::new(),
        stop: vec![stop],
        signals: None,
    }
}

/// A server until `stop`.
pub struct Running {
    address: SocketAddr,
    stop: OwnedFd,
    thread: thread::JoinHandle<()>,
}

/// Serves with so many threads for the handler; with none, on the loop's own.
pub fn start<H: Handler + Clone + Send + 'static>(
    threads: usize,
    limits: Limits,
    handler: H,
) -> Running {
    start_with(threads, limits, handler, Vec::new())
}

/// The same, with layers.
pub fn start_with<H: Handler + Clone + Send + 'static>(
    threads: usize,
    limits: Limits,
    handler: H,
    layers: Vec<Arc<dyn Layer>>,
) -> Running {
    start_as(threads, limits, handler, |config| config.layers = layers)
}

/// The same, with a configuration that is changed first.
pub fn start_as<H: Handler + Clone + Send + 'static>(
    threads: usize,
    limits: Limits,
    handler: H,
    change: impl FnOnce(&mut Config),
) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let mut config = config(limits, listener, stop.as_fd().try_clone_to_owned().unwrap());
    change(&mut config);
    let thread = thread::spawn(move || {
        let mut handler = handler;
        if threads == 0 {
            serve_inline(config, &mut handler, ()).unwrap();
        } else {
            let (pool, seats) = pool(threads).unwrap();
            let threads: Vec<_> = seats
                .into_iter()
                .map(|seat| {
                    let mut handler = handler.clone();
                    thread::spawn(move || seat.run(&mut handler))
                })
                .collect();
            serve_pool(config, pool, ()).unwrap();
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        }
    });
    Running {
        address,
        stop,
        thread,
    }
}

impl Running {
    /// A client.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Asks it to end.
    pub fn ask_to_stop(&self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
    }

    /// Ends it.
    pub fn stop(self) {
        self.ask_to_stop();
        self.thread.join().unwrap();
    }
}
