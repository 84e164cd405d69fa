//! Stop orders that do not come by signal: each Python worker holds the read end of a pipe, and drains when it ends. A signal meets
//! whatever handler the application has set; a pipe does not. It also ends when the master dies.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};

/// The master's ends.
#[derive(Default)]
pub struct StopOrders {
    /// By worker; none once the order was given.
    workers: HashMap<Pid, Option<OwnedFd>>,
    /// By template and ticket: those of workers that have not said who they are.
    expected: HashMap<(Pid, u64), OwnedFd>,
}

/// A pipe: the master's end, and the worker's.
///
/// # Errors
/// No descriptor is left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((ours, theirs))
}

impl StopOrders {
    /// A worker was started that holds the other end.
    pub fn insert(&mut self, worker: Pid, ours: OwnedFd) {
        self.workers.insert(worker, Some(ours));
    }

    /// A template was given the other end for the worker with this ticket.
    pub fn expect(&mut self, template: Pid, ticket: u64, ours: OwnedFd) {
        self.expected.insert((template, ticket), ours);
    }

    /// A worker of a template has said who it is.
    pub fn arrived(&mut self, template: Pid, ticket: u64, worker: Pid) {
        if let Some(ours) = self.expected.remove(&(template, ticket)) {
            self.insert(worker, ours);
        }
    }

    /// A worker of a template will not come.
    pub fn give_up(&mut self, template: Pid, ticket: u64) {
        self.expected.remove(&(template, ticket));
    }

    /// No worker of a template will come any more.
    pub fn close(&mut self, template: Pid) {
        self.expected.retain(|(of, _), _| *of != template);
    }

    /// Gives the order; false if the worker has no descriptor for it. Given again, it changes nothing.
    pub fn give(&mut self, worker: Pid) -> bool {
        self.workers.get_mut(&worker).map(Option::take).is_some()
    }

    /// A worker was reaped.
    pub fn remove(&mut self, worker: Pid) {
        self.workers.remove(&worker);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Whether the worker is told to stop.
    fn is_told(theirs: OwnedFd) -> bool {
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .expect("a pipe");
        matches!(std::fs::File::from(theirs).read(&mut [0]), Ok(0))
    }

    #[test]
    fn the_pipe_of_a_worker_ends_with_the_order_and_with_nothing_else() {
        let mut orders = StopOrders::default();
        let (one, two, template) = (Pid::from_raw(1), Pid::from_raw(2), Pid::from_raw(9));
        let (ours, theirs) = pair().expect("a pipe");
        orders.insert(one, ours);
        let (ours, forked) = pair().expect("a pipe");
        orders.expect(template, 7, ours);
        assert!(!orders.give(two), "it has said nothing yet");
        orders.arrived(template, 8, one);
        orders.arrived(template, 7, two);
        orders.close(template);
        assert!(!is_told(forked.try_clone().expect("a copy")));
        assert!(orders.give(two) && is_told(forked));
        assert!(orders.give(two), "as often as one likes");
        assert!(!is_told(theirs.try_clone().expect("a copy")));
        orders.remove(one);
        assert!(is_told(theirs));
    }

    #[test]
    fn what_a_template_did_not_fork_is_forgotten() {
        let mut orders = StopOrders::default();
        let template = Pid::from_raw(9);
        for ticket in [1, 2] {
            let (ours, _) = pair().expect("a pipe");
            orders.expect(template, ticket, ours);
        }
        orders.give_up(template, 1);
        assert_eq!(orders.expected.len(), 1);
        orders.close(template);
        assert!(orders.expected.is_empty());
    }
}
