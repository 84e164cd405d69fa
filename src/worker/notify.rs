//! Datagrams to the master: readiness and status (sd_notify(3)).

use std::borrow::Cow;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::text::{MAX_LENGTH, clean};

const READY: &str = "READY=1";
const STOPPING: &str = "STOPPING=1";
const BUSY: &str = "BUSY=1";
const WATCHDOG: &str = "WATCHDOG=1";
const STATUS: &str = "STATUS=";
const RETIRE: &str = "RETIRE=";

/// A message from a worker to the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The worker accepts requests.
    Ready,
    /// The worker no longer accepts requests and finishes those it has.
    Stopping,
    /// The worker has begun a request, as the master wanted to know (scoreboard, word 53).
    Busy,
    /// The worker is alive, for `watchdog`.
    Watchdog,
    /// A status text of the worker, for `preforkd status`.
    Status(String),
    /// The worker asks to be replaced, for this reason. The new worker becomes ready first.
    Retire(String),
}

impl Notice {
    /// Encodes it as a line of a datagram.
    pub fn encode(&self) -> Cow<'static, str> {
        match self {
            Self::Ready => READY.into(),
            Self::Stopping => STOPPING.into(),
            Self::Busy => BUSY.into(),
            Self::Watchdog => WATCHDOG.into(),
            Self::Status(text) => (STATUS.to_owned() + &clean(text, MAX_LENGTH)).into(),
            Self::Retire(reason) => (RETIRE.to_owned() + &clean(reason, MAX_LENGTH)).into(),
        }
    }
}

/// The contents of one datagram. The order of its lines does not matter, and repeated lines count once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// [`Notice::Ready`].
    pub ready: bool,
    /// [`Notice::Stopping`].
    pub stopping: bool,
    /// [`Notice::Busy`].
    pub busy: bool,
    /// [`Notice::Watchdog`].
    pub watchdog: bool,
    /// The last [`Notice::Status`], cleaned and truncated to [`MAX_LENGTH`] characters.
    pub status: Option<String>,
    /// The last [`Notice::Retire`], cleaned and truncated to [`MAX_LENGTH`] characters.
    pub retire: Option<String>,
}

impl Message {
    /// Parses a datagram. Other lines are ignored, because sd_notify(3) defines more; any bytes are accepted.
    pub fn parse(datagram: &[u8]) -> Self {
        let mut message = Self::default();
        for line in String::from_utf8_lossy(datagram).lines() {
            match line {
                READY => message.ready = true,
                STOPPING => message.stopping = true,
                BUSY => message.busy = true,
                WATCHDOG => message.watchdog = true,
                line => {
                    if let Some(text) = line.strip_prefix(STATUS) {
                        message.status = Some(clean(text, MAX_LENGTH));
                    } else if let Some(reason) = line.strip_prefix(RETIRE) {
                        message.retire = Some(clean(reason, MAX_LENGTH));
                    }
                }
            }
        }
        message
    }
}

/// A connection to the master, for the address in `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// Connects to `address`, a path or an abstract name after `@`, as in `NOTIFY_SOCKET` (sd_notify(3)).
    ///
    /// # Errors
    /// The address is too long for a unix socket, or no descriptor is available.
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

    /// Sends a notice. Waits while the master's queue is full, unless [`Notifier::set_nonblocking`] was called.
    ///
    /// # Errors
    /// The master is gone, or its queue is full.
    pub fn notify(&self, notice: &Notice) -> io::Result<()> {
        self.send(&notice.encode())
    }

    /// Sends a raw message, which may have several lines. Waits like [`Notifier::notify`].
    ///
    /// # Errors
    /// The master is gone, or its queue is full.
    pub fn send(&self, message: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(message.as_bytes(), &self.address)
            .map(drop)
    }

    /// Makes a full queue an error: a worker that serves must not wait for the master.
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
            .notify(&Notice::Ready)
            .unwrap();
        let mut buf = [0; 64];
        let n = master.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"READY=1");
    }

    #[test]
    fn it_is_an_error_if_the_master_is_gone() {
        let notifier = Notifier::new("@preforkd-notify-test-nobody").unwrap();
        assert!(notifier.notify(&Notice::Ready).is_err());
    }

    #[test]
    fn notices_survive_encoding() {
        let of = |notice: Notice| Message::parse(notice.encode().as_bytes());
        let none = Message::default;
        assert_eq!(
            of(Notice::Ready),
            Message {
                ready: true,
                ..none()
            }
        );
        assert_eq!(
            of(Notice::Stopping),
            Message {
                stopping: true,
                ..none()
            }
        );
        assert_eq!(
            of(Notice::Busy),
            Message {
                busy: true,
                ..none()
            }
        );
        assert_eq!(
            of(Notice::Watchdog),
            Message {
                watchdog: true,
                ..none()
            }
        );
        assert_eq!(
            of(Notice::Status("a\nREADY=1".into())),
            Message {
                status: Some("aREADY=1".into()),
                ..none()
            }
        );
        assert_eq!(
            of(Notice::Retire("old".into())),
            Message {
                retire: Some("old".into()),
                ..none()
            }
        );
    }

    #[test]
    fn a_datagram_has_many_lines_and_unknown_ones_are_ignored() {
        let message = Message::parse(b"MAINPID=7\nREADY=1\nSTATUS=one\nREADY=1\nSTATUS=two\nX\n");
        assert!(message.ready && !message.stopping && !message.busy && !message.watchdog);
        assert_eq!(message.status.as_deref(), Some("two"));
        for near in [
            "READY=0",
            "READY=1 ",
            " READY=1",
            "READY=11",
            "ready=1",
            "\0READY=1",
        ] {
            assert_eq!(Message::parse(near.as_bytes()), Message::default());
        }
    }

    #[test]
    fn texts_are_cleaned_and_bounded() {
        let long = format!("STATUS=\x1b[2J{}", "x".repeat(4000));
        let message = Message::parse(long.as_bytes());
        let status = message.status.expect("a status");
        assert!(status.starts_with("[2Jx") && status.chars().count() == MAX_LENGTH);
        let message = Message::parse(b"RETIRE=\xff\xe2\x80\xaeold\r");
        assert_eq!(message.retire.as_deref(), Some("\u{fffd}old"));
    }
}
