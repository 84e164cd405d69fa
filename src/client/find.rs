//! Finding the control socket of the master that runs with a configuration file.
//!
//! The file says where it is, but it may have been edited since, and the master may have got `RUNTIME_DIRECTORY` from its init system. So
//! further places are tried: there, and where the masters say that run now, a socket counts only if its master names the same file.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Pid, geteuid};

use super::{Process, ask};
use crate::effects::beacon::{self, Shown};
use crate::effects::own_folder;
use crate::plan::control::{self, Places, Usual};

/// The file name that stands for the command line: a master without a file is known by the folder that it was started in.
pub const COMMAND_LINE: &str = "(command line)";

/// How long a running master has to make its control socket again: it does so when the file was removed.
const COMES_BACK: Duration = Duration::from_secs(5);

/// The interval of attempts to connect to it.
const ATTEMPTS: Duration = Duration::from_millis(20);

/// A connection to a master.
pub struct Found {
    /// Its control socket.
    pub socket: PathBuf,
    /// What the user should know: the master reads another file.
    pub warning: Option<String>,
}

/// Connects to a control socket.
///
/// # Errors
/// No master listens there. The message is for people.
pub fn connect(socket: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(socket).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run this as the master's user or as root, or set `control_group` to a group of yours"
            }
            _ if is_other_file(socket) => "it is no control socket of preforkd",
            _ => "does preforkd run with this configuration?",
        };
        let shown = socket.display();
        format!("cannot reach a master at {shown}: {error} ({hint})")
    })
}

/// Whether there is something that cannot be a control socket: another kind of file, or of socket.
fn is_other_file(path: &Path) -> bool {
    let is_socket = |found: std::fs::Metadata| found.file_type().is_socket();
    let is_stream = || match UnixStream::connect(path) {
        Err(error) => error.raw_os_error() != Some(Errno::EPROTOTYPE as i32),
        Ok(_) => true,
    };
    path.metadata()
        .is_ok_and(|found| !is_socket(found) || !is_stream())
}

/// The same, but waits for a socket that was removed if a master runs that listens there.
///
/// # Errors
/// No master listens there. The message is for people.
pub fn connect_to_running(socket: &Path) -> Result<UnixStream, String> {
    let plain = as_named_by_master(socket);
    connect(socket).or_else(|failure| {
        if socket.exists() {
            return Err(failure);
        }
        // Whoever runs it: what another process says only decides whether to wait.
        let mut running = beacon::find(|_| true).into_iter();
        match running.find(|(_, theirs)| *theirs == plain) {
            Some((pid, _)) => connect_again(pid, socket),
            None => Err(failure),
        }
    })
}

/// The path without symbolic links.
fn as_named_by_master(socket: &Path) -> PathBuf {
    let name = socket.file_name().unwrap_or_default();
    let folder = socket.parent().unwrap_or(Path::new("/"));
    let plain = std::path::absolute(folder).and_then(std::fs::canonicalize);
    plain.map_or_else(|_| socket.to_owned(), |folder| folder.join(name))
}

/// Connects to the socket of a running master when it is there again.
fn connect_again(pid: u32, socket: &Path) -> Result<UnixStream, String> {
    let began = Instant::now();
    let shown = socket.display();
    let master = i32::try_from(pid).ok().map(Pid::from_raw);
    let master = master.and_then(Process::of);
    let hint = loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            return Ok(stream);
        }
        let is_over = began.elapsed() > COMES_BACK;
        let missing = socket.parent().filter(|folder| !folder.exists());
        if let Some(folder) = missing.filter(|folder| is_over || !control::is_made(folder)) {
            break format!("create {}", folder.display());
        }
        if is_over {
            break "the log of the master says why".into();
        }
        if master.as_ref().is_none_or(|it| it.ends_within(ATTEMPTS)) {
            return Err(format!("the master with pid {pid} has ended meanwhile"));
        }
    };
    Err(format!(
        "the control socket {shown} of the master with pid {pid} was removed and does not come back ({hint})"
    ))
}

/// Finds the master that runs with the configuration `file`, an absolute path.
///
/// # Errors
/// There is none. The message is for people.
pub fn find(places: &Places, file: &Path) -> Result<Found, String> {
    let mut failure = None;
    if let Some(socket) = &places.written {
        match connect_to_running(socket) {
            Ok(stream) => {
                let theirs = ask(stream, "configuration").ok();
                return Ok(Found {
                    socket: socket.clone(),
                    warning: theirs.and_then(|theirs| difference(Path::new(&theirs), file)),
                });
            }
            Err(error) => failure = Some(error),
        }
    }
    // In /tmp anybody may listen.
    let usual = places.usual.iter();
    let usual = usual.filter(|usual| own_folder::is_trusted(&usual.folder));
    let usual = usual.map(Usual::path);
    let usual = places.of_service.iter().cloned().chain(usual);
    let usual = usual.map(|path| (None, path));
    let owners = [0, geteuid().as_raw()].into_iter();
    let owners: Vec<u32> = owners
        .chain(file.metadata().map(|file| file.uid()))
        .collect();
    let is_trusted = |uid: u32| owners.contains(&uid);
    let running = || {
        let found = beacon::find(is_trusted).into_iter();
        found.map(|(pid, socket)| (Some(pid), socket))
    };
    // The processes are looked at only if nothing else helps.
    let (mut others, mut silent) = (Vec::new(), Vec::new());
    let tried = places.written.as_deref().map(as_named_by_master);
    for (pid, socket) in usual.chain(std::iter::once_with(running).flatten()) {
        if Some(&socket) == tried.as_ref() {
            continue;
        }
        let mut stream = connect(&socket);
        if let (Err(_), Some(pid), false) = (&stream, pid, socket.exists())
            && may_run_with(pid, file)
        {
            stream = connect_again(pid, &socket).inspect_err(|error| others.push(error.clone()));
        }
        // Where a socket was removed, whoever owns the folder may listen instead.
        if pid.is_some()
            && let Ok(stream) = &stream
            && !listener(stream).is_some_and(is_trusted)
        {
            continue;
        }
        let is_ours = pid.is_none() && stream.is_ok();
        match stream.and_then(|stream| ask(stream, "configuration")) {
            Ok(theirs) if is_same(Path::new(&theirs), file) => {
                return Ok(Found {
                    socket,
                    warning: None,
                });
            }
            // Where nobody would look for ours, many may run that have nothing to do with it.
            Ok(theirs) if pid.is_none() || Path::new(&theirs).parent() == file.parent() => {
                others.push(format!("a master runs with {}", shown(Path::new(&theirs))));
            }
            Err(error) if is_ours => silent.push(format!(
                "the process that listens at {} does not answer: {error}",
                socket.display()
            )),
            Ok(_) | Err(_) => {}
        }
    }
    let out_of_reach = out_of_reach(places, file, is_trusted);
    silent.dedup();
    let why = failure.into_iter().chain(out_of_reach).chain(silent);
    let mut why: Vec<_> = why.collect();
    if why.is_empty() {
        let shown = shown(file);
        why.push(format!("no master runs with {shown} (start it, or check the path; for another place of the control socket, use --socket)"));
    }
    others.dedup();
    Err([why, others].concat().join("; "))
}

/// What a master runs with, as messages name it.
fn shown(file: &Path) -> String {
    match (file.file_name(), file.parent()) {
        (Some(name), Some(folder)) if name == COMMAND_LINE => {
            format!(
                "an application named on the command line in {}",
                folder.display()
            )
        }
        _ => file.display().to_string(),
    }
}

/// The user of the process that listens: unix(7), SO_PEERCRED.
fn listener(stream: &UnixStream) -> Option<u32> {
    let peer = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    Some(peer.uid())
}

/// A running master that cannot be asked whether it runs with `file`, and why.
fn out_of_reach(places: &Places, file: &Path, is_trusted: impl Fn(u32) -> bool) -> Option<String> {
    let shown = shown(file);
    let own = geteuid().as_raw();
    let mut running = beacon::running();
    // Many users may have a file of this name.
    running.sort_by_key(|(_, _, seen)| !names_usual_socket(seen, places));
    running.into_iter().find_map(|(pid, uid, seen)| match seen {
        Shown::NoSocket if may_run_with(pid, file) => Some(format!(
            "no master that has a control socket runs with {shown}; the one with pid {pid}, which may do so, has none (its log says why; set `control` in [master] and reload)"
        )),
        Shown::Hidden if uid != own && may_run_with(pid, file) => Some(format!(
            "no master of this user runs with {shown}; the one with pid {pid}, which may do so, belongs to the user with the number {uid} (run this as that user or as root, or name its control socket with --socket)"
        )),
        // What listens there may be anything of that user, so it is not asked.
        Shown::Socket(ref socket)
            if !is_trusted(uid)
                && (may_run_with(pid, file) || names_usual_socket(&seen, places)) => Some(format!(
            "no master of this user, of root or of the owner of the file runs with {shown}; the one with pid {pid}, which may do so, belongs to the user with the number {uid} (run this as that user{})",
            or_at(socket)
        )),
        _ => None,
    })
}

/// Whether a master listens where one does that runs with this file, and whose configuration says nothing.
fn names_usual_socket(seen: &Shown, places: &Places) -> bool {
    let Shown::Socket(socket) = seen else {
        return false;
    };
    let mut usual = places.usual.iter();
    usual.any(|usual| socket.file_name().is_some_and(|name| name == &*usual.name))
}

/// How to reach the socket of another user, if its path can be shown: it is that user's choice, and may end in a shell.
fn or_at(socket: &Path) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(byte);
    match socket.to_str() {
        Some(path) if path.bytes().all(|byte| is_plain(&byte)) => {
            format!("; if you trust that user, --socket {path} reaches it")
        }
        _ => String::new(),
    }
}

/// Whether the title of a master names a file like this one.
fn may_run_with(pid: u32, file: &Path) -> bool {
    let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    title.windows(name.len().max(1)).any(|part| part == name)
}

/// Whether two paths lead to the same file.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let found = path.metadata().ok()?;
        Some((found.dev(), found.ino()))
    };
    // A path of another user may be one that cannot be examined here.
    one == other || identity(one).is_some_and(|one| Some(one) == identity(other))
}

/// A warning if the master reads another configuration file than the one that was named to the client.
fn difference(masters: &Path, ours: &Path) -> Option<String> {
    (!is_same(masters, ours)).then(|| {
        format!(
            "warning: the master reads {}, not {} (use that path, or restart preforkd with this one)",
            masters.display(),
            ours.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_another_user_has_chosen_is_shown_only_if_no_shell_or_terminal_minds() {
        let plain = or_at(Path::new("/tmp/preforkd-7/preforkd-01.sock"));
        assert!(
            plain.ends_with("--socket /tmp/preforkd-7/preforkd-01.sock reaches it"),
            "{plain}"
        );
        for path in [
            "/tmp/$(id)",
            "/tmp/a b",
            "/tmp/a;b",
            "/tmp/\u{1b}[2J",
            "/tmp/ä",
        ] {
            assert_eq!(or_at(Path::new(path)), "", "{path}");
        }
    }
}
