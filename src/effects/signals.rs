//! Signals as an event source, with their senders. (signal-hook-mio cannot be registered in the form that reports the
//! sender.)

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// The sending process, if a process sent it.
    pub sender: Option<i32>,
}

/// Catches signals from its creation on.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithOrigin>,
}

impl Signals {
    /// Catches these signals.
    ///
    /// # Errors
    /// No descriptor is available, or a signal cannot be caught.
    pub fn catch(numbers: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let delivery =
            SignalDelivery::with_pipe(read, OwnedFd::from(write), WithOrigin::default(), numbers)?;
        Ok(Self { delivery })
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
        let arrived = |origin: signal_hook::low_level::siginfo::Origin| Arrived {
            number: origin.signal,
            sender: origin.process.map(|process| process.pid),
        };
        origins.map(arrived).collect()
    }
}
