//! Messages to the init system: sd_notify(3). Without `NOTIFY_SOCKET` there are none.
//!
//! Never blocks: the queue of a datagram socket is short, and an init system that stops reading must not stop the
//! supervision. Messages that do not fit are queued; of several status messages only the last is kept.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::pipe2;

/// systemd ignores longer messages.
const MAX_MESSAGE: usize = 4096;

/// How long a process that cannot start waits for the init system, in milliseconds.
const BARRIER_MS: u16 = 200;

/// The connection to the init system.
pub struct Init {
    /// The interval of keep-alive messages.
    watchdog: Option<Duration>,
    socket: Option<UnixDatagram>,
    waiting: VecDeque<Message>,
    short_of_memory: bool,
}

/// A queued message. A status-only message is replaced by the next one.
struct Message {
    text: String,
    status_only: bool,
    /// The descriptor that is passed with it.
    passed: Option<OwnedFd>,
}

impl Init {
    /// Finds the socket of the init system in the environment.
    ///
    /// # Errors
    /// `NOTIFY_SOCKET` is set, but cannot be connected to.
    pub fn find() -> io::Result<Self> {
        let socket = match std::env::var_os("NOTIFY_SOCKET") {
            Some(address) if !address.is_empty() => Some(connect(&address)?),
            _ => None,
        };
        let waiting = VecDeque::new();
        let watchdog = socket.as_ref().and_then(|_| watchdog());
        Ok(Self {
            watchdog,
            socket,
            waiting,
            short_of_memory: false,
        })
    }

    /// Without an init system.
    pub fn absent() -> Self {
        Self {
            watchdog: None,
            socket: None,
            waiting: VecDeque::new(),
            short_of_memory: false,
        }
    }

    /// The descriptor to poll: writable when queued messages fit.
    pub fn fd(&self) -> Option<RawFd> {
        self.socket.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Whether messages are queued for which no event will come. Call [`Init::flush`] after a while.
    pub fn is_short_of_memory(&self) -> bool {
        self.short_of_memory
    }

    /// The interval for [`Init::alive`]: half of `WatchdogSec=`, as sd_watchdog_enabled(3) recommends.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends the keep-alive message.
    pub fn alive(&mut self) {
        // Queued messages are older. An init system that does not read them does not read this one either.
        if self.waiting.is_empty() {
            self.send("WATCHDOG=1".to_owned(), false);
        }
    }

    /// Asks for more time for the start, reload or stop that goes on, whatever the limits of the unit are.
    pub fn more_time(&mut self, time: Duration) {
        // See `alive`.
        if self.waiting.is_empty() {
            let text = format!("EXTEND_TIMEOUT_USEC={}", time.as_micros());
            self.send(text, false);
        }
    }

    /// All apps run.
    pub fn ready(&mut self, status: &str) {
        self.send(message("READY=1\n", status), false);
    }

    /// A reload has begun. [`Init::ready`] ends it, also if the reload failed.
    pub fn reloading(&mut self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
            i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1000
        });
        let facts = format!("RELOADING=1\nMONOTONIC_USEC={now}\n");
        self.send(message(&facts, "reloading"), false);
    }

    /// The stop has begun.
    pub fn stopping(&mut self, status: &str) {
        self.send(message("STOPPING=1\n", status), false);
    }

    /// One line for `systemctl status`.
    pub fn status(&mut self, status: &str) {
        self.send(message("", status), true);
    }

    /// The service cannot start, for this reason. Returns when the init system has read it, so that it still knows this process, or
    /// after a short time if it does not say so.
    pub fn failed(mut self, status: &str, errno: Option<i32>) {
        let facts = errno.map(|errno| format!("ERRNO={errno}\n"));
        let text = message(&facts.unwrap_or_default(), status);
        self.send(text, false);
        // It closes the end that it gets when it comes to the message: sd_notify_barrier(3).
        let Ok((ours, theirs)) = pipe2(OFlag::O_CLOEXEC) else {
            return;
        };
        self.queue("BARRIER=1".to_owned(), false, Some(theirs));
        self.waiting.clear();
        if self.socket.is_some() {
            let mut look = [PollFd::new(ours.as_fd(), PollFlags::empty())];
            let _ = poll(&mut look, BARRIER_MS);
        }
    }

    /// Has a listening socket kept under a name, for the next master. Whether it can be polled does not matter.
    pub fn keep(&mut self, name: &str, socket: OwnedFd) {
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        self.queue(text, false, Some(socket));
    }

    /// Has what is kept under a name closed.
    pub fn forget(&mut self, name: &str) {
        self.queue(format!("FDSTOREREMOVE=1\nFDNAME={name}"), false, None);
    }

    fn send(&mut self, text: String, status_only: bool) {
        // Every message but those of sockets contains a status, so an older status-only message is obsolete.
        self.waiting.retain(|message| !message.status_only);
        self.queue(text, status_only, None);
    }

    fn queue(&mut self, text: String, status_only: bool, passed: Option<OwnedFd>) {
        if self.socket.is_none() {
            return;
        }
        self.waiting.push_back(Message {
            text,
            status_only,
            passed,
        });
        self.flush();
    }

    /// Sends queued messages as far as they fit.
    pub fn flush(&mut self) {
        self.short_of_memory = false;
        let Some(socket) = &self.socket else { return };
        while let Some(message) = self.waiting.front() {
            let bytes = [IoSlice::new(message.text.as_bytes())];
            let passed = message.passed.as_ref().map(|passed| [passed.as_raw_fd()]);
            let passed = passed.as_ref().map(|fds| ControlMessage::ScmRights(fds));
            let (to, flags) = (
                socket.as_raw_fd(),
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            );
            match sendmsg::<UnixAddr>(to, &bytes, passed.as_slice(), flags, None) {
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => continue,
                // Out of buffers, or too many descriptors on their way: the kernel does not report when that changes.
                Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS) => {
                    self.short_of_memory = true;
                    return;
                }
                Err(error) => log::debug!("cannot send a message to the init system: {error}"),
                Ok(_) => {}
            }
            self.waiting.pop_front();
        }
    }
}

/// The assignments, one per line, and a status cut to the remaining space. The status may quote the output of a worker.
fn message(facts: &str, status: &str) -> String {
    const KEY: &str = "STATUS=";
    const CUT: &str = "…";
    let status: String = status
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let room = MAX_MESSAGE.saturating_sub(facts.len() + KEY.len());
    if status.len() <= room {
        return format!("{facts}{KEY}{status}");
    }
    let most = room.saturating_sub(CUT.len());
    let end = (0..=most).rev().find(|&end| status.is_char_boundary(end));
    let status = &status[..end.unwrap_or(0)];
    format!("{facts}{KEY}{status}{CUT}")
}

fn watchdog() -> Option<Duration> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let every = number("WATCHDOG_USEC").filter(|&every| ours && every > 0)?;
    Some(Duration::from_micros(every) / 2)
}

fn connect(address: &OsString) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_any_length_and_content_is_one_line_that_fits() {
        assert_eq!(message("READY=1\n", "web 2/2"), "READY=1\nSTATUS=web 2/2");
        let forged = message("", "web\nMAINPID=1\r\x1b[2J\u{85}");
        assert_eq!(forged, "STATUS=web MAINPID=1  [2J ");
        let facts = "RELOADING=1\nMONOTONIC_USEC=1\n";
        for text in ["x", "ä", "€", "😀"] {
            for length in [
                4000, 4040, 4053, 4054, 4055, 4056, 4057, 4060, 4096, 100_000,
            ] {
                let text = message(facts, &text.repeat(length));
                assert!(
                    text.len() <= MAX_MESSAGE && text.len() > 4000,
                    "{}",
                    text.len()
                );
                assert!(text.starts_with(facts));
                assert_eq!(text.lines().count(), 3);
            }
        }
        let cut = message("", &"x".repeat(MAX_MESSAGE));
        assert!(
            cut.ends_with("x…") && cut.len() == MAX_MESSAGE,
            "{}",
            cut.len()
        );
        let whole = message("", &"x".repeat(MAX_MESSAGE - "STATUS=".len()));
        assert!(whole.ends_with('x') && whole.len() == MAX_MESSAGE);
    }
}
