//! The intermediate processes between a template and its workers, as the template sees them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use preforkd_worker::messages::Reply;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::{ADOPTION_WAIT, tell};

/// How often the template checks whether one has ended; that takes milliseconds, and nobody waits for it.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// How long they may take when the template ends.
const LEAVE: Duration = Duration::from_secs(1);

/// They end right after their own forks. The template reaps them when it has nothing else to do, so that the forks of many
/// workers run in parallel. One that hangs delays its own workers only.
#[derive(Default)]
pub(super) struct Intermediates(Vec<Process>);

struct Process {
    pid: Pid,
    /// The orders that it was forked for.
    tickets: Vec<u64>,
    began: Instant,
    /// By then its workers have given up.
    deadline: Instant,
    /// After what time it was killed.
    killed: Option<Duration>,
}

impl Intermediates {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a process that was forked for these orders.
    pub fn add(&mut self, pid: i32, tickets: impl Iterator<Item = u64>) {
        let began = Instant::now();
        self.0.extend(Pid::from_raw(pid).map(|pid| Process {
            pid,
            tickets: tickets.collect(),
            began,
            deadline: began + ADOPTION_WAIT,
            killed: None,
        }));
    }

    /// Reaps those that have ended, reports those that failed, and kills those that hang. A worker that they have forked
    /// before that has introduced itself to the master, which ignores the report for it.
    pub fn look(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let mut failed = Vec::new();
        self.0.retain_mut(|process| match process.end() {
            None => true,
            Some(end) => {
                failed.extend(end.map(|end| Reply::Lost {
                    tickets: std::mem::take(&mut process.tickets),
                    reason: format!("the intermediate process {end}"),
                }));
                false
            }
        });
        failed.iter().try_for_each(|lost| tell(socket, lost))
    }

    /// Waits for all of them, for at most [`LEAVE`].
    pub fn end(&mut self, socket: &OwnedFd) {
        let leave = Instant::now() + LEAVE;
        for process in &mut self.0 {
            process.deadline = process.deadline.min(leave);
        }
        loop {
            // The master may be gone, or no longer interested.
            let _ = self.look(socket);
            if self.is_empty() {
                return;
            }
            super::pause(LOOK);
        }
    }
}

impl Process {
    /// None as long as it runs; when it has ended, what was wrong, if anything.
    fn end(&mut self) -> Option<Option<String>> {
        match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return Some(self.failure(status)),
            // The application reaps processes that are not its own.
            Err(Errno::CHILD) => return Some(None),
            _ => {}
        }
        // It has not been reaped, so its number is its own.
        if self.killed.is_none()
            && self.deadline <= Instant::now()
            && kill_process(self.pid, Signal::KILL).is_ok()
        {
            self.killed = Some(self.began.elapsed());
        }
        None
    }

    fn failure(&self, status: WaitStatus) -> Option<String> {
        match (self.killed, status.exit_status()) {
            (_, Some(0)) => None,
            (Some(time), _) => Some(format!(
                "did not finish within {:.0}s; a hook that the application registered with os.register_at_fork may block",
                time.as_secs_f64()
            )),
            (None, Some(code)) => Some(format!("exited with status {code}")),
            (None, None) => Some(format!(
                "was killed by signal {}",
                status.terminating_signal().unwrap_or_default()
            )),
        }
    }
}
