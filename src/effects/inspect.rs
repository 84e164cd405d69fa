//! Runs a process to its end that tells something of an application, as the app's user and with the environment of its workers. What it writes is data
//! of that user: it is bounded in size and time, and only parsed or shown.
//!
//! The calling process waits for it. That is never a master whose workers run, but the process that checks the configuration, or a command.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use preforkd_worker::inspection::{Inspection, MAX_SIZE};

use super::launch::{Contract, Output, launch};
use super::tail::{ReadState, Tail};
use crate::launcher::progress::Progress;
use crate::plan::Launch;

/// What a process has written, and how it ended.
pub struct Ran {
    /// Its standard output.
    pub output: Vec<u8>,
    /// The end of its standard error, in one line.
    pub said: Option<String>,
    /// Why it failed; none if it exited with status 0.
    pub failure: Option<String>,
}

/// Runs the process of `what`, for this long at most, and takes `most` bytes of its standard output. What it writes to standard error goes to `show`.
///
/// # Errors
/// It cannot be started.
pub fn run(
    app: &str,
    what: &Launch,
    limit: Duration,
    most: usize,
    show: &mut dyn FnMut(&[u8]),
) -> io::Result<Ran> {
    let deadline = Instant::now() + limit;
    let (ours, to_output) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut output = Some(File::from(ours));
    let (mut tail, to_errors) = Tail::quoted_only()?;
    let contract = Contract {
        app,
        slot: None,
        generation: 0,
        sockets: Vec::new(),
        notify_socket: "",
        scoreboard: None,
        template: None,
        check: None,
        stop: None,
        front: None,
        own: None,
        updates: None,
        wake: None,
        on_master_death: Signal::SIGKILL,
        is_ours: true,
        stdin: None,
        output: Output {
            stdout: Some(to_output.as_fd()),
            stderr: Some(to_errors.as_fd()),
            ..Output::default()
        },
    };
    let (pid, mut launching) = launch(what, &contract)?;
    drop((to_output, to_errors));
    let (mut written, mut failure) = (Vec::new(), None);
    let mut errors_open = true;
    while output.is_some() || errors_open {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            failure = Some(format!("has not ended within {}s", limit.as_secs()));
            break;
        }
        let errors = errors_open.then(|| tail.as_fd());
        wait(output.iter().map(AsFd::as_fd).chain(errors), left)?;
        if let Some(open) = &mut output
            && !read(open, &mut written)?
        {
            output = None;
        }
        if errors_open {
            errors_open = tail.read(show) != ReadState::End;
        }
        if written.len() > most {
            failure = Some(format!("has written more than {} KiB", most / 1024));
            break;
        }
    }
    // All that it has started, too: nobody else would end that.
    let _ = killpg(pid, Signal::SIGKILL);
    let ended = reap(pid);
    tail.read_rest(show);
    tail.finish(show);
    let failure = match launching.progress() {
        Progress::Failed(why) => Some(why),
        _ => failure.or_else(|| failed(ended)),
    };
    Ok(Ran {
        output: written,
        said: tail.last_output(),
        failure,
    })
}

/// Asks an application what it is, for this long at most. What it writes to standard error goes to `show`.
///
/// # Errors
/// Why it cannot be loaded, in one line.
pub fn inspect(
    app: &str,
    what: &Launch,
    limit: Duration,
    show: &mut dyn FnMut(&[u8]),
) -> Result<Inspection, String> {
    let ran = run(app, what, limit, MAX_SIZE, show).map_err(|error| error.to_string())?;
    if let Some(failure) = ran.failure {
        // The process says itself why it gives up; it says nothing of its end by a signal.
        return Err(match ran.said {
            Some(said) if failure.starts_with("exited") => said,
            Some(said) => format!("the process that loads it {failure} (its last output: {said})"),
            None => format!("the process that loads it {failure}"),
        });
    }
    let text = String::from_utf8_lossy(&ran.output);
    Inspection::parse(&text).map_err(|error| {
        format!("the process that loads it has answered what cannot be read: {error}")
    })
}

/// Waits until one of these has something to read, or has ended.
fn wait<'a>(ends: impl Iterator<Item = BorrowedFd<'a>>, time: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = ends
        .map(|end| PollFd::new(end, PollFlags::POLLIN))
        .collect();
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads a piece of what there is; whether more may come.
fn read(end: &mut File, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut bytes = [0; 16 * 1024];
    match end.read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(length) => {
            into.extend_from_slice(&bytes[..length]);
            Ok(true)
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(true),
            _ => Err(error),
        },
    }
}

fn reap(pid: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(pid, None) {
            Err(nix::Error::EINTR) => {}
            ended => return ended.ok(),
        }
    }
}

fn failed(ended: Option<WaitStatus>) -> Option<String> {
    match ended? {
        WaitStatus::Exited(_, 0) => None,
        WaitStatus::Exited(_, status) => Some(format!("exited with status {status}")),
        WaitStatus::Signaled(_, signal, _) => Some(format!("was killed by {signal}")),
        other => Some(format!("has ended: {other:?}")),
    }
}
