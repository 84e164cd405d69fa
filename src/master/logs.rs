//! The output of processes: the writers of log files, and the pipes through which the master reads the standard error of processes
//! while they start.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use log::error;
use nix::unistd::Pid;

use super::timers::Timers;
use super::turn::Turn;
use super::world::{Exit, ReadState, Source, World};

/// How long the master still forwards output after all processes have ended.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// A process that writes more than is read at a time is paused for this long, and for as long again for each other one that does:
/// so all of them together take a small share of the master's time.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a line may be without an end before its beginning is forwarded.
const UNFINISHED: Duration = Duration::from_millis(200);

/// The pipes that the master reads, and how long it still waits for writers at the end.
#[derive(Default)]
pub(super) struct Logs {
    paused: Timers<Pid>,
    flooding: BTreeSet<Pid>,
    /// Those that have written the beginning of a line.
    unfinished: Timers<Pid>,
    last_words_until: Option<Instant>,
}

impl Logs {
    /// Reads the standard error of a process.
    pub(super) fn read<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) {
        match turn.world.read_stderr(pid) {
            ReadState::All => self.forget(pid),
            ReadState::Unfinished => {
                self.flooding.remove(&pid);
                if self.unfinished.get(&pid).is_none() {
                    self.unfinished.set(pid, Some(turn.now + UNFINISHED));
                }
            }
            ReadState::Enough => {
                self.flooding.insert(pid);
                turn.world.pause(&Source::Stderr(pid));
                let pause = PAUSE * self.flooding.len() as u32;
                self.paused.set(pid, Some(turn.now + pause));
            }
            // It has ended, which will be reported soon, or has switched to its real standard error.
            ReadState::End => {
                self.forget(pid);
                turn.world.pause(&Source::Stderr(pid));
            }
        }
    }

    /// Continues to read from paused processes, and waits no longer for the ends of lines.
    pub(super) fn resume<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.unfinished.take_due(turn.now) {
            turn.world.flush_stderr(pid);
        }
        for pid in self.paused.take_due(turn.now) {
            turn.world.resume(&Source::Stderr(pid));
        }
    }

    /// Reads the rest of a process's output, and stops reading. Returns the last lines of it.
    pub(super) fn last_output<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) -> Option<String> {
        self.forget(pid);
        turn.world.last_output(pid)
    }

    fn forget(&mut self, pid: Pid) {
        self.flooding.remove(&pid);
        self.paused.set(pid, None);
        self.unfinished.set(pid, None);
    }

    /// Replaces dead writers of log files.
    pub(super) fn replace_writers<W: World>(&mut self, turn: &mut Turn<W>) {
        for (file, error) in turn.world.replace_log_writers(turn.now) {
            error!(
                "cannot start the writer of {}: {error}; retrying",
                file.target
            );
        }
    }

    /// Whether a process that was reaped was the writer of a log file.
    pub(super) fn writer_ended<W: World>(&self, turn: &mut Turn<W>, pid: Pid, exit: Exit) -> bool {
        let Some(file) = turn.world.log_writer_ended(pid) else {
            return false;
        };
        if let Some(file) = file {
            let target = &file.target;
            error!(
                "the writer of {target} pid={pid}: {exit}; replacing it (lines that it had read but not written are lost)"
            );
        }
        true
    }

    /// At the end: whether the output has reached the files, as far as the master can wait for it.
    pub(super) fn are_written<W: World>(&mut self, turn: &mut Turn<W>) -> bool {
        turn.world.keep_log_files(&BTreeSet::new());
        let until = *self
            .last_words_until
            .get_or_insert_with(|| turn.now + FLUSH_TIME);
        turn.world.log_files_are_quiet() || turn.now >= until
    }

    /// When there is something to do again.
    pub(super) fn deadline<W: World>(&self, turn: &Turn<W>) -> Option<Instant> {
        let writers = turn.world.log_deadline().or(self.last_words_until);
        let pipes = self.paused.next().into_iter().chain(self.unfinished.next());
        pipes.chain(writers).min()
    }
}
