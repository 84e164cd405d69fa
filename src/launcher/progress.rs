//! The progress of a process that executes a program, as it reports it through a pipe.
//!
//! The last byte before execve says that the program is about to be executed; execve closes the pipe. So the end of the pipe
//! after this byte means that the program runs, and without it that the process has died. A failure follows as a report.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, read};

use crate::plan::Resource;
use crate::sys::{EXECUTING, Failure, Process, REPORT_SIZE, Stage};

/// The progress of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has not executed its program yet.
    Pending,
    /// It has executed its program, and runs.
    Executed,
    /// It could not execute its program: the message says what failed, and why.
    Failed(String),
    /// It has died: without a report before its program ran, or soon after.
    Ended,
}

/// A process that is about to execute its program, and its pipe.
#[derive(Debug)]
pub struct Launching {
    pid: Pid,
    pipe: OwnedFd,
    /// It has reported that it is about to execute its program.
    executing: bool,
    attempts: Attempts,
}

/// What the process does before its program runs, for messages.
#[derive(Debug)]
pub struct Attempts {
    program: String,
    chdir: String,
    uid: Option<u32>,
    /// The name of the user, as the environment has it.
    user: Option<String>,
}

impl Launching {
    /// The process `pid`, which reports through `pipe`. It must not block.
    pub fn new(pid: Pid, pipe: OwnedFd, attempts: Attempts) -> Self {
        Self {
            pid,
            pipe,
            executing: false,
            attempts,
        }
    }

    /// Reads its progress. Never blocks. After anything but [`Progress::Pending`] nothing more will follow.
    pub fn progress(&mut self) -> Progress {
        let mut report = [0; 1 + REPORT_SIZE];
        loop {
            let length = match read(&self.pipe, &mut report) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Progress::Pending,
                Err(Errno::EINTR) => continue,
                Err(_) => return Progress::Ended,
            };
            let mut rest = &report[..length];
            if let [EXECUTING, after @ ..] = rest {
                self.executing = true;
                rest = after;
                if rest.is_empty() {
                    continue;
                }
            }
            return match rest {
                [] if self.executing && self.is_alive() => Progress::Executed,
                report => match Failure::decode(report) {
                    Some(failure) => Progress::Failed(self.attempts.failed(failure)),
                    None => Progress::Ended,
                },
            };
        }
    }

    /// Whether it has not ended. It stays to be reaped.
    fn is_alive(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        waitid(Id::Pid(self.pid), flags) == Ok(WaitStatus::StillAlive)
    }
}

impl AsFd for Launching {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl AsRawFd for Launching {
    fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }
}

impl Attempts {
    /// What a process does.
    pub fn of(process: &Process) -> Self {
        Self {
            program: process.program.to_string_lossy().into_owned(),
            chdir: process.chdir.to_string_lossy().into_owned(),
            uid: process.user.map(|(uid, ..)| uid),
            user: process.env.iter().find_map(|variable| {
                let name = variable.to_str().ok()?.strip_prefix("USER=")?;
                Some(name.to_owned())
            }),
        }
    }

    fn failed(&self, failure: Failure) -> String {
        let (stage, reason) = (failure.stage, failure.errno);
        let user = match (self.uid, &self.user) {
            (None, _) => "the master's user".to_owned(),
            (Some(uid), None) => format!("user {uid}"),
            (Some(uid), Some(name)) => format!("user {name} ({uid})"),
        };
        let what = match stage {
            Stage::Session => "create a session".to_owned(),
            Stage::Descriptors => "pass the descriptors".to_owned(),
            Stage::Group => format!("take the groups of {user}"),
            Stage::User => format!("become {user}"),
            Stage::OomScore => "set `oom_score_adj`".to_owned(),
            Stage::Nice => "set `nice`".to_owned(),
            Stage::Cpus => "set `cpu_affinity`".to_owned(),
            Stage::Limit => {
                let key = failure.resource().map_or("?", Resource::key);
                format!("set `limits.{key}`")
            }
            Stage::Capabilities => format!("set `capabilities` as {user}"),
            Stage::Landlock => "apply `landlock`".to_owned(),
            Stage::NoNewPrivs => "set `no_new_privs`".to_owned(),
            Stage::Chdir => format!("change to the directory {} as {user}", self.chdir),
            Stage::Exec | Stage::WindowsScript => {
                format!("execute {} as {user}", self.program)
            }
        };
        format!("cannot {what}: {}{}", reason.desc(), hint(failure))
    }
}

/// What to do about a failure.
fn hint(failure: Failure) -> &'static str {
    match (failure.stage, failure.errno) {
        (Stage::Chdir, Errno::EACCES) => {
            " (the user needs permission to enter it and each folder above it)"
        }
        (Stage::OomScore, Errno::EACCES | Errno::EPERM) => {
            " (only a master with CAP_SYS_RESOURCE can set it below its own: write a greater number, or set OOMScoreAdjust= of the unit)"
        }
        (Stage::Nice, Errno::EACCES | Errno::EPERM) => {
            " (only a master with CAP_SYS_NICE can set it below its own, and none if SystemCallFilter= of the unit forbids it: write a greater number, or change the unit)"
        }
        (Stage::Cpus, Errno::EINVAL) => {
            " (the machine has none of these CPUs, or the service may use none of them: compare with Cpus_allowed_list in /proc/self/status)"
        }
        (Stage::Cpus, Errno::EPERM) => {
            " (SystemCallFilter= of the unit forbids it: allow sched_setaffinity)"
        }
        (Stage::Limit, Errno::EPERM) if failure.resource() == Some(Resource::Nofile) => {
            " (only a master with CAP_SYS_RESOURCE can raise a hard limit, and none can raise it above the sysctl fs.nr_open: write less, or raise the limit of the master)"
        }
        (Stage::Limit, Errno::EPERM) => {
            " (only a master with CAP_SYS_RESOURCE can raise a hard limit: write less, or raise the limit of the master)"
        }
        (Stage::Capabilities, Errno::EPERM) => {
            " (the master does not have one that is to be kept, or lacks CAP_SETPCAP, by which root can give up the others: compare with CapabilityBoundingSet= and SystemCallFilter= of the unit)"
        }
        (Stage::Landlock, Errno::ENOENT) => {
            " (a path in `landlock.read` or `landlock.write` does not exist any more)"
        }
        (Stage::Exec, Errno::EACCES) => {
            " (the user needs permission to execute it and to enter each folder above it, and its file system must allow to execute files; with `landlock`, what it needs must be in `read`)"
        }
        (Stage::Exec, Errno::ENOENT) => {
            " (it, the program that its first line names, or its loader is missing)"
        }
        (Stage::Exec, Errno::EAGAIN) => {
            " (the user has as many processes and threads as its limit allows, and all of them count: raise `limits.nproc`)"
        }
        (Stage::Exec, Errno::ENOMEM) => {
            " (the program needs more than `limits` or the machine has: raise `limits.as`, `limits.data` or `limits.stack`)"
        }
        (Stage::WindowsScript, _) => {
            " (its first line ends with a carriage return, as in files of Windows, which the system takes for a part of the name of the interpreter: convert its line ends, for example with dos2unix)"
        }
        (Stage::Exec, Errno::ENOEXEC) => {
            " (it is no program for this machine, nor a script that begins with \"#!\")"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use nix::fcntl::OFlag;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;
    use nix::unistd::{getpid, pipe2, write};

    use super::*;
    use crate::plan::Rights;
    use crate::programs::write_script;
    use crate::sys;

    fn process(program: &str, chdir: &str) -> Process<'static> {
        let program = CString::new(program).expect("no NUL");
        Process {
            args: vec![program.clone(), c"60".to_owned()],
            program,
            env: Vec::new(),
            chdir: CString::new(chdir).expect("no NUL"),
            release: None,
            user: None,
            rights: Rights::default(),
            umask: None,
            on_parent_death: Some(Signal::SIGTERM),
            ignores_orders: false,
            stdin: None,
            stdout: None,
            stderr: None,
            fds: Vec::new(),
        }
    }

    fn wait(launching: &mut Launching) -> Progress {
        loop {
            let ready = poll(
                &mut [PollFd::new(launching.as_fd(), PollFlags::POLLIN)],
                PollTimeout::from(30_000u16),
            );
            assert_eq!(ready, Ok(1));
            match launching.progress() {
                Progress::Pending => {}
                progress => return progress,
            }
        }
    }

    fn start(program: &str, chdir: &str) -> (Pid, Progress) {
        let process = process(program, chdir);
        let (pid, pipe) = sys::spawn(&process).expect("a process");
        let mut launching = Launching::new(pid, pipe, Attempts::of(&process));
        (pid, wait(&mut launching))
    }

    #[test]
    fn a_process_reports_that_it_runs_its_program_or_what_failed() {
        let (pid, progress) = start("/bin/sleep", "/");
        assert_eq!(progress, Progress::Executed);
        kill(pid, Signal::SIGKILL).expect("it lives");
        waitpid(pid, None).expect("it is ours");
        for (program, chdir, reason) in [
            (
                "/etc/passwd",
                "/",
                "cannot execute /etc/passwd as the master's user: Permission denied (the user needs permission",
            ),
            (
                "/bin/sleep",
                "/none",
                "cannot change to the directory /none as the master's user: No such file or directory",
            ),
        ] {
            let (pid, progress) = start(program, chdir);
            let Progress::Failed(message) = progress else {
                panic!("{progress:?}")
            };
            assert!(message.starts_with(reason), "{message}");
            waitpid(pid, None).expect("it is ours");
        }
    }

    #[test]
    fn a_script_with_the_line_ends_of_windows_is_told_from_one_that_is_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        for (text, hint) in [
            (
                "#!/bin/sh\r\nexit 0\r\n",
                "(its first line ends with a carriage return",
            ),
            (
                "#!/none\nexit 0\r\n",
                "(it, the program that its first line names",
            ),
        ] {
            write_script(&script, text);
            let (pid, progress) = start(script.to_str().expect("a plain path"), "/");
            let Progress::Failed(message) = progress else {
                panic!("{progress:?}")
            };
            assert!(message.contains(hint), "{message}");
            waitpid(pid, None).expect("it is ours");
        }
    }

    #[test]
    fn a_failure_names_the_program_and_the_user_and_says_what_to_do() {
        let mut process = process("/srv/python", "/srv");
        for (user, env, shown) in [
            (None, c"USER=root", "as the master's user"),
            (Some((33, 33, &[][..])), c"PATH=/bin", "as user 33"),
            (Some((33, 33, &[][..])), c"USER=www", "as user www (33)"),
        ] {
            process.user = user;
            process.env = vec![env.to_owned()];
            let attempts = Attempts::of(&process);
            for (reason, hint) in [
                (Errno::EACCES, ": Permission denied (the user needs"),
                (
                    Errno::ENOENT,
                    ": No such file or directory (it, the program",
                ),
                (Errno::ENOEXEC, ": Exec format error (it is no program"),
                (Errno::EIO, ": I/O error"),
            ] {
                let message = attempts.failed(Failure::new(Stage::Exec, reason));
                let expected = format!("cannot execute /srv/python {shown}{hint}");
                assert!(message.starts_with(&expected), "{message}");
            }
            let message = attempts.failed(Failure::new(Stage::Chdir, Errno::EACCES));
            let expected =
                format!("cannot change to the directory /srv {shown}: Permission denied (");
            assert!(message.starts_with(&expected), "{message}");
        }
    }

    /// The progress of `pid`, whose pipe gets these bytes and is closed.
    fn reported(pid: Pid, bytes: &[&[u8]]) -> Progress {
        let (pipe, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
        let mut launching = Launching::new(pid, pipe, Attempts::of(&process("/bin/x", "/")));
        for bytes in bytes {
            assert_eq!(launching.progress(), Progress::Pending);
            write(&report, bytes).expect("room");
        }
        if bytes.last().is_none_or(|bytes| bytes.len() <= 1) {
            assert_eq!(launching.progress(), Progress::Pending);
        }
        drop(report);
        launching.progress()
    }

    #[test]
    fn a_process_that_ends_without_a_report_has_not_executed_its_program() {
        let (running, progress) = start("/bin/sleep", "/");
        assert_eq!(progress, Progress::Executed);
        assert_eq!(reported(running, &[]), Progress::Ended);
        assert_eq!(reported(running, &[&[EXECUTING]]), Progress::Executed);
        let failure = Failure::new(Stage::Exec, Errno::EACCES);
        let attempts = Attempts::of(&process("/bin/x", "/"));
        let failed = Progress::Failed(attempts.failed(failure));
        let failure = failure.encode();
        assert_eq!(reported(running, &[&[EXECUTING], &failure]), failed);
        assert_eq!(reported(running, &[&failure]), failed);
        let both = [&[EXECUTING], &failure[..]].concat();
        assert_eq!(reported(running, &[&both]), failed);
        // It was killed between its report and execve.
        kill(running, Signal::SIGKILL).expect("it lives");
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(running), flags).expect("it is ours");
        assert_eq!(reported(running, &[&[EXECUTING]]), Progress::Ended);
        waitpid(running, None).expect("it is ours");
        // Another process: nothing is known about it.
        assert_eq!(reported(getpid(), &[&[EXECUTING]]), Progress::Ended);
    }
}
