//! Where what the processes say goes: log files, and the pipes of those that start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use log::{error, warn};
use nix::unistd::Pid;
use preforkd_worker::stderr;

use super::Master;
use super::children::Name;
use crate::effects::launch::Output;
use crate::effects::log_files::LogFiles;
use crate::effects::tail::{Heard, Listener, Tail};
use crate::plan::{self, LogFile};

/// When all have ended, what they have said is still written for so long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The pipe of a process that starts: its own end, and ours.
pub(super) struct Overheard {
    tail: Tail,
    pub(super) theirs: OwnedFd,
}

impl Master {
    /// A pipe for the standard error of a process of `app` that is about to start; none if there is none to be had.
    pub(super) fn overhear(&self, app: &plan::App) -> Option<Overheard> {
        let file = app.output.stderr.clone();
        Tail::new(file)
            .inspect_err(|error| warn!("cannot overhear the start of a process: {error}"))
            .map(|(tail, theirs)| Overheard { tail, theirs })
            .ok()
    }

    /// What a process of `app` writes to. One that is overheard goes on as the others do when it is ready.
    pub(super) fn output<'a>(
        &'a self,
        app: &plan::App,
        overheard: Option<&'a Overheard>,
    ) -> Output<'a> {
        let file =
            |file: &Option<LogFile>| file.as_ref().and_then(|file| self.log_files.input(file));
        let stderr: Option<BorrowedFd> = file(&app.output.stderr);
        Output {
            stdout: file(&app.output.stdout),
            stderr: overheard.map(|heard| heard.theirs.as_fd()).or(stderr),
            stderr_later: overheard
                .filter(|_| app.output.taken_over)
                .map(|_| stderr.unwrap_or(self.errors.as_fd())),
            access_log: file(&app.output.access_log),
        }
    }

    /// The process runs: what it says is heard from now on.
    pub(super) fn listen_to(&mut self, pid: Pid, overheard: Option<Overheard>) {
        let Some(Overheard { tail, .. }) = overheard else {
            return;
        };
        if let Err(error) = self.watch(&tail.fd()) {
            warn!("cannot watch what pid {pid} says: {error}");
        }
        self.tails.insert(pid, tail);
    }

    /// A process that starts has said something.
    pub(super) fn read_tail(&mut self, fd: RawFd) {
        let mut tails = self.tails.iter();
        let Some((&pid, _)) = tails.find(|(_, tail)| tail.fd() == fd) else {
            return;
        };
        match self.pass_on(pid, Tail::read) {
            Heard::All => {}
            Heard::Enough => {
                // Others first; to be watched anew is to be told anew.
                self.unwatch(&fd);
                if let Err(error) = self.watch(&fd) {
                    warn!("cannot watch what pid {pid} says: {error}");
                }
            }
            // It has ended, which is told soon, or has gone over to its real standard error.
            Heard::End => self.unwatch(&fd),
        }
    }

    /// A worker that goes over to its real standard error has done so: what it said while it started is not why
    /// it dies one day.
    pub(super) fn stop_overhearing(&mut self, name: &Name, pid: Pid) {
        let child = self.children.get(pid);
        let app = self.apps.get(name);
        let plan = child.and_then(|child| app?.plans.get(&child.generation));
        if plan.is_some_and(|plan| plan.output.taken_over) {
            self.last_words(pid);
        }
    }

    /// A process has ended, having said this.
    pub(super) fn last_words(&mut self, pid: Pid) -> Option<String> {
        self.pass_on(pid, Tail::read_rest);
        let tail = self.stop_listening(pid)?;
        tail.last_words()
    }

    fn stop_listening(&mut self, pid: Pid) -> Option<Tail> {
        let mut tail = self.tails.remove(&pid)?;
        self.unwatch(&tail.fd());
        let to = tail.to.clone();
        tail.finish(&mut |bytes| pass_on(&self.log_files, &to, bytes));
        Some(tail)
    }

    fn pass_on(
        &mut self,
        pid: Pid,
        read: impl FnOnce(&mut Tail, &mut dyn FnMut(&[u8])) -> Heard,
    ) -> Heard {
        let Some(tail) = self.tails.get_mut(&pid) else {
            return Heard::End;
        };
        let to = tail.to.clone();
        read(tail, &mut |bytes| pass_on(&self.log_files, &to, bytes))
    }

    pub(super) fn log_deadline(&self) -> Option<Instant> {
        self.log_files.deadline().or(self.last_words_until)
    }

    /// Replaces the writers of log files that have died.
    pub(super) fn replace_log_writers(&mut self, now: Instant) {
        for (file, error) in self.log_files.replace(now) {
            let path = file.path.display();
            error!("cannot start the writer of {path}: {error} (trying again)");
        }
    }

    /// Whether a process was the writer of a log file.
    pub(super) fn log_writer_ended(&mut self, pid: Pid, death: &str) -> bool {
        let Some(file) = self.log_files.ended(pid) else {
            return false;
        };
        if let Some(file) = file {
            let path = file.path.display();
            error!("the writer of {path} pid={pid}: {death}; it is replaced, and nothing is lost");
        }
        true
    }

    /// At the end: whether what was said is written, as far as that can be waited for.
    pub(super) fn logs_are_written(&mut self) -> bool {
        self.log_files.close_all();
        let until = *self
            .last_words_until
            .get_or_insert_with(|| Instant::now() + LAST_WORDS);
        self.log_files.is_quiet() || Instant::now() >= until
    }
}

fn pass_on(files: &LogFiles, to: &Listener, bytes: &[u8]) {
    let file = match to {
        Listener::Nobody => return,
        Listener::Errors => None,
        Listener::File(file) => files.input(file),
    };
    match file {
        Some(pipe) => stderr::pass_on(pipe, bytes),
        None => stderr::pass_on(std::io::stderr(), bytes),
    }
}
