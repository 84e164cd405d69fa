//! Listeners that are open only while their app has a worker.

use std::os::fd::AsRawFd;

use log::debug;
use nix::sys::socket;

use super::{Error, Listeners, Open};
use crate::config::Address;
use crate::plan::Listener;

impl Open {
    /// Refuses clients, also those that wait, and stays bound: shutdown(2), tcp(7). So nobody else gets the address, and whoever keeps
    /// the socket keeps the right one.
    fn refuse(&mut self) {
        for socket in &self.sockets {
            // This fails for a socket that does not listen.
            let _ = socket::shutdown(socket.as_raw_fd(), socket::Shutdown::Read);
        }
        self.refuses = true;
    }

    /// Gives it the settings of the generation that takes it from the candidate, as far as that is possible.
    fn return_to(&mut self, listener: Option<&Listener>) {
        let Some(listener) = listener else { return };
        if let Err(reason) = self.adapt(listener) {
            debug!("{}: {reason}", listener.address);
        }
        self.wanted = listener.clone();
    }
}

impl Listeners {
    /// Opens a listener that is missing, for workers of this generation, or takes the one that was opened for the candidate: then it is
    /// this generation's, whatever becomes of the candidate. Returns whether it did not listen yet.
    ///
    /// # Errors
    /// It still cannot be opened.
    pub fn open_missing(&mut self, address: &Address, generation: u64) -> Result<bool, Error> {
        let failed = |reason| Error {
            address: address.clone(),
            reason,
        };
        let missing = self.missing.get(address);
        if let Some(all) = self.open.get_mut(address) {
            let theirs = all.iter().rposition(|open| open.since <= generation);
            let Some(open) = all.get_mut(theirs.unwrap_or(0)) else {
                return Ok(false);
            };
            let was_closed = open.listen().map_err(failed)?;
            if theirs.is_none() {
                (open.since, open.is_proposed) = (generation, false);
                open.return_to(missing);
            }
            return Ok(was_closed);
        }
        let Some(listener) = missing else {
            return Ok(false);
        };
        let new = self.new_one(listener, generation, true).map_err(failed)?;
        self.open.insert(address.clone(), vec![new]);
        Ok(true)
    }

    /// Closes these listeners, which no worker of this generation serves for now, so that clients are refused and need not wait.
    /// [`Listeners::open_missing`] opens them again. Those of the init system stay as they are: they are its own.
    /// Returns those that were closed.
    pub fn close_for_now(&mut self, addresses: &[&Address], generation: u64) -> Vec<Address> {
        let mut closed = Vec::new();
        for address in addresses {
            let Some([open]) = self.open.get_mut(*address).map(Vec::as_mut_slice) else {
                continue;
            };
            if open.inherited || open.refuses || open.since > generation {
                continue;
            }
            // A unix socket cannot listen again.
            match open.file {
                None => open.refuse(),
                Some(_) => {
                    self.missing.insert((*address).clone(), open.wanted.clone());
                    self.open.remove(*address);
                }
            }
            closed.push((*address).clone());
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use super::*;

    fn none() -> Listeners {
        Listeners {
            open: BTreeMap::new(),
            missing: BTreeMap::new(),
            proposed: None,
            passed: Vec::new(),
            ended: Vec::new(),
            discarded: BTreeSet::new(),
            kept: BTreeMap::new(),
            can_be_kept: true,
            files_stay: false,
        }
    }

    /// A listener of an app that is not required at a free port, and one in a folder.
    struct Two {
        tcp: SocketAddr,
        unix: PathBuf,
        wanted: Vec<Listener>,
        _folder: tempfile::TempDir,
    }

    impl Two {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let unix = folder.path().join("more.sock");
            let port = TcpListener::bind("127.0.0.1:0").expect("a port");
            let tcp = port.local_addr().expect("bound");
            let listener = |address| Listener {
                required: false,
                stays_open: false,
                ..Listener::example(address)
            };
            Self {
                tcp,
                wanted: vec![
                    listener(Address::Tcp(tcp)),
                    listener(Address::Unix(unix.clone())),
                ],
                unix,
                _folder: folder,
            }
        }

        fn are_open(&self) -> [bool; 2] {
            let tcp = TcpStream::connect(self.tcp).is_ok();
            [tcp, UnixStream::connect(&self.unix).is_ok()]
        }

        /// Opens both for workers of a generation. Returns which of them did not listen.
        fn start(&self, listeners: &mut Listeners, generation: u64) -> Vec<bool> {
            let wanted = self.wanted.iter();
            let opened = wanted.map(|wanted| listeners.open_missing(&wanted.address, generation));
            opened
                .map(|opened| opened.expect("nobody else has it"))
                .collect()
        }
    }

    #[test]
    fn a_listener_that_does_not_stay_open_is_opened_for_a_worker_and_closed_after_it() {
        let two = Two::new();
        let mut listeners = none();
        let missing = listeners.open_first(&two.wanted, &[], |_| false);
        assert_eq!(missing.expect("none is required").len(), 0);
        assert_eq!(two.are_open(), [false, false]);
        for _ in 0..2 {
            assert_eq!(two.start(&mut listeners, 1), [true, true]);
            assert_eq!(two.start(&mut listeners, 1), [false, false]);
            assert_eq!(two.are_open(), [true, true]);
            let addresses: Vec<_> = two.wanted.iter().map(|wanted| &wanted.address).collect();
            assert_eq!(listeners.close_for_now(&addresses, 1).len(), 2);
            assert_eq!(listeners.close_for_now(&addresses, 1).len(), 0);
            assert_eq!(two.are_open(), [false, false]);
        }
    }

    #[test]
    fn one_that_cannot_be_bound_is_missing_also_if_it_is_not_to_be_opened_yet() {
        let two = Two::new();
        let taken = TcpListener::bind(two.tcp).expect("it is free");
        std::fs::write(&two.unix, "a file").expect("room");
        let mut listeners = none();
        let (opened, missing) = listeners.open(&two.wanted, 2).expect("none is required");
        assert_eq!((opened.len(), missing.len()), (0, 2));
        drop(taken);
    }

    #[test]
    fn the_running_generation_may_take_what_was_opened_for_the_candidate() {
        for is_needed in [false, true] {
            let mut two = Two::new();
            let taken = TcpListener::bind(two.tcp).expect("it is free");
            let mut listeners = none();
            listeners
                .open_first(&two.wanted, &[], |_| false)
                .expect("none is required");
            listeners.keep(&two.wanted);
            drop(taken);
            let old = two.wanted.clone();
            if is_needed {
                for listener in &mut two.wanted {
                    (listener.required, listener.stays_open) = (true, true);
                    listener.backlog += 1;
                }
            }
            listeners.open(&two.wanted, 2).expect("they are free");
            assert_eq!(two.are_open(), [is_needed, is_needed]);
            assert_eq!(two.start(&mut listeners, 1), [!is_needed, !is_needed]);
            for (wanted, old) in two.wanted.iter().zip(&old) {
                let ours = listeners.sockets(&wanted.address, 1).next();
                let theirs = listeners.sockets(&wanted.address, 2).next();
                let number =
                    |socket: Option<BorrowedFd<'_>>| socket.map(|socket| socket.as_raw_fd());
                assert!(ours.is_some() && number(ours) == number(theirs));
                assert_eq!(listeners.open[&wanted.address][0].wanted, *old);
            }
            // The candidate fails.
            listeners.close_proposed();
            assert_eq!(two.are_open(), [true, true]);
            assert!(listeners.has_successors(&two.wanted[0].address, 1));
        }
    }

    #[test]
    fn what_a_worker_of_the_candidate_has_opened_is_closed_with_the_candidate() {
        let two = Two::new();
        let taken = TcpListener::bind(two.tcp).expect("it is free");
        let mut listeners = none();
        listeners.open(&two.wanted, 2).expect("none is required");
        drop(taken);
        assert_eq!(two.start(&mut listeners, 2), [true, true]);
        assert_eq!(two.are_open(), [true, true]);
        listeners.close_proposed();
        assert_eq!(two.are_open(), [false, false]);
        TcpListener::bind(two.tcp).expect("it is free again");
    }
}
