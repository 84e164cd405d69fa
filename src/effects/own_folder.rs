//! A folder for sockets that only the user of this process can change, as for the control socket where nothing says where it is to be.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::geteuid;

use super::paths::Folder;
use super::socket_file;

/// Makes a folder with this mode, if one is given and there is none, and checks it.
///
/// # Errors
/// It is missing and cannot be made, or it is not ours alone.
pub fn prepare(path: &Path, mode: Option<u32>) -> io::Result<()> {
    if let Some(mode) = mode {
        let (above, name) = Folder::of(path)?;
        match mkdirat(&above, name.as_os_str(), Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    check(path)
}

/// Checks that a folder is one, and no link; that it belongs to the user of this process; and that nobody else may change it. In
/// /tmp anybody may make one of any name.
///
/// # Errors
/// It is missing or not ours alone.
pub fn check(path: &Path) -> io::Result<()> {
    check_owner(path, &[geteuid().as_raw()])
}

/// Whether a folder belongs to the user of this process or to root, and nobody else may change it.
pub fn is_trusted(path: &Path) -> bool {
    check_owner(path, &[geteuid().as_raw(), 0]).is_ok()
}

fn check_owner(path: &Path, users: &[u32]) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    let wrong = if !found.is_dir() {
        "it is no folder"
    } else if !users.contains(&found.uid()) {
        "it belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "others may write to it"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, wrong))
}

/// Removes the sockets that killed processes of this user have left in a folder of ours, by their names. Returns their number.
pub fn remove_left(path: &Path, is_ours: impl Fn(&str) -> bool) -> usize {
    let folder = Folder::open(path);
    folder.map_or(0, |folder| socket_file::remove_left(&folder, is_ours))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_folder_of_our_own_is_taken() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("own");
        assert!(prepare(&path, None).is_err(), "it is not made");
        prepare(&path, Some(0o700)).expect("it is made");
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o700);
        prepare(&path, Some(0o700)).expect("it is there");
        set_permissions(&path, Permissions::from_mode(0o770)).expect("ours");
        let open = check(&path).expect_err("others may write");
        assert_eq!(open.to_string(), "others may write to it");
        let link = place.path().join("link");
        symlink(place.path(), &link).expect("room");
        let link = prepare(&link, Some(0o700)).expect_err("a link");
        assert_eq!(link.to_string(), "it is no folder");
        if geteuid().is_root() {
            let foreign = place.path().join("foreign");
            prepare(&foreign, Some(0o700)).expect("it is made");
            std::os::unix::fs::chown(&foreign, Some(7), None).expect("root may");
            let foreign = check(&foreign).expect_err("not ours");
            assert_eq!(foreign.to_string(), "it belongs to another user");
        }
    }
}
