//! Asks a script in front of a Python interpreter (pyenv and the like) for the path of the real interpreter.
//!
//! The script may belong to the application's user, so it runs as that user, like the app's workers, and with a deadline. Its
//! answer is only used as the name of a program that runs as the same user. The calling process waits for the answer. If it is told to
//! end meanwhile, it kills the script first; if it is killed, the kernel kills the script.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::launcher::progress::{Attempts, Launching, Progress};
use crate::plan::{Launch, variables};
use crate::sys::{self, Process};

/// The time a script has to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The time a script has to exit after SIGTERM.
const GRACE: Duration = Duration::from_millis(500);

/// The maximum length of a path: PATH_MAX.
const MAX_ANSWER: usize = 4096;

/// The variables of the master's environment that such a script gets: what it needs, and the locale.
const VARIABLES: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "VIRTUAL_ENV",
];
/// It also gets all variables with these prefixes.
const PREFIXES: [&str; 3] = ["PYENV_", "ASDF_", "MISE_"];

/// Whether a file is a script. An unreadable file is not.
pub fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    // O_NONBLOCK, in case the path is a fifo.
    let opened = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path);
    let Ok(mut file) = opened else { return false };
    file.metadata().is_ok_and(|file| file.is_file())
        && file.read_exact(&mut start).is_ok()
        && start == *b"#!"
}

/// Asks a script for its interpreter, for at most `TIMEOUT`, as the user of `launch` and in its working directory.
///
/// # Errors
/// The script cannot be run, does not answer in time, or does not answer with the path of a program.
pub fn ask(path: &Path, launch: &Launch) -> Result<PathBuf, String> {
    let shown = path.display();
    let deadline = Instant::now() + TIMEOUT;
    let failed = |error: io::Error| format!("{shown} cannot start: {error}");
    let held = HeldSignals::new().map_err(failed)?;
    let (answers, pid, mut launching) = start(path, launch).map_err(failed)?;
    let answer = read_line(answers, &held, deadline);
    end(pid, &held);
    drop(held);
    if let Progress::Failed(why) = launching.progress() {
        return Err(format!("{shown} cannot start: {why}"));
    }
    match answer {
        Some(answer) if is_path(&answer) => Ok(answer.into()),
        Some(_) => Err(format!(
            "{shown} is a script that runs no Python interpreter (try `{shown} -c 'import sys'` as the user of the app)"
        )),
        None => Err(format!(
            "{shown} is a script that has not run a Python interpreter within {}s",
            TIMEOUT.as_secs()
        )),
    }
}

/// The signals that end this process, held back while a script runs. The script leads a session of its own, so nobody else
/// would end it.
struct HeldSignals {
    before: SigSet,
    arrived: SignalFd,
}

impl HeldSignals {
    fn new() -> io::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let arrived = SignalFd::with_flags(&signals, flags)?;
        let before = SigSet::thread_get_mask()?;
        signals.thread_block()?;
        Ok(Self { before, arrived })
    }
}

impl Drop for HeldSignals {
    /// A signal that has arrived ends this process now.
    fn drop(&mut self) {
        // It can only fail for an invalid argument: pthread_sigmask(3).
        let _ = self.before.thread_set_mask();
    }
}

fn is_path(answer: &str) -> bool {
    answer.starts_with('/') && !answer.chars().any(char::is_control)
}

fn start(path: &Path, launch: &Launch) -> io::Result<(File, Pid, Launching)> {
    let (answers, theirs) = io::pipe()?;
    fcntl(&answers, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let nothing = File::options().write(true).open("/dev/null")?;
    let user = launch.user.as_ref();
    let process = Process {
        program: c_string(path.into())?,
        args: vec![
            c_string(path.into())?,
            c"-c".to_owned(),
            c"import sys; print(sys.executable)".to_owned(),
        ],
        env: environment(std::env::vars_os(), launch)?,
        chdir: c_string(launch.chdir.clone().into())?,
        release: None,
        user: user.map(|user| (user.uid, user.gid, &user.groups[..])),
        rights: launch.rights.clone(),
        umask: launch.umask,
        on_parent_death: Some(Signal::SIGKILL),
        // The configuration would be refused if one of them ended it.
        ignores_orders: true,
        stdin: None,
        stdout: Some(theirs.as_fd()),
        stderr: Some(nothing.as_fd()),
        fds: Vec::new(),
    };
    let (pid, pipe) = sys::spawn(&process)?;
    let launching = Launching::new(pid, pipe, Attempts::of(&process));
    Ok((File::from(OwnedFd::from(answers)), pid, launching))
}

fn environment(
    own: impl Iterator<Item = (OsString, OsString)>,
    launch: &Launch,
) -> io::Result<Vec<CString>> {
    let of_use = |key: &OsStr| {
        let starts = |prefix: &&str| key.as_encoded_bytes().starts_with(prefix.as_bytes());
        let is_known = VARIABLES.iter().any(|name| key == *name) || PREFIXES.iter().any(starts);
        is_known && (!launch.env_clear || variables::is_always_passed(key))
    };
    let mut variables: BTreeMap<OsString, OsString> = own.filter(|(key, _)| of_use(key)).collect();
    variables.extend(
        launch
            .env
            .iter()
            .map(|(key, value)| (key.into(), value.into())),
    );
    variables
        .into_iter()
        .map(|(mut assignment, value)| {
            assignment.push("=");
            assignment.push(value);
            c_string(assignment)
        })
        .collect()
}

/// The first line, or everything before the end of the output; `None` at the deadline or if this process is told to end.
fn read_line(mut answers: File, held: &HeldSignals, deadline: Instant) -> Option<String> {
    let mut line = Vec::new();
    let mut bytes = [0; 512];
    while line.len() < MAX_ANSWER && !line.contains(&b'\n') {
        if !wait_for(&answers, held, deadline) {
            return None;
        }
        match answers.read(&mut bytes) {
            Ok(0) => break,
            Ok(n) => line.extend_from_slice(&bytes[..n]),
            Err(error) if is_passing(&error) => {}
            Err(_) => break,
        }
    }
    let line = line.split(|&byte| byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Ends the script and the processes it has started: SIGTERM, then SIGKILL, which comes at once if this process is told to end.
fn end(pid: Pid, held: &HeldSignals) {
    let send = |signal| {
        // It leads a process group of its own, or is about to.
        if killpg(pid, signal).is_err() {
            let _ = kill(pid, signal);
        }
    };
    // It has printed its answer, or is too late.
    send(Signal::SIGTERM);
    if let Ok(process) = sys::watch_process(pid) {
        wait_for(&process, held, Instant::now() + GRACE);
    }
    send(Signal::SIGKILL);
    while waitpid(pid, None) == Err(nix::Error::EINTR) {}
}

/// Waits until the descriptor is readable. Returns false at the deadline, or if this process is told to end.
fn wait_for(source: &impl AsFd, held: &HeldSignals, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [readable(source.as_fd()), readable(held.arrived.as_fd())];
        match poll(&mut fds, timeout) {
            Ok(0) => return false,
            Err(nix::Error::EINTR) => {}
            // The following read reports the error.
            _ => return fds[1].any() != Some(true),
        }
    }
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Rights;
    use crate::programs::write_script;

    fn launch(folder: &Path) -> Launch {
        Launch {
            program: PathBuf::new(),
            args: Vec::new(),
            env: [("SAID".to_owned(), "by the app".to_owned())].into(),
            chdir: folder.to_owned(),
            release: folder.to_owned(),
            user: None,
            rights: Rights::default(),
            env_clear: false,
            umask: None,
            settings: None,
        }
    }

    fn answer(script: &str) -> Result<PathBuf, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("python");
        write_script(&path, script);
        assert_eq!(is_script(&path), script.starts_with("#!"));
        ask(&path, &launch(folder.path()))
    }

    #[test]
    fn a_script_runs_in_the_folder_and_with_the_environment_of_its_app() {
        let said = answer(
            "#!/bin/sh\n[ \"$SAID\" = 'by the app' ] && [ -f python ] && echo /usr/bin/python\n",
        );
        assert_eq!(said, Ok("/usr/bin/python".into()));
        let silent = answer("#!/bin/sh\nexit 3\n").expect_err("no answer");
        assert!(silent.contains("runs no Python interpreter"), "{silent}");
        let odd = answer("#!/bin/sh\nprintf '/usr/\\033[2J\\n'\n").expect_err("no path");
        assert!(odd.contains("runs no Python interpreter"), "{odd}");
        let missing = answer("#!/no/such/shell\n").expect_err("it cannot be run");
        assert!(missing.contains("cannot start"), "{missing}");
    }

    #[test]
    fn a_script_that_answers_and_ignores_sigterm_is_killed() {
        let said =
            answer("#!/bin/sh\ntrap '' TERM\necho /usr/bin/python\nwhile :; do sleep 100; done\n");
        assert_eq!(said, Ok("/usr/bin/python".into()));
    }

    #[test]
    fn only_a_regular_file_is_a_script() {
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("room");
        assert!(!is_script(&fifo));
        assert!(!is_script(folder.path()));
        assert!(!is_script(&folder.path().join("none")));
    }

    #[test]
    fn a_script_gets_little_of_the_masters_environment() {
        let own = [
            ("PATH", "/bin"),
            ("SECRET", "x"),
            ("PYENV_ROOT", "/p"),
            ("HOME", "/root"),
        ];
        let own = own.map(|(key, value)| (key.into(), value.into()));
        let mut launch = launch(Path::new("/"));
        launch.env = [("HOME".to_owned(), "/srv".to_owned())].into();
        let passed = environment(own.clone().into_iter(), &launch).expect("no NUL");
        assert_eq!(
            passed,
            [c"HOME=/srv", c"PATH=/bin", c"PYENV_ROOT=/p"].map(CString::from)
        );
        launch.env_clear = true;
        let passed = environment(own.into_iter(), &launch).expect("no NUL");
        assert_eq!(passed, [c"HOME=/srv", c"PATH=/bin"].map(CString::from));
    }
}
