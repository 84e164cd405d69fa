//! Finding the control socket of the master that runs with a configuration file.
//!
//! The file says where it is, but it may have been edited since, and the master may have got `RUNTIME_DIRECTORY` from its init system. So
//! further places are tried: there, and where the masters say that run now, a socket counts only if its master names the same file.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::ask;
use crate::effects::beacon;
use crate::plan::control::Places;

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
            _ => "does preforkd run with this configuration?",
        };
        let shown = socket.display();
        format!("cannot reach a master at {shown}: {error} ({hint})")
    })
}

/// Finds the master that runs with the configuration `file`, an absolute path.
///
/// # Errors
/// There is none. The message is for people.
pub fn find(places: &Places, file: &Path) -> Result<Found, String> {
    let mut failure = None;
    if let Some(socket) = &places.written {
        match connect(socket) {
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
    let usual = places
        .usual
        .iter()
        .flatten()
        .map(|path| (None, path.clone()));
    let owners = [0, geteuid().as_raw()].into_iter();
    let owners: Vec<u32> = owners
        .chain(file.metadata().map(|file| file.uid()))
        .collect();
    let running = || {
        let found = beacon::find(|uid| owners.contains(&uid)).into_iter();
        found.map(|(pid, socket)| (Some(pid), socket))
    };
    // The processes are looked at only if nothing else helps.
    let mut others = Vec::new();
    for (pid, socket) in usual.chain(std::iter::once_with(running).flatten()) {
        match connect(&socket).and_then(|stream| ask(stream, "configuration")) {
            Ok(theirs) if is_same(Path::new(&theirs), file) => {
                return Ok(Found {
                    socket,
                    warning: None,
                });
            }
            Ok(theirs) => others.push(format!("a master runs with {theirs}")),
            Err(_) if !socket.exists() => others.extend(pid.map(|pid| {
                let shown = socket.display();
                format!("the control socket {shown} of the master with pid {pid} was removed (SIGHUP makes it again)")
            })),
            Err(_) => {}
        }
    }
    let failure = failure.unwrap_or_else(|| {
        format!(
            "no control socket is configured, and no master that runs with {} is found (set `control` or `pid_file` in [master] and reload, or use --socket)",
            file.display()
        )
    });
    others.dedup();
    Err([vec![failure], others].concat().join("; "))
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
