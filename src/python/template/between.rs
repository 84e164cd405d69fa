//! The processes between a template and its workers, as seen by the template.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::{ADOPTION_WAIT, tell};

/// How often it is looked whether one has ended; that takes milliseconds, and nobody waits for it.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// So long they may take when the template ends.
const LEAVE: Duration = Duration::from_secs(1);

/// They end at once, after their own forks, and are only waited for when nothing else is to be done: so that the forks of many
/// workers go on side by side. One that hangs, in what the application does at a fork, keeps nobody waiting but its own
/// workers.
#[derive(Default)]
pub(super) struct Between(Vec<Process>);

struct Process {
    pid: Pid,
    /// The orders that it was forked for.
    tickets: Vec<u64>,
    /// Its workers have given up then.
    deadline: Instant,
    killed: bool,
}

impl Between {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes note of a process and of its orders.
    pub fn add(&mut self, pid: i32, tickets: impl Iterator<Item = u64>) {
        self.0.extend(Pid::from_raw(pid).map(|pid| Process {
            pid,
            tickets: tickets.collect(),
            deadline: Instant::now() + ADOPTION_WAIT,
            killed: false,
        }));
    }

    /// Reaps those that have ended, tells of those that failed, and kills those that hang. The master knows which workers there
    /// are all the same.
    pub fn look(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let mut ended = Vec::new();
        self.0.retain_mut(|process| match process.end() {
            None => true,
            Some(end) => {
                ended.extend(end.map(|reason| (std::mem::take(&mut process.tickets), reason)));
                false
            }
        });
        ended.into_iter().try_for_each(|(tickets, reason)| {
            let tickets: Vec<String> = tickets.iter().map(u64::to_string).collect();
            let tickets = tickets.join(",");
            tell(
                socket,
                &format!("LOST {tickets} the process in between {reason}"),
            )
        })
    }

    /// Waits for all of them, but not long.
    pub fn end(&mut self, socket: &OwnedFd) {
        let leave = Instant::now() + LEAVE;
        for process in &mut self.0 {
            process.deadline = process.deadline.min(leave);
        }
        loop {
            // The master may be gone, or past caring.
            let _ = self.look(socket);
            if self.is_empty() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Process {
    /// None as long as it runs; what was wrong, if anything, when it has ended.
    fn end(&mut self) -> Option<Option<String>> {
        match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return Some(failure(status).map(|end| self.words(end))),
            // The application waits for processes that are not its own.
            Err(Errno::CHILD) => return Some(None),
            _ => {}
        }
        if self.deadline <= Instant::now() && !self.killed {
            // It has not been reaped, so its number is its own.
            self.killed = kill_process(self.pid, Signal::KILL).is_ok();
        }
        None
    }

    fn words(&self, end: String) -> String {
        match self.killed {
            true => "hung in what the application does at a fork".into(),
            false => end,
        }
    }
}

fn failure(status: WaitStatus) -> Option<String> {
    match status.exit_status() {
        Some(0) => None,
        Some(code) => Some(format!("exited with status {code}")),
        None => Some(format!(
            "was killed by signal {}",
            status.terminating_signal().unwrap_or_default()
        )),
    }
}
