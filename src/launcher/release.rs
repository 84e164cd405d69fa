//! The release of a worker: the folder that its working directory led to when its configuration was read.
//!
//! A deploy exchanges a symbolic link on the way to it, and may be refused. A worker that is replaced then belongs to the old generation,
//! and must run the code of that one.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Orders;

/// Has the process run in its release, while that is there: its working directory, the program and the paths that it may reach, if they are
/// below that. A release that was removed is where its path leads now.
pub(super) fn keep(orders: &mut Orders, is_folder: impl Fn(&Path) -> bool) {
    let release = PathBuf::from(OsStr::from_bytes(orders.release.as_bytes()));
    if orders.release.is_empty() || !is_folder(&release) {
        return;
    }
    let chdir = PathBuf::from(OsStr::from_bytes(orders.chdir.as_bytes()));
    let moved = |path: &Path| {
        let below = path.strip_prefix(&chdir).ok()?;
        // Without a slash at the end if it is the folder.
        Some(release.iter().chain(below).collect::<PathBuf>())
    };
    let text = |text: &CString| {
        let path = moved(Path::new(OsStr::from_bytes(text.as_bytes())))?;
        CString::new(path.into_os_string().into_vec()).ok()
    };
    // An interpreter finds its virtual environment by its own name.
    let texts = [&mut orders.program, &mut orders.chdir];
    for own in texts.into_iter().chain(orders.args.first_mut()) {
        if let Some(path) = text(own) {
            *own = path;
        }
    }
    let landlock = orders.rights.landlock.iter_mut();
    for reach in landlock.flat_map(|landlock| &mut landlock.paths) {
        if let Some(path) = moved(&reach.path) {
            reach.path = path;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Landlock, Reach, Rights};

    fn orders(release: &str) -> Orders {
        let text = |text: &str| CString::new(text).expect("no NUL");
        let reach = |path: &str| Reach {
            path: path.into(),
            write: false,
            must_exist: true,
        };
        Orders {
            master: 1,
            on_master_death: 0,
            ignores_orders: false,
            user: None,
            rights: Rights {
                landlock: Some(Landlock {
                    paths: ["/srv/current", "/srv/shared", "/srv/current/bin/run"]
                        .map(reach)
                        .into(),
                    connect: None,
                    bind: None,
                    required: false,
                }),
                ..Rights::default()
            },
            umask: None,
            streams: [false; 3],
            program: text("/srv/current/bin/run"),
            chdir: text("/srv/current"),
            release: text(release),
            args: vec![text("/srv/current/bin/run"), text("/srv/current/data")],
            env: vec![text("PWD=/srv/current")],
        }
    }

    #[test]
    fn a_process_runs_in_its_release() {
        let mut kept = orders("/srv/releases/1");
        keep(&mut kept, |folder| folder == Path::new("/srv/releases/1"));
        assert_eq!(kept.chdir.as_c_str(), c"/srv/releases/1");
        assert_eq!(kept.program.as_c_str(), c"/srv/releases/1/bin/run");
        let args: Vec<_> = kept.args.iter().map(CString::as_c_str).collect();
        assert_eq!(args, [c"/srv/releases/1/bin/run", c"/srv/current/data"]);
        assert_eq!(kept.env[0].as_c_str(), c"PWD=/srv/current");
        let reached = kept.rights.landlock.iter().flat_map(|it| &it.paths);
        let reached: Vec<_> = reached.map(|reach| reach.path.to_str()).collect();
        let expected = ["/srv/releases/1", "/srv/shared", "/srv/releases/1/bin/run"];
        assert_eq!(reached, expected.map(Some));
    }

    #[test]
    fn without_another_path_and_without_the_folder_it_runs_where_the_path_leads() {
        for (release, is_there) in [("", true), ("/srv/releases/1", false)] {
            let mut same = orders(release);
            keep(&mut same, |_| is_there);
            assert_eq!(same, orders(release));
        }
    }

    #[test]
    fn what_is_outside_of_the_folder_stays() {
        let mut other = orders("/srv/releases/1");
        other.program = c"/usr/bin/python3".into();
        other.args = vec![c"python3".into()];
        keep(&mut other, |_| true);
        assert_eq!(other.program.as_c_str(), c"/usr/bin/python3");
        assert_eq!(other.args[0].as_c_str(), c"python3");
        assert_eq!(other.chdir.as_c_str(), c"/srv/releases/1");
    }
}
