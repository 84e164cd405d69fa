//! Listeners that single workers have for themselves, at which only the front can connect. So the front knows which worker it asks.
//!
//! The master holds one only until its worker has it: when the worker dies, the kernel refuses connections at once, and the front asks
//! another worker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::socket::{Backlog, listen};

use super::socket_file::{Rights, SocketFile, stream};
use crate::plan::OwnListener;
use crate::sys;

/// Whose listener it is: an app, and the number of the worker's record in the scoreboard.
type Key = (String, u32);

struct Open {
    /// Until the worker has it.
    socket: Option<OwnedFd>,
    _file: SocketFile,
}

/// The listeners of all workers that have one.
#[derive(Default)]
pub struct OwnListeners {
    open: BTreeMap<Key, Open>,
}

impl OwnListeners {
    /// Opens one for a worker that is about to start. Returns its path.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn open(&mut self, app: &str, record: u32, wanted: &OwnListener) -> io::Result<PathBuf> {
        let bound = bind(&wanted.path(&record.to_string()), wanted).or_else(|_| {
            // A worker of a master that was killed may still serve there.
            let other = format!("{record}-{:08x}", sys::random()? as u32);
            bind(&wanted.path(&other), wanted)
        });
        let (path, open) = bound?;
        self.open.insert((app.to_owned(), record), open);
        Ok(path)
    }

    /// The listener, for its worker, which is the only one to have it from then on.
    pub fn take(&mut self, app: &str, record: u32) -> Option<OwnedFd> {
        let open = self.open.get_mut(&(app.to_owned(), record))?;
        open.socket.take()
    }

    /// The worker did not get it after all, and will be offered it again.
    pub fn give_back(&mut self, app: &str, record: u32, socket: OwnedFd) {
        if let Some(open) = self.open.get_mut(&(app.to_owned(), record)) {
            open.socket = Some(socket);
        }
    }

    /// The worker was reaped, or will not come. Removes the file.
    pub fn release(&mut self, app: &str, record: u32) {
        self.open.remove(&(app.to_owned(), record));
    }
}

fn bind(path: &Path, wanted: &OwnListener) -> io::Result<(PathBuf, Open)> {
    let socket = stream()?;
    let backlog = i32::try_from(wanted.backlog).unwrap_or(i32::MAX);
    let backlog = Backlog::new(backlog).unwrap_or(Backlog::MAXCONN);
    let rights = Rights {
        mode: Some(wanted.mode),
        owner: wanted.owner,
        group: None,
    };
    let bound = SocketFile::bind(&socket, path, rights, || listen(&socket, backlog));
    let file = bound.map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?;
    let open = Open {
        socket: Some(socket),
        _file: file,
    };
    Ok((path.to_owned(), open))
}

impl OwnListener {
    /// The path of one of them.
    fn path(&self, name: &str) -> PathBuf {
        let mut path: OsString = self.prefix.clone().into();
        path.push(".");
        path.push(name);
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn wanted(folder: &Path) -> OwnListener {
        OwnListener {
            prefix: folder.join("web.front"),
            mode: 0o600,
            owner: None,
            backlog: 10,
        }
    }

    #[test]
    fn each_worker_has_one_and_it_ends_with_the_worker() {
        let folder = tempfile::tempdir().expect("room");
        let wanted = wanted(folder.path());
        let mut own = OwnListeners::default();
        let first = own.open("web", 3, &wanted).expect("a listener");
        let other = own.open("web", 4, &wanted).expect("another one");
        assert_ne!(first, other);
        let mode = first.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&first).expect("it listens");
        let worker = own.take("web", 3).expect("it was not taken yet");
        assert!(own.take("web", 3).is_none(), "nobody else gets it");
        UnixStream::connect(&first).expect("the worker has it");
        drop(worker);
        UnixStream::connect(&first).expect_err("the worker has ended");
        own.release("web", 3);
        assert!(!first.exists() && other.exists());
    }

    #[test]
    fn one_that_a_killed_master_has_left_is_not_in_the_way() {
        let folder = tempfile::tempdir().expect("room");
        let wanted = wanted(folder.path());
        let mut before = OwnListeners::default();
        let old = before.open("web", 0, &wanted).expect("a listener");
        let worker = before.take("web", 0);
        let mut own = OwnListeners::default();
        let new = own.open("web", 0, &wanted).expect("a listener");
        assert_ne!(old, new, "the old worker still serves");
        drop(worker);
        own.release("web", 0);
        let new = own.open("web", 0, &wanted).expect("a listener");
        assert_eq!(old, new, "nobody listens there any more");
    }
}
