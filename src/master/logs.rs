//! Where what processes write goes: the log files' writers, and the pipes from which the master reads what a process writes while
//! it starts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use log::error;
use nix::unistd::Pid;

use super::timers::Timers;
use super::turn::Turn;
use super::world::{Exit, Heard, World};

/// When all have ended, what they have written is still passed on for so long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A process that writes more than is read at a time is left alone for so long, and for as long again for each other one that does:
/// so all of them together cost a small share of the master's time, and wait for it.
const PAUSE: Duration = Duration::from_millis(20);

/// What the master reads of others, and how long it still waits for writers at the end.
#[derive(Default)]
pub(super) struct Logs {
    paused: Timers<Pid>,
    flooding: BTreeSet<Pid>,
    last_words_until: Option<Instant>,
}

impl Logs {
    /// A process has written to its standard error.
    pub(super) fn read<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) {
        match turn.world.read_stderr(pid) {
            Heard::All => {
                self.flooding.remove(&pid);
            }
            Heard::Enough => {
                self.flooding.insert(pid);
                turn.world.watch_stderr(pid, false);
                let pause = PAUSE * self.flooding.len() as u32;
                self.paused.set(pid, Some(turn.now + pause));
            }
            // It has ended, which is told soon, or has gone over to its real standard error.
            Heard::End => {
                self.forget(pid);
                turn.world.watch_stderr(pid, false);
            }
        }
    }

    /// Goes on with processes that were left alone.
    pub(super) fn resume<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.paused.take_due(turn.now) {
            turn.world.watch_stderr(pid, true);
        }
    }

    /// Reads what is left of what a process has written, and no more; the last lines of it.
    pub(super) fn last_words<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) -> Option<String> {
        self.forget(pid);
        turn.world.last_words(pid)
    }

    fn forget(&mut self, pid: Pid) {
        self.flooding.remove(&pid);
        self.paused.set(pid, None);
    }

    /// Replaces the writers of log files that have died.
    pub(super) fn replace_writers<W: World>(&mut self, turn: &mut Turn<W>) {
        for (file, error) in turn.world.replace_log_writers(turn.now) {
            let path = file.path.display();
            error!("cannot start the writer of {path}: {error}; retrying");
        }
    }

    /// Whether a process that was reaped was the writer of a log file.
    pub(super) fn writer_ended<W: World>(&self, turn: &mut Turn<W>, pid: Pid, exit: Exit) -> bool {
        let Some(file) = turn.world.log_writer_ended(pid) else {
            return false;
        };
        if let Some(file) = file {
            let path = file.path.display();
            error!("the writer of {path} pid={pid}: {exit}; it is replaced, and no line is lost");
        }
        true
    }

    /// At the end: whether what was written has reached the files, as far as that can be waited for.
    pub(super) fn are_written<W: World>(&mut self, turn: &mut Turn<W>) -> bool {
        turn.world.keep_log_files(&BTreeSet::new());
        let until = *self
            .last_words_until
            .get_or_insert_with(|| turn.now + LAST_WORDS);
        turn.world.log_files_are_quiet() || turn.now >= until
    }

    /// When there is something to do again.
    pub(super) fn deadline<W: World>(&self, turn: &Turn<W>) -> Option<Instant> {
        let writers = turn.world.log_deadline().or(self.last_words_until);
        writers.into_iter().chain(self.paused.next()).min()
    }
}
