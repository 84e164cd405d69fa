//! The kernel of the simulation: processes that begin, speak and end, and what the master hears of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::supervisor::{Generation, Slot, WorkerId};

/// Process ids of this small machine: few, so that each is used again and again.
const PIDS: std::ops::Range<i32> = 100..130;

/// What the processes of a generation do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Code {
    /// Ready in good time; ends when told to.
    Good,
    /// Dies before it is ready.
    Broken,
    /// Never ready; ends by KILL only.
    Stuck,
    /// Ready, and deaf to TERM and ABRT.
    Deaf,
}

pub(super) struct Process {
    pub(super) worker: WorkerId,
    pub(super) generation: Generation,
    pub(super) slot: Slot,
    pub(super) code: Code,
    pub(super) dead: bool,
    pub(super) told: bool,
}

/// What happens by itself at an instant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    Says(Pid, Word),
    Dies(Pid),
}

/// What a process says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    Ready,
    Stopping,
}

pub(super) struct Kernel {
    pub(super) now: Instant,
    pub(super) processes: BTreeMap<Pid, Process>,
    pub(super) due: BTreeMap<(Instant, u64), Due>,
    /// The order of what is due at one instant.
    pub(super) ticket: u64,
    /// Messages in the master's socket: who, and which process that was then.
    pub(super) mail: VecDeque<(Pid, Word)>,
    /// At least one child has ended since the master last looked.
    pub(super) sigchld: bool,
    pub(super) failing_forks: u32,
    pub(super) delay: Option<u64>,
}

impl Kernel {
    pub(super) fn after(&mut self, milliseconds: u64, due: Due) {
        self.ticket += 1;
        let at = self.now + Duration::from_millis(milliseconds);
        self.due.insert((at, self.ticket), due);
    }

    pub(super) fn fork(
        &mut self,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
        code: Code,
    ) -> Option<Pid> {
        if self.failing_forks > 0 {
            self.failing_forks -= 1;
            return None;
        }
        let mut pids = PIDS.map(Pid::from_raw);
        let pid = pids.find(|pid| !self.processes.contains_key(pid))?;
        let process = Process {
            worker,
            generation,
            slot,
            code,
            dead: false,
            told: false,
        };
        self.processes.insert(pid, process);
        match code {
            Code::Good | Code::Deaf => self.say_after(200, pid, Word::Ready),
            Code::Broken => self.after(5, Due::Dies(pid)),
            Code::Stuck => {}
        }
        Some(pid)
    }

    /// A process says something, unless its words are lost.
    pub(super) fn say_after(&mut self, milliseconds: u64, pid: Pid, what: Word) {
        if let Some(delay) = self.delay {
            self.after(milliseconds + delay, Due::Says(pid, what));
        }
    }

    pub(super) fn kill(&mut self, pid: Pid, signal: Signal) {
        let process = self.processes.get_mut(&pid);
        let process = process.expect("a signal goes to a process that was not reaped");
        if process.dead {
            return;
        }
        let obeys = !matches!(process.code, Code::Stuck | Code::Deaf);
        let again = std::mem::replace(&mut process.told, true);
        if signal == Signal::SIGKILL {
            self.after(0, Due::Dies(pid));
        } else if obeys && !again {
            self.say_after(10, pid, Word::Stopping);
            self.after(50, Due::Dies(pid));
        }
    }

    pub(super) fn die(&mut self, pid: Pid) {
        if let Some(process) = self.processes.get_mut(&pid)
            && !process.dead
        {
            process.dead = true;
            self.sigchld = true;
            // What it has not said yet it will not say; its number may soon be another's.
            self.due.retain(|_, due| match due {
                Due::Says(who, _) | Due::Dies(who) => *who != pid,
            });
        }
    }

    pub(super) fn happen(&mut self, due: Due) {
        match due {
            Due::Says(pid, what) => self.mail.push_back((pid, what)),
            Due::Dies(pid) => self.die(pid),
        }
    }
}
