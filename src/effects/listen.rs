//! Listeners: bound once, or inherited from the init system, and kept open by the master as long as they are configured.
//!
//! A unix socket whose file was removed or replaced, or whose path leads to another folder by now, is bound anew at a reload. Then
//! its address has two sockets until the candidate takes over: the workers of each generation get theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use log::{info, warn};
use nix::errno::Errno;
use nix::sys::socket;
use nix::unistd::Pid;

use super::socket_file::{Rights, SocketFile, stream};
use crate::config::Address;
use crate::plan::Listener;

mod bind;
mod holder;
mod passed;
mod store;
mod waiting;

pub use store::Order;

use bind::{backlog, rights};
use passed::Passed;
use store::Kept;

/// Why a listener cannot be opened.
#[derive(Debug)]
pub struct Error {
    address: Address,
    reason: Reason,
}

/// For people, and the error of the system if it was one.
#[derive(Debug)]
struct Reason {
    text: String,
    errno: Option<Errno>,
    holders: Vec<Pid>,
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self {
            text,
            errno: None,
            holders: Vec::new(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error {
    /// The address of the listener.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The processes that have the address and the leaders of their sessions, as far as they are known.
    pub fn holders(&self) -> &[Pid] {
        &self.reason.holders
    }

    /// The number of the system's error, if it was one.
    pub fn errno(&self) -> Option<i32> {
        self.reason.errno.map(|errno| errno as i32)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.reason)
    }
}

impl std::error::Error for Error {}

/// What workers share as one listener.
struct Open {
    /// One, or all that the init system has passed with the same name.
    sockets: Vec<OwnedFd>,
    /// Its configuration.
    wanted: Listener,
    /// The generation that it was opened for.
    since: u64,
    /// Bound by the init system.
    inherited: bool,
    /// The file of a unix socket that the master has bound.
    file: Option<SocketFile>,
    /// It is bound and does not listen for now.
    refuses: bool,
    /// It was opened for a candidate that has not taken over.
    is_proposed: bool,
}

impl Open {
    /// A socket that is bound and does not listen.
    fn bound(wanted: &Listener, since: u64, socket: OwnedFd, file: Option<SocketFile>) -> Self {
        Self {
            sockets: vec![socket],
            wanted: wanted.clone(),
            since,
            inherited: false,
            file,
            refuses: true,
            is_proposed: false,
        }
    }

    /// Listens. Returns whether it did not.
    fn listen(&mut self) -> Result<bool, Reason> {
        if !self.refuses {
            return Ok(false);
        }
        for socket in &self.sockets {
            socket::listen(socket, backlog(&self.wanted)).map_err(|errno| Reason {
                text: errno.desc().to_owned(),
                errno: Some(errno),
                holders: Vec::new(),
            })?;
        }
        self.refuses = false;
        Ok(true)
    }

    /// Whether its path, if it has one, still leads to its socket.
    fn is_in_place(&self) -> bool {
        match (&self.wanted.address, &self.file) {
            (Address::Unix(path), Some(file)) => file.is_at(path),
            _ => true,
        }
    }

    /// Makes the file of its socket again if it was removed. Returns whether it was.
    ///
    /// # Errors
    /// It cannot be made again.
    fn restore(&self) -> Result<bool, String> {
        self.file.as_ref().map_or(Ok(false), SocketFile::restore)
    }

    /// Gives the file of a socket that is in place its spare name, if it needs one and has none, or has lost it.
    fn add_spare(&mut self, listener: &Listener) {
        if let Some(file) = &mut self.file
            && listener.is_lent
        {
            bind::add_spare(file, &listener.address, rights(&self.wanted));
        }
    }

    /// Applies changed settings.
    fn adapt(&self, listener: &Listener) -> Result<(), String> {
        if self.inherited {
            return Ok(());
        }
        if self.wanted.backlog != listener.backlog && !self.refuses {
            for socket in &self.sockets {
                // listen(2) on a listening socket only changes the length of its queue.
                socket::listen(socket, backlog(listener))
                    .map_err(|errno| errno.desc().to_owned())?;
            }
        }
        if let Some(file) = &self.file {
            file.change(rights(&self.wanted), rights(listener))?;
        }
        if self.wanted.v6only != listener.v6only {
            return Err("a change of whether it also accepts IPv4 needs a restart".into());
        }
        Ok(())
    }
}

/// All listeners of the master.
pub struct Listeners {
    /// For each address, the one that serves, and after it the one of the candidate if that has another.
    open: BTreeMap<Address, Vec<Open>>,
    /// Those that are not open: they could not be opened when they were configured, because somebody else has their address, or their app
    /// has no worker.
    missing: BTreeMap<Address, Listener>,
    /// The generation for which listeners were opened and that has not taken over.
    proposed: Option<u64>,
    passed: Vec<Passed>,
    /// Masters that were killed and of which something is left, until the first generation has taken over.
    ended: Vec<Pid>,
    /// Listeners of a candidate that were closed again, by their generation.
    discarded: BTreeSet<(Address, u64)>,
    /// The sockets that the init system keeps for the next master.
    kept: Kept,
    /// Whether the init system may keep sockets.
    can_be_kept: bool,
    /// Whether it is known to do so, so that the files of unix sockets are left for the next master.
    files_stay: bool,
}

impl Listeners {
    /// The sockets that the init system has passed: sd_listen_fds(3). Those that it has kept since the last master are listeners
    /// at once if they are wanted, and are closed if not.
    ///
    /// # Errors
    /// A socket that the environment names was not passed.
    pub fn inherit(wanted: &[Listener]) -> io::Result<Self> {
        let (kept, passed): (Vec<_>, Vec<_>) = Passed::all()?
            .into_iter()
            .partition(|passed| store::is_ours(passed.name()));
        let variable = |name: &str| std::env::var(name).ok();
        let mut listeners = Self {
            open: BTreeMap::new(),
            missing: BTreeMap::new(),
            proposed: None,
            ended: Vec::new(),
            passed,
            discarded: BTreeSet::new(),
            kept: Kept::new(),
            can_be_kept: !store::is_missing(variable),
            files_stay: !kept.is_empty() || store::is_announced(variable),
        };
        listeners.take_back(kept, wanted);
        Ok(listeners)
    }

    /// Opens the wanted listeners that are not open yet, and those whose path leads to another file by now. Returns their addresses,
    /// and why others that are not required cannot be opened. Of those that do not stay open while their app has no worker, this is only
    /// tried: [`Listeners::open_missing`] opens them.
    ///
    /// # Errors
    /// One of them that is required cannot be opened, or not be bound anew; then none is. One that is open stays as it is.
    pub fn open(
        &mut self,
        wanted: &[Listener],
        generation: u64,
    ) -> Result<(Vec<Address>, Vec<Error>), Error> {
        // Those of the first start serve as soon as they are open.
        self.proposed = Some(generation).filter(|generation| *generation > 0);
        self.open_all(wanted, generation, |_| false)
    }

    /// Opens the listeners of the first start. These masters have `ended`, and something is left of them that is about to end: so their
    /// unix sockets are replaced, and a listener counts as missing if the processes that have its address `may_end`. Returns why
    /// listeners are missing.
    ///
    /// # Errors
    /// One of them that is required cannot be opened.
    pub fn open_first(
        &mut self,
        wanted: &[Listener],
        ended: &[Pid],
        may_end: impl Fn(&[Pid]) -> bool,
    ) -> Result<Vec<Error>, Error> {
        self.ended = ended.to_vec();
        let may_wait = |error: &Error| {
            error.errno() == Some(Errno::EADDRINUSE as i32) && may_end(error.holders())
        };
        let (_, missing) = self.open_all(wanted, 0, may_wait)?;
        Ok(missing)
    }

    fn open_all(
        &mut self,
        wanted: &[Listener],
        generation: u64,
        may_wait: impl Fn(&Error) -> bool,
    ) -> Result<(Vec<Address>, Vec<Error>), Error> {
        let (mut opened, mut missing) = (Vec::new(), Vec::new());
        self.discarded.clear();
        for listener in wanted {
            let address = &listener.address;
            let mut open = self.open.get_mut(address).and_then(|all| all.last_mut());
            let is_open = open.is_some();
            if let Some(open) = &mut open {
                if listener.stays_open
                    && let Err(reason) = open.listen()
                {
                    let address = address.clone();
                    let error = Error { address, reason };
                    if listener.required {
                        self.close_proposed();
                        return Err(error);
                    }
                    missing.push(error);
                    continue;
                }
                if !open.is_in_place() && open.restore() == Ok(true) && open.is_in_place() {
                    info!("the file of {address} was removed; made it again");
                }
                if open.is_in_place() {
                    open.add_spare(listener);
                    continue;
                }
            }
            let listens = listener.stays_open || is_open;
            match self.new_one(listener, generation, listens) {
                // Whoever finds a file that nobody listens at takes it for one that was left behind.
                Ok(new) if new.refuses && new.file.is_some() => {
                    let missing = self.missing.entry(address.clone());
                    missing.or_insert_with(|| listener.clone());
                }
                Ok(new) => {
                    if is_open {
                        info!("the file of {address} was removed or replaced; bound a new socket");
                    }
                    self.open.entry(address.clone()).or_default().push(new);
                    opened.push(address.clone());
                }
                Err(reason) if is_open && !listener.required => warn!(
                    "{address}: its socket file was removed or replaced, and no new socket can be bound: {reason}; no client can connect"
                ),
                Err(mut reason) => {
                    if is_open {
                        reason.text = format!(
                            "its socket file was removed or replaced, so no client can connect, and no new socket can be bound: {reason}"
                        );
                    }
                    let address = address.clone();
                    let error = Error { address, reason };
                    if listener.required && !may_wait(&error) {
                        self.close_proposed();
                        return Err(error);
                    }
                    // That of the running generation may be tried again first.
                    let wanted = self.missing.entry(error.address.clone());
                    wanted.or_insert_with(|| listener.clone());
                    missing.push(error);
                }
            }
        }
        Ok((opened, missing))
    }

    /// A new socket of a listener, which listens or is only bound. One that was passed always listens.
    fn new_one(&self, listener: &Listener, since: u64, listens: bool) -> Result<Open, Reason> {
        let passed = self.passed.iter();
        let passed = passed.filter(|passed| passed.serves(&listener.address));
        let sockets = passed
            .map(Passed::listener)
            .collect::<Result<Vec<_>, _>>()?;
        if !sockets.is_empty() {
            return Ok(Open {
                sockets,
                wanted: listener.clone(),
                since,
                inherited: true,
                file: None,
                refuses: false,
                is_proposed: self.proposed == Some(since),
            });
        }
        let (socket, file) = match &listener.address {
            Address::Tcp(address) => (bind::tcp(*address, listener, listens)?, None),
            Address::Unix(path) => {
                let (socket, file) = bind::unix(path, listener, &self.ended, listens)?;
                (socket, Some(file))
            }
            Address::Inherited(_) => return Err(self.not_passed().into()),
        };
        Ok(Open {
            refuses: !listens,
            is_proposed: self.proposed == Some(since),
            ..Open::bound(listener, since, socket, file)
        })
    }

    /// Makes the file of a unix socket again if a program has removed it. Returns whether it had.
    ///
    /// # Errors
    /// The file cannot be made again.
    pub fn restore(&self, address: &Address) -> Result<bool, String> {
        let open = self.open.get(address).and_then(|all| all.first());
        open.map_or(Ok(false), Open::restore)
    }

    /// Closes what was opened for the candidate only.
    pub fn close_proposed(&mut self) {
        for (address, all) in &mut self.open {
            for closed in all.extract_if(.., |open| open.is_proposed) {
                self.discarded.insert((address.clone(), closed.since));
            }
        }
        self.open.retain(|_, all| !all.is_empty());
        self.proposed = None;
    }

    /// Applies changed settings to open listeners: accept queue, mode and owner. Returns what failed.
    pub fn adapt(&mut self, wanted: &[Listener]) -> Vec<String> {
        let mut failures = Vec::new();
        for listener in wanted {
            let open = self.open.get_mut(&listener.address);
            if let Some(open) = open.and_then(|all| all.last_mut()) {
                if let Err(reason) = open.adapt(listener) {
                    failures.push(format!("{}: {reason}", listener.address));
                }
                open.wanted = listener.clone();
            } else if let Some(missing) = self.missing.get_mut(&listener.address) {
                *missing = listener.clone();
            }
        }
        failures
    }

    /// Closes all other listeners, and returns their addresses. Of an address with two sockets, the newer one stays.
    pub fn keep(&mut self, wanted: &[Listener]) -> Vec<Address> {
        let wanted = |address: &Address| wanted.iter().any(|listener| listener.address == *address);
        let gone: Vec<_> = self
            .open
            .keys()
            .filter(|address| !wanted(address))
            .cloned()
            .collect();
        self.open.retain(|address, _| wanted(address));
        self.ended.clear();
        self.proposed = None;
        let open = &self.open;
        self.missing
            .retain(|address, _| wanted(address) && !open.contains_key(address));
        for all in self.open.values_mut() {
            all.drain(..all.len().saturating_sub(1));
            all.iter_mut().for_each(|open| open.is_proposed = false);
        }
        gone
    }

    /// The sockets of a listener that workers of this generation get; none if it is not open.
    pub fn sockets(
        &self,
        address: &Address,
        generation: u64,
    ) -> impl Iterator<Item = BorrowedFd<'_>> {
        let all = self.open.get(address).into_iter().flatten();
        let theirs = all.rev().find(|open| open.since <= generation);
        theirs
            .into_iter()
            .flat_map(|open| open.sockets.iter().map(AsFd::as_fd))
    }

    /// The sockets of a listener that serve now.
    pub fn serving(&self, address: &Address) -> impl Iterator<Item = BorrowedFd<'_>> {
        let open = self.open.get(address).and_then(|all| all.first());
        open.filter(|open| !open.refuses)
            .into_iter()
            .flat_map(|open| open.sockets.iter().map(AsFd::as_fd))
    }

    /// Whether workers that are started from now on accept from the same sockets as those of this generation.
    pub fn has_successors(&self, address: &Address, generation: u64) -> bool {
        let open = self.open.get(address).and_then(|all| all.last());
        open.is_some_and(|open| open.since <= generation)
            && !self.discarded.contains(&(address.clone(), generation))
    }

    /// Inherited sockets that no listener uses.
    pub fn unused(&self) -> Vec<String> {
        let is_used = |passed: &Passed| self.open.keys().any(|address| passed.serves(address));
        let unused = self.passed.iter().filter(|passed| !is_used(passed));
        unused.map(Passed::shown).collect()
    }

    fn not_passed(&self) -> String {
        let names: Vec<_> = self.passed.iter().map(Passed::name).collect();
        if names.is_empty() {
            "no socket with this name was passed (the socket unit of the init system sets LISTEN_FDS and LISTEN_FDNAMES)".into()
        } else {
            format!(
                "no socket with this name was passed (passed: {})",
                names.join(", ")
            )
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.leave_files();
    }
}
