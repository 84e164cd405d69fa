//! Acting on files with the rights of another user, so that the kernel judges what that user may do.

use nix::errno::Errno;
use nix::sys::prctl::{get_dumpable, set_dumpable};
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setfsgid, setfsuid, setgroups};

use crate::plan::Credentials;

/// Acts with another user's rights on files: setfsuid(2). Nobody can send signals to this process because of it.
///
/// # Errors
/// This process is not root, or may not change its rights.
pub fn as_user<T>(user: &Credentials, act: impl FnOnce() -> T) -> nix::Result<T> {
    let (before, was_dumpable) = (getgroups()?, get_dumpable()?);
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    let done = match become_user(Uid::from_raw(user.uid), Gid::from_raw(user.gid)) {
        true => Ok(act()),
        false => Err(Errno::EPERM),
    };
    let restored = become_user(geteuid(), getegid());
    setgroups(&before)?;
    if !restored {
        return Err(Errno::EPERM);
    }
    // The change has cleared it: prctl(2).
    set_dumpable(was_dumpable)?;
    done
}

/// Whether file accesses are those of this user now. The calls return what was before, so the second ones tell.
fn become_user(uid: Uid, gid: Gid) -> bool {
    setfsgid(gid);
    setfsuid(uid);
    setfsgid(gid) == gid && setfsuid(uid) == uid
}
