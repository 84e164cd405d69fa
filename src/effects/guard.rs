//! The master's side of its guard ([`crate::guard`]): notes what was started in the table, and starts the guard again if it dies.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use super::launch;
use crate::guard::COMMAND;
use crate::guard::sockets::Queue;
use crate::guard::table::{Files, Record, Table};

/// The minimum interval between two starts of a guard.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The guard, and the table.
pub struct Guard {
    table: Table,
    /// The listeners that it is to hand to the next master, and the names and numbers of what is in it.
    queue: Queue,
    queued: Vec<(String, u64)>,
    /// The end that nobody else holds: it closes when the master dies.
    held: Option<OwnedFd>,
    /// The guard's end, kept for the next guard.
    theirs: OwnedFd,
    pid: Option<Pid>,
    /// When the next one may be started.
    not_before: Instant,
    /// The places of sessions, by their leaders.
    sessions: HashMap<Pid, u32>,
    /// The places of apps, by their notify sockets.
    apps: BTreeMap<String, u32>,
    free: Vec<u32>,
    next: u32,
}

impl Guard {
    /// A guard that was not started yet, for a master with these files.
    ///
    /// # Errors
    /// No descriptor or no memory is available.
    pub fn new(files: &Files, now: Instant) -> io::Result<Self> {
        let (theirs, held) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self {
            table: Table::new(files)?,
            queue: Queue::new()?,
            queued: Vec::new(),
            held: Some(held),
            theirs,
            pid: None,
            not_before: now,
            sessions: HashMap::new(),
            apps: BTreeMap::new(),
            free: Vec::new(),
            next: 0,
        })
    }

    /// Starts it if it does not run, and has not been started just now. Returns its process if so.
    ///
    /// # Errors
    /// The process cannot be created.
    pub fn ensure(&mut self, now: Instant) -> io::Result<Option<Pid>> {
        if self.pid.is_some() || now < self.not_before {
            return Ok(None);
        }
        self.not_before = now + MIN_INTERVAL;
        let fds = vec![self.theirs.as_fd(), self.table.as_fd(), self.queue.end()];
        self.pid = Some(launch::own_that_outlives([COMMAND.into()], fds)?);
        Ok(self.pid)
    }

    /// When to start it again, if it does not run.
    pub fn deadline(&self) -> Option<Instant> {
        self.pid.is_none().then_some(self.not_before)
    }

    /// Its process, if it runs.
    pub fn process(&self) -> Option<Pid> {
        self.pid
    }

    /// A process was reaped. Returns whether it was the guard.
    pub fn ended(&mut self, pid: Pid) -> bool {
        self.pid.take_if(|guard| *guard == pid).is_some()
    }

    /// The master has these files now.
    ///
    /// # Errors
    /// No memory is available.
    pub fn name(&self, files: &Files) -> io::Result<()> {
        self.table.name(files)
    }

    /// The next master is to get these sockets if this one dies, by their names and the numbers that the kernel has given them, and no
    /// others.
    ///
    /// # Errors
    /// There is no room for all, or too many descriptors are on their way to processes of this user: unix(7), ETOOMANYREFS.
    pub fn leave_sockets(&mut self, sockets: &[(String, u64, BorrowedFd)]) -> io::Result<()> {
        let named = sockets.iter();
        let names: Vec<_> = named
            .map(|(name, number, _)| (name.clone(), *number))
            .collect();
        if names == self.queued {
            return Ok(());
        }
        self.queued = names;
        let sockets = sockets.iter();
        let sockets = sockets.map(|(name, _, socket)| (name.as_str(), *socket));
        self.queue.fill(sockets).map_err(io::Error::from)
    }

    /// Notes a session that has begun.
    ///
    /// # Errors
    /// No memory is available.
    pub fn note_session(&mut self, leader: Pid, record: &Record) -> io::Result<()> {
        self.forget_session(leader)?;
        let place = self.place();
        self.sessions.insert(leader, place);
        self.table.write(place, record)
    }

    /// Nothing of a session is left.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn forget_session(&mut self, leader: Pid) -> io::Result<()> {
        let place = self.sessions.remove(&leader);
        self.clear(place)
    }

    /// Notes how to end the processes of an app that have left their sessions.
    ///
    /// # Errors
    /// No memory is available.
    pub fn note_app(&mut self, record: &Record) -> io::Result<()> {
        let known = self.apps.get(&record.address).copied();
        let place = known.unwrap_or_else(|| self.place());
        self.apps.insert(record.address.clone(), place);
        self.table.write(place, record)
    }

    /// An app is gone, with this notify socket.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn forget_app(&mut self, address: &str) -> io::Result<()> {
        let place = self.apps.remove(address);
        self.clear(place)
    }

    /// Ends the guard, as nothing is left that it could end.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn leave(mut self) -> io::Result<()> {
        self.queue.empty();
        self.table.stop()?;
        self.held = None;
        if let Some(pid) = self.pid {
            kill(pid, Signal::SIGKILL)?;
            while waitpid(pid, None) == Err(Errno::EINTR) {}
        }
        Ok(())
    }

    fn place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn clear(&mut self, place: Option<u32>) -> io::Result<()> {
        let Some(place) = place else { return Ok(()) };
        self.free.push(place);
        self.table.clear(place)
    }
}
