//! The poll: one map from descriptors to the event sources that they belong to.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use log::warn;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::master::world::Source;

/// The retry interval of what has failed for lack of memory.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// The maximum number of events read at a time.
const MAX_EVENTS: usize = 256;

/// The polled descriptors. The token of each is its number.
pub(super) struct Watches {
    poll: Poll,
    events: Events,
    /// Its source; `None` where an event only ends the wait.
    sources: HashMap<RawFd, Option<Source>>,
}

impl Watches {
    /// A poll of nothing yet.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            sources: HashMap::new(),
        })
    }

    /// Polls a descriptor that registers itself, under this token.
    ///
    /// # Errors
    /// The kernel does not poll one more descriptor.
    pub(super) fn register(
        &mut self,
        fd: RawFd,
        source: Source,
        register: impl FnOnce(&Registry, Token) -> io::Result<()>,
    ) -> io::Result<()> {
        register(self.poll.registry(), Token(fd as usize))?;
        self.sources.insert(fd, Some(source));
        Ok(())
    }

    /// Polls a descriptor.
    ///
    /// # Errors
    /// The kernel does not poll one more descriptor.
    pub(super) fn add(
        &mut self,
        fd: RawFd,
        source: Option<Source>,
        interest: Interest,
    ) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd), Token(fd as usize), interest)?;
        self.sources.insert(fd, source);
        Ok(())
    }

    /// Polls a descriptor for reading.
    ///
    /// # Errors
    /// The kernel does not poll one more descriptor.
    pub(super) fn add_readable(&mut self, fd: RawFd, source: Source) -> io::Result<()> {
        self.add(fd, Some(source), Interest::READABLE)
    }

    /// Polls a descriptor no more.
    pub(super) fn remove(&mut self, fd: RawFd) {
        self.sources.remove(&fd);
        // Closing is not enough while a child between fork and exec still holds a copy.
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
    }

    /// Polls the descriptors of a source no more until they are resumed.
    pub(super) fn pause(&mut self, source: &Source) {
        for fd in self.of(source) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
    }

    /// Polls the descriptors of a source again, for reading; what waits there is reported.
    ///
    /// # Errors
    /// The kernel does not poll one more descriptor.
    pub(super) fn resume(&mut self, source: &Source) -> io::Result<()> {
        self.of(source).into_iter().try_for_each(|fd| {
            let registry = self.poll.registry();
            // It may have been added since the others were paused.
            let _ = registry.deregister(&mut SourceFd(&fd));
            registry.register(&mut SourceFd(&fd), Token(fd as usize), Interest::READABLE)
        })
    }

    fn of(&self, source: &Source) -> Vec<RawFd> {
        let known = self.sources.iter();
        let known = known.filter(|(_, known)| known.as_ref() == Some(source));
        known.map(|(&fd, _)| fd).collect()
    }

    /// Forgets the descriptors of a source, which were closed.
    pub(super) fn forget(&mut self, source: &Source) {
        self.sources
            .retain(|_, known| known.as_ref() != Some(source));
    }

    /// Whether a descriptor is polled for this source.
    pub(super) fn has(&self, fd: RawFd, source: &Source) -> bool {
        self.sources
            .get(&fd)
            .is_some_and(|known| known.as_ref() == Some(source))
    }

    /// Waits for events, at most for this time; returns their sources.
    ///
    /// # Errors
    /// The poll is broken beyond repair.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<BTreeSet<Source>> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // By a signal, which counts even if its handler could not queue an event.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                warn!("cannot wait for events: {error}; retrying");
                let _ = self.poll.poll(&mut self.events, Some(RETRY));
            }
            Err(error) => return Err(error),
        }
        let source = |event: &mio::event::Event| self.sources.get(&(event.token().0 as RawFd));
        let sources = self.events.iter().filter_map(source).flatten();
        Ok(sources.cloned().collect())
    }
}
