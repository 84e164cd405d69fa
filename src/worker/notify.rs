//! Datagrams to the master: readiness and status (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The worker accepts requests.
pub const READY: &str = "READY=1";
/// The worker accepts no more and finishes what it serves.
pub const STOPPING: &str = "STOPPING=1";
/// The worker has begun a request, and the master wanted to know (scoreboard, word 53).
pub const BUSY: &str = "BUSY=1";
/// Prefix of a request to be replaced, with the reason in words: a fresh worker becomes ready first.
pub const RETIRE: &str = "RETIRE=";
/// A sign of life for `watchdog`.
pub const WATCHDOG: &str = "WATCHDOG=1";
/// Prefix of what the worker does in its own words, for `preforkd status`.
pub const STATUS: &str = "STATUS=";

/// The way to the master; made from `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// `address` as in `NOTIFY_SOCKET`: a path, or an abstract name with `@` in front (sd_notify(3)).
    ///
    /// # Errors
    /// An address longer than a unix socket's may be, or no descriptor left.
    pub fn new(address: &str) -> io::Result<Self> {
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        Ok(Self {
            socket: UnixDatagram::unbound()?,
            address,
        })
    }

    /// Sends one message, such as [`READY`]; several lines may stand in one message. Waits while the master's
    /// queue is full, unless [`Notifier::set_nonblocking`] was called.
    ///
    /// # Errors
    /// The master is gone, or does not read.
    pub fn send(&self, message: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(message.as_bytes(), &self.address)
            .map(drop)
    }
}

impl Notifier {
    /// From now on a full queue is an error: a worker that serves must not wait for its master.
    ///
    /// # Errors
    /// The socket cannot be changed.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_an_abstract_socket() {
        let name = format!("preforkd-notify-test-{}", std::process::id());
        let master =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::new(&format!("@{name}"))
            .unwrap()
            .send(READY)
            .unwrap();
        let mut buf = [0; 64];
        let n = master.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"READY=1");
    }

    #[test]
    fn a_master_that_is_gone_is_an_error() {
        let notifier = Notifier::new("@preforkd-notify-test-nobody").unwrap();
        assert!(notifier.send(READY).is_err());
    }
}
