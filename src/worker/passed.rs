//! What a worker of ours has from its master: variables and descriptors.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use crate::connections::Connections;
use crate::counters::Counters;
use crate::env::{self, Environment};
use crate::purges::Purges;
use crate::running::Running;
use crate::scoreboard::Record;
use crate::{logger, sys};

/// Everything that the master passes to all kinds of worker.
#[derive(Debug)]
pub struct Passed {
    /// The variables.
    pub environment: Environment,
    /// The listeners, in the order of their names.
    pub listeners: Vec<OwnedFd>,
    /// The memory of the scoreboard.
    pub scoreboard: Option<OwnedFd>,
    /// A template's socket to the master.
    pub template: Option<OwnedFd>,
    /// What becomes standard error when the process is ready.
    pub stderr: Option<OwnedFd>,
    /// The pipe of the access log.
    pub access_log: Option<OwnedFd>,
    /// The listener over which the master checks the first worker.
    pub check: Option<OwnedFd>,
    /// At its end the worker drains.
    pub stop: Option<OwnedFd>,
    /// The settings of a front worker.
    pub front: Option<OwnedFd>,
    /// The number of the listener that only this worker has, among the listeners.
    pub own: Option<usize>,
    /// The socket of its updates.
    pub updates: Option<OwnedFd>,
    /// By which workers of the front wake each other.
    pub wake: Option<OwnedFd>,
}

impl Passed {
    /// Reads the variables through `get`, and takes over the descriptors that they name. Log lines name the process from now on.
    ///
    /// # Errors
    /// A variable is wrong, or a descriptor is not there; the whole message.
    pub fn take(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let environment = Environment::parse(&get, std::process::id()).map_err(|error| {
            format!(
                "could not read the environment of the worker: {error} (only preforkd can start it)"
            )
        })?;
        logger::set_process(&environment);
        let adopt = |fd| sys::adopt(fd).map_err(could_not(format!("take over descriptor {fd}")));
        let stderr = environment.stderr_fd.map(adopt).transpose()?;
        if let Some(end) = &stderr {
            logger::look_at_stderr(end);
        }
        let own = environment.own_fd.map(adopt).transpose()?;
        let mut passed = Self {
            listeners: (0..environment.listeners as i32)
                .map(|n| adopt(env::FIRST_LISTENER + n))
                .collect::<Result<_, _>>()?,
            scoreboard: environment.scoreboard_fd.map(adopt).transpose()?,
            template: environment.template.map(adopt).transpose()?,
            stderr,
            access_log: environment.access_log_fd.map(adopt).transpose()?,
            check: environment.check_fd.map(adopt).transpose()?,
            stop: environment.stop_fd.map(adopt).transpose()?,
            front: environment.front_fd.map(adopt).transpose()?,
            own: None,
            updates: environment.updates_fd.map(adopt).transpose()?,
            wake: environment.wake_fd.map(adopt).transpose()?,
            environment,
        };
        if let Some(own) = own {
            passed.add_own(own);
        }
        Ok(passed)
    }

    /// Adds a listener that only this worker has. What it is told there counts as on the listener that all workers share for the front.
    pub fn add_own(&mut self, own: OwnedFd) {
        self.own = Some(self.listeners.len());
        let names = &mut self.environment.listener_names;
        names.resize(self.listeners.len(), String::new());
        names.push(env::FRONT_LISTENER.to_owned());
        self.listeners.push(own);
    }

    /// Goes over from the pipe on which the master reads during a start to the standard error of a ready process. What the process has
    /// buffered belongs to the start.
    ///
    /// # Errors
    /// Standard error cannot be replaced; the whole message.
    pub fn take_stderr_over(&mut self) -> Result<(), String> {
        let Some(stderr) = self.stderr.take() else {
            return Ok(());
        };
        rustix::stdio::dup2_stderr(&stderr).map_err(could_not("change standard error"))?;
        logger::look_at_stderr(io::stderr());
        Ok(())
    }

    /// The memory that the workers of the app share, behind the records of the scoreboard.
    ///
    /// # Errors
    /// It cannot be mapped; the whole message.
    pub fn shared(&self) -> Result<Option<&'static [AtomicU64]>, String> {
        self.mapped(sys::map_shared, "shared memory")
    }

    /// The numbers of what was purged from the cache of the front, behind the scoreboard.
    ///
    /// # Errors
    /// They cannot be mapped; the whole message.
    pub fn purges(&self) -> Result<Option<Purges>, String> {
        let words = self.mapped(sys::map_purges, "the numbers of what was purged")?;
        Ok(words.map(Purges::new))
    }

    /// The counters that all workers of the front share, behind the scoreboard.
    ///
    /// # Errors
    /// They cannot be mapped; the whole message.
    pub fn counters(&self) -> Result<Option<Counters>, String> {
        let words = self.mapped(sys::map_counters, "the counters")?;
        Ok(words.map(Counters::new))
    }

    /// The worker's part in the counts of open connections, behind the scoreboard; none if so many workers have one already.
    ///
    /// # Errors
    /// They cannot be mapped; the whole message.
    pub fn connections(&self) -> Result<Option<Connections>, String> {
        let what = "the counts of open connections";
        self.part(sys::map_connections, what, Connections::begin)
    }

    /// The worker's part in the counts of running requests, behind the scoreboard; none if so many workers have one already.
    ///
    /// # Errors
    /// They cannot be mapped; the whole message.
    pub fn running(&self) -> Result<Option<Running>, String> {
        let what = "the counts of running requests";
        self.part(sys::map_running, what, Running::begin)
    }

    fn mapped(&self, map: Map, what: &str) -> Result<Option<&'static [AtomicU64]>, String> {
        let words = self.scoreboard.as_ref().map(map).transpose();
        words.map_err(could_not(format!("map {what}")))
    }

    /// What `begin` makes of the memory for the record and the process of the worker.
    fn part<T>(
        &self,
        map: Map,
        what: &str,
        begin: impl FnOnce(&'static [AtomicU64], u32, u32) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(record) = self.environment.scoreboard_record else {
            return Ok(None);
        };
        let words = self.mapped(map, what)?;
        Ok(words.and_then(|words| begin(words, record, std::process::id())))
    }

    /// Takes the worker's record of the scoreboard, if there is one.
    ///
    /// # Errors
    /// The scoreboard cannot be mapped; the whole message.
    pub fn begin_record(&self) -> Result<Option<Record>, String> {
        let (Some(memory), Some(index)) = (&self.scoreboard, self.environment.scoreboard_record)
        else {
            return Ok(None);
        };
        let what = format!("map record {index} of the scoreboard");
        let words = sys::map_record(memory, index).map_err(could_not(what))?;
        let record = Record::new(words);
        record.begin(std::process::id());
        Ok(Some(record))
    }
}

/// Takes over the memory file that a process other than a worker has been passed as its descriptor of this number.
///
/// # Errors
/// There is none, or it was taken over before.
pub fn descriptor(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
    sys::adopt(env::FIRST_LISTENER.saturating_add(number))
}

/// Maps a part of the memory of the scoreboard.
type Map = fn(&OwnedFd) -> io::Result<&'static [AtomicU64]>;

fn could_not<E: Into<io::Error>>(what: impl fmt::Display) -> impl Fn(E) -> String {
    move |error| format!("could not {what}: {}", error.into())
}
