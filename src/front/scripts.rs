//! Which file of a folder answers a request: scripts, which an interpreter such as PHP runs.
//!
//! Nothing is handed over that is not there: an interpreter that is told of a missing `/upload/x.jpg/y.php` may look for what is there
//! instead, and run an uploaded picture.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use preforkd_worker::front;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2, readlinkat};
use rustix::io::Errno;

use crate::path::Normal;
use crate::upstream::protocol::Script;

/// Opens nothing: it only tells what is there.
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The scripts of a folder.
#[derive(Debug)]
pub struct Scripts {
    root: PathBuf,
    index: Vec<u8>,
    ending: Vec<u8>,
}

/// What answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This script.
    Script(Script),
    /// A folder, whose name lacks the slash at its end.
    Folder,
    /// Nothing.
    Nothing,
}

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

impl Scripts {
    /// Of these settings.
    pub fn new(settings: &front::Scripts) -> Self {
        Self {
            root: settings.root.clone(),
            index: settings.index.as_bytes().to_vec(),
            ending: ending(&settings.index).to_vec(),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What answers for this path, which is as the client has sent it, without the part that the scripts do not see.
    ///
    /// # Errors
    /// The folder cannot be looked at.
    pub fn find(&self, raw: &[u8]) -> io::Result<Found> {
        // By its path each time: where deploys exchange a symbolic link, the new folder counts from the next request on.
        let root = open(&self.root, PATH | OFlags::DIRECTORY, Mode::empty())?;
        let found = find(raw, &self.index, &self.ending, |path| {
            let path = path.strip_prefix(b"/").unwrap_or(path);
            let path: &[u8] = if path.is_empty() { b"." } else { path };
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match openat2(&root, path, PATH, Mode::empty(), resolve) {
                Ok(found) => kind(&File::from(found)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
                // It leads out of the folder, or in a circle.
                Err(Errno::XDEV | Errno::LOOP) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        let Found::Script(mut script) = found else {
            return Ok(found);
        };
        // The real name, so that what the interpreter keeps of a file is not taken for that of the next release.
        let link = format!("/proc/self/fd/{}", root.as_raw_fd());
        script.root = match readlinkat(CWD, link, Vec::new()) {
            Ok(real) => real.into_bytes(),
            Err(_) => self.root.clone().into_os_string().into_vec(),
        };
        Ok(Found::Script(script))
    }
}

/// What the names of scripts end with, if this is one.
pub fn ending(index: &str) -> &[u8] {
    let at = index.rfind('.').unwrap_or(0);
    match &index.as_bytes()[at..] {
        [] => b".php",
        ending => ending,
    }
}

/// Whether a segment of the path is named like a script, in any case.
pub fn names_one(path: &Normal, ending: &[u8]) -> bool {
    let mut segments = path.bytes().split(|&b| b == b'/');
    segments.any(|segment| {
        let at = segment.len().checked_sub(ending.len());
        at.is_some_and(|at| segment[at..].eq_ignore_ascii_case(ending))
    })
}

fn kind(file: &File) -> io::Result<Option<Kind>> {
    let metadata = file.metadata()?;
    Ok(match metadata.is_dir() {
        true => Some(Kind::Folder),
        false => metadata.is_file().then_some(Kind::File),
    })
}

/// Finds what answers. `kind` tells what there is at a path below the folder.
fn find(
    raw: &[u8],
    index: &[u8],
    ending: &[u8],
    mut kind: impl FnMut(&[u8]) -> io::Result<Option<Kind>>,
) -> io::Result<Found> {
    let mut normal = Normal::default();
    normal.set(raw);
    let Some(path) = name(normal.bytes()) else {
        return Ok(Found::Nothing);
    };
    let script = |name: &[u8], info: &[u8]| {
        Found::Script(Script {
            root: Vec::new(),
            name: name.to_vec(),
            info: info.to_vec(),
        })
    };
    let ends = path.iter().enumerate().skip(1);
    let ends = ends.filter_map(|(at, &b)| (b == b'/').then_some(at));
    for end in ends.chain([path.len()]) {
        let (name, info) = path.split_at(end);
        if !name.ends_with(ending) {
            continue;
        }
        match kind(name)? {
            Some(Kind::File) => return Ok(script(name, info)),
            Some(Kind::Folder) => {}
            None => return Ok(Found::Nothing),
        }
    }
    if index.is_empty() {
        return Ok(Found::Nothing);
    }
    if kind(&path)? == Some(Kind::Folder) {
        let inner = path.strip_suffix(b"/").unwrap_or(&path);
        let inner = [inner, b"/", index].concat();
        if kind(&inner)? == Some(Kind::File) {
            return Ok(match path.ends_with(b"/") {
                true => script(&inner, b""),
                false => Found::Folder,
            });
        }
    }
    let first = [b"/", index].concat();
    Ok(match kind(&first)? {
        Some(Kind::File) => script(&first, b""),
        _ => Found::Nothing,
    })
}

/// The path in decoded form as a name in the file system; `None` if it is none, or a hidden one.
fn name(normal: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(normal.len());
    let mut rest = normal;
    while let [first, more @ ..] = rest {
        rest = match rest {
            // A slash that was encoded separates nothing.
            [b'%', b'2', b'F', ..] => return None,
            [b'%', b'2', b'5', more @ ..] => {
                name.push(b'%');
                more
            }
            [0..=0x1f | 0x7f, ..] => return None,
            _ => {
                name.push(*first);
                more
            }
        };
    }
    let mut segments = name.split(|&b| b == b'/');
    let is_hidden =
        segments.any(|segment| segment.first() == Some(&b'.') && segment != b".well-known");
    (!is_hidden).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 7] = [
        "/index.php",
        "/info.php",
        "/admin/index.php",
        "/upload/x.jpg",
        "/lib.php/real.php",
        "/100%.php",
        "/.git/x.php",
    ];
    const FOLDERS: [&str; 6] = ["/", "/admin", "/upload", "/lib.php", "/empty", "/.git"];

    fn found(path: &str, index: &str) -> String {
        let kind = |path: &[u8]| {
            let path = str::from_utf8(path).unwrap();
            let folder = path.strip_suffix('/').filter(|path| !path.is_empty());
            Ok(match FILES.contains(&path) {
                true => Some(Kind::File),
                false => FOLDERS
                    .contains(&folder.unwrap_or(path))
                    .then_some(Kind::Folder),
            })
        };
        match find(path.as_bytes(), index.as_bytes(), ending(index), kind).unwrap() {
            Found::Script(script) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                format!("{} {}", text(&script.name), text(&script.info))
            }
            Found::Folder => "folder".into(),
            Found::Nothing => "nothing".into(),
        }
    }

    #[test]
    fn only_what_is_there_is_handed_over() {
        for (path, expected) in [
            ("/", "/index.php "),
            ("", "/index.php "),
            ("/info.php", "/info.php "),
            ("/%69nfo.php", "/info.php "),
            ("//x/../info.php", "/info.php "),
            ("/info.php/a/b%20c", "/info.php /a/b c"),
            ("/info.php/a.php", "/info.php /a.php"),
            ("/info.php/", "/info.php /"),
            ("/lib.php/real.php/x", "/lib.php/real.php /x"),
            ("/admin/", "/admin/index.php "),
            ("/admin", "folder"),
            ("/empty/", "/index.php "),
            ("/pretty/url", "/index.php "),
            ("/upload/x.jpg", "/index.php "),
            ("/100%25.php", "/100%.php "),
            // An uploaded picture is no script, whatever follows it.
            ("/upload/x.jpg/y.php", "nothing"),
            ("/upload/x.jpg%2Fy.php", "nothing"),
            ("/upload/x.jpg%00.php", "nothing"),
            ("/upload/x.jpg/.php", "nothing"),
            ("/missing.php", "nothing"),
            ("/missing.php/info.php", "nothing"),
            ("/admin%2Findex.php", "nothing"),
            ("/info.php%0a/x", "nothing"),
            ("/.git/x.php", "nothing"),
            ("/../../etc/passwd.php", "nothing"),
            ("/info.PHP", "/index.php "),
        ] {
            assert_eq!(found(path, "index.php"), expected, "{path}");
        }
        for (path, expected) in [
            ("/", "nothing"),
            ("/info.php", "/info.php "),
            ("/pretty", "nothing"),
        ] {
            assert_eq!(found(path, ""), expected, "{path}");
        }
    }

    #[test]
    fn links_lead_nowhere_else_and_a_new_release_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for release in ["one", "two"] {
            std::fs::create_dir(at(release)).unwrap();
            std::fs::write(at(release).join("index.php"), "").unwrap();
        }
        std::fs::write(at("secret.php"), "").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        link("../secret.php", "one/out.php");
        link("index.php", "one/in.php");
        link("one", "current");
        let scripts = Scripts::new(&front::Scripts {
            root: at("current"),
            index: "index.php".into(),
        });
        let real = |release: &str| {
            at(release)
                .canonicalize()
                .unwrap()
                .into_os_string()
                .into_vec()
        };
        let root = |path: &str| match scripts.find(path.as_bytes()).unwrap() {
            Found::Script(script) => Some((script.root, String::from_utf8(script.name).unwrap())),
            _ => None,
        };
        assert_eq!(root("/x"), Some((real("one"), "/index.php".to_owned())));
        assert_eq!(root("/in.php"), Some((real("one"), "/in.php".to_owned())));
        assert_eq!(root("/out.php"), None);
        std::fs::remove_file(at("current")).unwrap();
        link("two", "current");
        assert_eq!(root("/"), Some((real("two"), "/index.php".to_owned())));
        std::fs::remove_file(at("current")).unwrap();
        assert!(scripts.find(b"/").is_err());
    }

    #[test]
    fn what_is_named_like_a_script_is_known_in_any_case() {
        for (path, is) in [
            ("/a.php", true),
            ("/a.PhP/x", true),
            ("/%61.ph%70", true),
            ("/a.php5", false),
            ("/php", false),
        ] {
            let mut normal = Normal::default();
            normal.set(path.as_bytes());
            assert_eq!(names_one(&normal, b".php"), is, "{path}");
        }
    }
}
