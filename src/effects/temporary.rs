//! The folder for temporary files of an app: large request bodies and what slow clients have not accepted go there. `preforkd -t` makes a
//! file there with the rights of the workers, as a worker does when it starts.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use preforkd_worker::temporary;

use super::rights::as_user;
use crate::plan::{Credentials, Launch};

/// What is wrong with the folder in which the processes of `launch` make temporary files. `variable` is a variable of the master's
/// environment.
pub fn complaint(launch: &Launch, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let folder = launch.env.get("TMPDIR").cloned();
    let inherited = || variable("TMPDIR").filter(|_| !launch.env_clear);
    let folder = folder.or_else(inherited);
    let folder = PathBuf::from(folder.unwrap_or_else(|| "/tmp".into()));
    let reason = try_file(&launch.chdir.join(&folder), launch.user.as_ref()).err()?;
    let user = match (&launch.user, launch.env.get("USER")) {
        (None, _) => "this user".to_owned(),
        (Some(_), Some(name)) => format!("user {name}"),
        (Some(user), None) => format!("user {}", user.uid),
    };
    let complaint = temporary::complaint(&folder, &reason.into());
    Some(format!("{user} {complaint}"))
}

/// Makes a file without a name, with the rights of this user.
fn try_file(folder: &Path, user: Option<&Credentials>) -> Result<(), Errno> {
    let make = || {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        open(folder, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    };
    let made = match user.filter(|user| geteuid().is_root() && user.uid != 0) {
        None => make(),
        Some(user) => as_user(user, make).and_then(|made| made),
    };
    match made {
        // The file system has no such files. That the folder may be written was found before: open(2).
        Ok(_) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::plan::Rights;

    fn launch(env: &[(&str, &str)], chdir: &Path, user: Option<(u32, u32)>) -> Launch {
        let env = env.iter().map(|(name, value)| (*name, *value));
        Launch {
            program: PathBuf::new(),
            args: Vec::new(),
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>(),
            chdir: chdir.to_owned(),
            release: chdir.to_owned(),
            user: user.map(|(uid, gid)| Credentials {
                uid,
                gid,
                groups: vec![gid],
            }),
            rights: Rights::default(),
            env_clear: false,
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
        let is_root = metadata.uid() == 0;
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
            // Only root can take the rights of others.
            if user.is_some() && !is_root {
                continue;
            }
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
        if !is_root {
            return;
        }
        mode(&inner, 0o777);
        mode(dir.path(), 0o710);
        let env = [("TMPDIR", "inner")];
        let closed = complaint(&launch(&env, dir.path(), Some(other)), none);
        let user = format!("user {} cannot write to", other.0);
        assert!(closed.expect("it is closed").starts_with(&user));
    }

    #[test]
    fn what_may_be_written_and_holds_no_files_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("room");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o777)).expect("a mode");
        let env = [("TMPDIR", file.to_str().expect("UTF-8"))];
        let said = complaint(&launch(&env, dir.path(), None), |_| None);
        let said = said.expect("it is no folder");
        assert!(said.contains("/file: Not a directory"), "{said}");
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
