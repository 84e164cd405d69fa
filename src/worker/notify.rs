//! Datagrams to the master: readiness and status (sd_notify(3)).

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::text::{LONGEST, clean};

const READY: &str = "READY=1";
const STOPPING: &str = "STOPPING=1";
const BUSY: &str = "BUSY=1";
const WATCHDOG: &str = "WATCHDOG=1";
const STATUS: &str = "STATUS=";
const RETIRE: &str = "RETIRE=";

/// One thing that a worker tells the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The worker accepts requests.
    Ready,
    /// The worker accepts no more and finishes what it serves.
    Stopping,
    /// The worker has begun a request, and the master wanted to know (scoreboard, word 53).
    Busy,
    /// A sign of life for `watchdog`.
    Watchdog,
    /// What the worker does in its own words, for `preforkd status`.
    Status(String),
    /// The worker asks to be replaced, with the reason in words: a fresh worker becomes ready first.
    Retire(String),
}

impl Notice {
    /// The line of a message that says it.
    pub fn encode(&self) -> Cow<'static, str> {
        match self {
            Self::Ready => READY.into(),
            Self::Stopping => STOPPING.into(),
            Self::Busy => BUSY.into(),
            Self::Watchdog => WATCHDOG.into(),
            Self::Status(text) => (STATUS.to_owned() + &clean(text, LONGEST)).into(),
            Self::Retire(reason) => (RETIRE.to_owned() + &clean(reason, LONGEST)).into(),
        }
    }
}

/// What one datagram tells. Its lines are facts without an order: a worker that says one a hundred times in a datagram has
/// said it once.
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
    /// The last [`Notice::Status`], cleaned and at most [`LONGEST`] characters long.
    pub status: Option<String>,
    /// The last [`Notice::Retire`], cleaned and at most [`LONGEST`] characters long.
    pub retire: Option<String>,
}

impl Message {
    /// Reads a datagram. Other lines are ignored, as sd_notify(3) has more than these; any bytes are a message.
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
                        message.status = Some(clean(text, LONGEST));
                    } else if let Some(reason) = line.strip_prefix(RETIRE) {
                        message.retire = Some(clean(reason, LONGEST));
                    }
                }
            }
        }
        message
    }
}

/// The way to the master; made from `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
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

    /// Tells the master one thing. Waits while the master's queue is full, unless [`Notifier::set_nonblocking`] was called.
    ///
    /// # Errors
    /// The master is gone, or does not read.
    pub fn tell(&self, notice: &Notice) -> io::Result<()> {
        self.send(&notice.encode())
    }

    /// Sends a message as it is; several lines may stand in it. Waits as [`Notifier::tell`] does.
    ///
    /// # Errors
    /// The master is gone, or does not read.
    pub fn send(&self, message: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(message.as_bytes(), &self.address)
            .map(drop)
    }

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
            .tell(&Notice::Ready)
            .unwrap();
        let mut buf = [0; 64];
        let n = master.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"READY=1");
    }

    #[test]
    fn a_master_that_is_gone_is_an_error() {
        let notifier = Notifier::new("@preforkd-notify-test-nobody").unwrap();
        assert!(notifier.tell(&Notice::Ready).is_err());
    }

    #[test]
    fn what_a_worker_says_is_what_the_master_hears() {
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
    fn a_datagram_has_many_lines_and_those_of_others_are_ignored() {
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
        assert!(status.starts_with("[2Jx") && status.chars().count() == LONGEST);
        let message = Message::parse(b"RETIRE=\xff\xe2\x80\xaeold\r");
        assert_eq!(message.retire.as_deref(), Some("\u{fffd}old"));
    }
}
