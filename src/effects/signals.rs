//! Signals as an event source, with their senders. (signal-hook-mio cannot be registered in the form that reports the
//! sender.)

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::sys::signal::Signal;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// Who has sent it.
    pub sender: Sender,
}

/// The sender of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A process.
    Process(i32),
    /// The kernel: a key was pressed on the terminal, the terminal was closed, or a child has changed.
    Kernel,
    /// The kernel does not say.
    Unknown,
}

impl Sender {
    fn of(origin: &Origin) -> Self {
        match (origin.cause, &origin.process) {
            (Cause::Kernel, _) => Self::Kernel,
            (_, Some(process)) => Self::Process(process.pid),
            (_, None) => Self::Unknown,
        }
    }
}

/// Catches signals from its creation on.
pub struct Signals {
    /// Whether SIGHUP was ignored before.
    pub ignored_hang_up: bool,
    delivery: SignalDelivery<UnixStream, WithOrigin>,
    /// Those that were looked at and not handled yet.
    kept: Vec<Arrived>,
}

impl Signals {
    /// Catches these signals.
    ///
    /// # Errors
    /// No descriptor is available, or a signal cannot be caught.
    pub fn catch(numbers: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let ignored_hang_up = ignores_hang_up();
        let (read, write) = UnixStream::pair()?;
        let delivery =
            SignalDelivery::with_pipe(read, OwnedFd::from(write), WithOrigin::default(), numbers)?;
        Ok(Self {
            ignored_hang_up,
            delivery,
            kept: Vec::new(),
        })
    }

    /// Registers for events.
    ///
    /// # Errors
    /// The kernel refuses another descriptor.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.delivery.get_read_mut(), token, Interest::READABLE)
    }

    /// The descriptor that [`Signals::register`] registers.
    pub fn fd(&self) -> RawFd {
        self.delivery.get_read().as_raw_fd()
    }

    /// The signals that have arrived. The kernel merges pending standard signals of the same number.
    pub fn arrived(&mut self) -> Vec<Arrived> {
        let origins = self.delivery.pending();
        let arrived = |origin: Origin| Arrived {
            number: origin.signal,
            sender: Sender::of(&origin),
        };
        let mut all = std::mem::take(&mut self.kept);
        all.extend(origins.map(arrived));
        all
    }

    /// Whether one has arrived that ends a process by default. All are kept for [`Signals::arrived`].
    pub fn end_this(&mut self) -> bool {
        self.kept = self.arrived();
        let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT].map(|signal| signal as i32);
        self.kept
            .iter()
            .any(|arrived| ends.contains(&arrived.number))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// Whether this process was started with SIGHUP ignored, as nohup(1) does it: proc_pid_status(5). To be asked before it is caught.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (Signal::SIGHUP as u64 - 1) != 0)
}
