//! The file of a socket that the init system keeps, from one master to the next.

use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{getegid, geteuid};

use super::{Folder, Rights, SocketFile, Trust, Whose, explain, kind};

impl SocketFile {
    /// Takes back the file of a socket that another process of the same user has bound. Compare its [`SocketFile::identity`].
    ///
    /// # Errors
    /// There is no such file, or its folder can be changed by others.
    pub fn take_back(path: &Path) -> Result<Self, String> {
        let (folder, name) = Folder::of(path).map_err(|error| error.to_string())?;
        if folder.trust() != Trust::Trusted {
            return Err("others can change its folder".into());
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&folder, &*name, flags, Mode::empty())
            .map_err(explain("cannot open its file"))?;
        let stat = fstat(&file).map_err(explain("cannot examine its file"))?;
        if kind(&stat) != SFlag::S_IFSOCK {
            return Err("its path leads to a file that is not a socket".into());
        }
        let around = fstat(&folder).map_err(explain("cannot examine its folder"))?;
        let gid = match Mode::from_bits_truncate(around.st_mode).contains(Mode::S_ISGID) {
            true => around.st_gid,
            false => getegid().as_raw(),
        };
        let default = Whose {
            uid: geteuid().as_raw(),
            gid,
            ..Whose::of_new(&stat)
        };
        Ok(Self {
            folder,
            name,
            file,
            default,
            spare: None,
            is_left: false,
        })
    }

    /// Sets owner and mode as if the file had just been created.
    ///
    /// # Errors
    /// The system's reason.
    pub fn reset(&self, rights: Rights) -> Result<(), String> {
        let all = Rights {
            mode: Some(self.default.mode),
            owner: Some(self.default.uid),
            group: Some(self.default.gid),
        };
        self.change(all, rights)
    }

    /// Device and inode of the file. They are not reused while the socket is open.
    pub fn identity(&self) -> Option<(u64, u64)> {
        let ours = fstat(&self.file).ok()?;
        Some((ours.st_dev, ours.st_ino))
    }

    /// Whether only root and the master's user can change its folder.
    pub fn is_in_trusted_folder(&self) -> bool {
        self.folder.trust() == Trust::Trusted
    }

    /// Leaves the file where it is.
    pub fn leave(mut self) {
        self.is_left = true;
    }
}
