//! The folder for temporary files of an app, which `preforkd -t` looks at as the worker does when it starts: large request bodies and
//! what slow clients have not accepted go there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use crate::plan::{Credentials, Launch};

const WRITE: u32 = 0o2;
const SEARCH: u32 = 0o1;

/// What is wrong with the folder in which the processes of `launch` make temporary files, as far as permission bits tell. `variable` is a
/// variable of the master's environment.
pub fn complaint(launch: &Launch, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let folder = launch.env.get("TMPDIR").cloned();
    let folder = folder.or_else(|| variable("TMPDIR"));
    let folder = PathBuf::from(folder.unwrap_or_else(|| "/tmp".into()));
    let reason = usable(&launch.chdir.join(&folder), launch.user.as_ref()).err()?;
    let user = match (&launch.user, launch.env.get("USER")) {
        (None, _) => "this user".to_owned(),
        (Some(_), Some(name)) => format!("user {name}"),
        (Some(user), None) => format!("user {}", user.uid),
    };
    Some(format!(
        "{user} cannot write to the folder for temporary files, {}: {} (make it writable, or name another one: \
         env = {{ TMPDIR = \"PATH\" }}); large request bodies, and responses that clients do not take, will be kept in memory, up to \
         max_buffered",
        folder.display(),
        reason.desc()
    ))
}

fn usable(folder: &Path, user: Option<&Credentials>) -> Result<(), Errno> {
    let own = access(folder, AccessFlags::W_OK | AccessFlags::X_OK);
    let Some(user) = user.filter(|user| user.uid != 0) else {
        return own;
    };
    // A master that is root may do everything that the file system allows at all.
    own?;
    let real = folder
        .canonicalize()
        .map_err(|error| error.raw_os_error().map_or(Errno::EACCES, Errno::from_raw))?;
    let mut above = real.ancestors().skip(1);
    let open = above.all(|folder| permits(folder, user, SEARCH));
    if !open || !permits(&real, user, SEARCH | WRITE) {
        return Err(Errno::EACCES);
    }
    match statvfs(&real) {
        Ok(system) if system.flags().contains(FsFlags::ST_RDONLY) => Err(Errno::EROFS),
        _ => Ok(()),
    }
}

/// Whether the permission bits allow this. What cannot be looked at is not blamed.
fn permits(folder: &Path, user: &Credentials, bits: u32) -> bool {
    let Ok(metadata) = folder.metadata() else {
        return true;
    };
    let is_member = user.gid == metadata.gid() || user.groups.contains(&metadata.gid());
    let shift = match (user.uid == metadata.uid(), is_member) {
        (true, _) => 6,
        (_, true) => 3,
        (_, false) => 0,
    };
    metadata.mode() >> shift & bits == bits
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn launch(env: &[(&str, &str)], chdir: &Path, user: Option<(u32, u32)>) -> Launch {
        let env = env.iter().map(|(name, value)| (*name, *value));
        Launch {
            program: PathBuf::new(),
            args: Vec::new(),
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>(),
            chdir: chdir.to_owned(),
            user: user.map(|(uid, gid)| Credentials {
                uid,
                gid,
                groups: vec![gid],
            }),
            umask: None,
            settings: None,
        }
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named_with_its_user() {
        let dir = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
        };
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("a folder");
        let metadata = inner.metadata().expect("it is there");
        let other = (metadata.uid() + 7, metadata.gid() + 7);
        mode(dir.path(), 0o711);
        let none = |_: &str| None;
        for (bits, user, works) in [
            (0o700, None, true),
            (0o777, Some(other), true),
            (0o775, Some(other), false),
            (0o776, Some(other), false),
            (0o770, Some((other.0, metadata.gid())), true),
            (0o757, Some((other.0, metadata.gid())), false),
        ] {
            mode(&inner, bits);
            for env in [
                [("TMPDIR", inner.to_str().expect("UTF-8")), ("USER", "www")],
                [("TMPDIR", "inner"), ("USER", "www")],
            ] {
                let said = complaint(&launch(&env, dir.path(), user), none);
                assert_eq!(said.is_none(), works, "{bits:o} {user:?}: {said:?}");
                if let Some(said) = said {
                    assert!(said.starts_with("user www cannot write to"), "{said}");
                    assert!(said.contains(": Permission denied ("), "{said}");
                }
            }
        }
        mode(&inner, 0o777);
        mode(dir.path(), 0o710);
        let env = [("TMPDIR", "inner")];
        let closed = complaint(&launch(&env, dir.path(), Some(other)), none);
        let user = format!("user {} cannot write to", other.0);
        assert!(closed.expect("it is closed").starts_with(&user));
    }

    #[test]
    fn without_a_variable_it_is_that_of_the_master_or_tmp() {
        let launch = launch(&[], Path::new("/"), None);
        assert_eq!(complaint(&launch, |_| None), None);
        let missing = |name: &str| (name == "TMPDIR").then(|| "/no/such/folder".to_owned());
        let said = complaint(&launch, missing).expect("it is missing");
        assert!(
            said.contains("this user cannot write to the folder for temporary files, /no/such/folder: No such file or directory"),
            "{said}"
        );
    }
}
