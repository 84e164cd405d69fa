//! `sendfile`: the folders of which an application may have files sent, with `X-Accel-Redirect` or `X-Sendfile`.
//!
//! `X-Accel-Redirect` is a path as in a URL: percent-encoded, perhaps with a query, which means nothing here. Some frameworks do not encode it; a
//! percent sign that begins no code stands for itself. `X-Sendfile` is a path of the file system. Some servers decode it and some do not, so
//! the file with that very name counts first.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use preforkd_http::{NamedFile, Sending, percent_decode};

/// Characters of a path that are shown in the log.
const SHOWN: usize = 200;

/// Folders, the longest prefix first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Folders(Vec<Folder>);

#[derive(Debug, PartialEq, Eq)]
struct Folder {
    /// Decoded; ends with a slash.
    prefix: Vec<u8>,
    path: PathBuf,
    /// The number of its mapping among the files of all sites.
    mapping: usize,
}

impl Folders {
    /// Of these settings. `next` is the number of the next mapping.
    pub fn new(written: &BTreeMap<String, PathBuf>, next: &mut usize) -> Self {
        let folder = |(prefix, path): (&String, &PathBuf)| {
            let mut decoded = Vec::new();
            percent_decode(prefix.as_bytes(), &mut decoded);
            *next += 1;
            Folder {
                prefix: decoded,
                path: path.clone(),
                mapping: *next - 1,
            }
        };
        let mut folders: Vec<_> = written.iter().map(folder).collect();
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.prefix.len()));
        Self(folders)
    }

    /// The file that is meant.
    ///
    /// # Errors
    /// The application may not have it sent; the words for the log.
    pub fn find(&self, sending: Sending) -> Result<NamedFile, String> {
        match sending {
            Sending::Ambiguous => Err("it names more than one file in X-Accel-Redirect and X-Sendfile".into()),
            Sending::Location(location) => self.by_prefix(&location).ok_or_else(|| {
                let shown = shown(&location);
                format!("X-Accel-Redirect names {shown}, which is below no prefix of `sendfile` (add one, or correct the path)")
            }),
            Sending::Path(path) => self.by_path(&path).ok_or_else(|| {
                let shown = shown(&path);
                format!("X-Sendfile names {shown}, which is in no folder of `sendfile` (add the folder, or correct the path)")
            }),
        }
    }

    fn by_prefix(&self, location: &[u8]) -> Option<NamedFile> {
        let end = location.iter().position(|&b| b == b'?');
        let path = &location[..end.unwrap_or(location.len())];
        let mut decoded = Vec::new();
        percent_decode(path, &mut decoded);
        let folder = self
            .0
            .iter()
            .find(|folder| decoded.starts_with(&folder.prefix))?;
        Some(NamedFile {
            mapping: folder.mapping,
            names: vec![decoded[folder.prefix.len()..].to_vec()],
        })
    }

    fn by_path(&self, path: &[u8]) -> Option<NamedFile> {
        let written = self.0.iter().map(|folder| (folder, folder.path.clone()));
        let found = written
            .clone()
            .find_map(|(folder, at)| below(folder, &at, path));
        found.or_else(|| {
            // An application may know the folder by its real name, which a deploy changes.
            let real = written.filter_map(|(folder, at)| Some((folder, at.canonicalize().ok()?)));
            real.into_iter()
                .find_map(|(folder, at)| below(folder, &at, path))
        })
    }
}

/// The file of a path, if it is below a folder that is here.
fn below(folder: &Folder, at: &std::path::Path, path: &[u8]) -> Option<NamedFile> {
    let at = at.as_os_str().as_bytes();
    let at = at.strip_suffix(b"/").unwrap_or(at);
    let strip = |path: &[u8]| Some(path.strip_prefix(at)?.strip_prefix(b"/")?.to_vec());
    let mut decoded = Vec::new();
    percent_decode(path, &mut decoded);
    let mut names: Vec<_> = [strip(path), strip(&decoded)]
        .into_iter()
        .flatten()
        .collect();
    names.dedup();
    (!names.is_empty()).then_some(NamedFile {
        mapping: folder.mapping,
        names,
    })
}

/// A path for the log; a part of it may come from a client.
pub(crate) fn shown(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(SHOWN).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(written: &[(&str, &str)]) -> Folders {
        let written = written.iter();
        let written = written.map(|(prefix, path)| ((*prefix).into(), (*path).into()));
        Folders::new(&written.collect(), &mut 7)
    }

    fn found(folders: &Folders, sending: Sending) -> Option<(usize, Vec<String>)> {
        let found = folders.find(sending).ok()?;
        let names = found.names.into_iter();
        let names = names.map(|name| String::from_utf8_lossy(&name).into_owned());
        Some((found.mapping, names.collect()))
    }

    #[test]
    fn a_location_is_below_a_prefix() {
        let folders = folders(&[
            ("/a/", "/srv/a"),
            ("/a/b/", "/srv/b"),
            ("/m%C3%A9/", "/srv/c"),
        ]);
        for (location, expected) in [
            ("/a/x.txt", Some((7, "x.txt"))),
            ("/a/b/x%20y.txt?download=1", Some((8, "x y.txt"))),
            ("/%61/x", Some((7, "x"))),
            ("/a/90%.pdf", Some((7, "90%.pdf"))),
            ("/a/90%25.pdf", Some((7, "90%.pdf"))),
            ("/a/%252e", Some((7, "%2e"))),
            ("/m\u{e9}/x", Some((9, "x"))),
            // The names of static files refuse these.
            ("/a/../etc/passwd", Some((7, "../etc/passwd"))),
            ("/a/%2e%2e/x", Some((7, "../x"))),
            ("/a", None),
            ("/ab/x", None),
            ("/c/x", None),
            ("a/x", None),
            ("", None),
            ("http://a/a/x", None),
            ("@named", None),
        ] {
            let expected = expected.map(|(number, name)| (number, vec![name.to_owned()]));
            let sending = Sending::Location(location.into());
            assert_eq!(found(&folders, sending), expected, "{location}");
        }
    }

    #[test]
    fn a_path_is_in_a_folder_as_it_is_or_decoded() {
        let folders = folders(&[("/a/", "/srv/a"), ("/b/", "/srv/b/")]);
        for (path, expected) in [
            ("/srv/a/x y.txt", Some((7, &["x y.txt"][..]))),
            ("/srv/a/x%20y.txt", Some((7, &["x%20y.txt", "x y.txt"]))),
            ("/srv/b/x", Some((8, &["x"]))),
            ("/srv/a/../b/x", Some((7, &["../b/x"]))),
            ("/srv/a", None),
            ("/srv/ab/x", None),
            ("/a/x", None),
            ("srv/a/x", None),
            ("/etc/passwd", None),
        ] {
            let expected = expected.map(|(number, names)| {
                (
                    number,
                    names.iter().map(|name| (*name).to_owned()).collect(),
                )
            });
            let sending = Sending::Path(path.into());
            assert_eq!(found(&folders, sending), expected, "{path}");
        }
    }

    #[test]
    fn a_path_may_name_the_real_folder() {
        let parent = tempfile::tempdir().unwrap();
        let real = parent.path().canonicalize().unwrap().join("release-1");
        std::fs::create_dir(&real).unwrap();
        let link = parent.path().join("current");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let folders = folders(&[("/a/", link.to_str().unwrap())]);
        for folder in [&link, &real] {
            let path = folder.join("x").into_os_string();
            let sending = Sending::Path(path.as_bytes().to_vec());
            assert_eq!(found(&folders, sending), Some((7, vec!["x".to_owned()])));
        }
    }

    #[test]
    fn the_log_shows_no_control_characters_and_no_long_texts() {
        let folders = folders(&[]);
        let path = ["/x\n".as_bytes(), &[b'y'; 9000]].concat();
        for sending in [Sending::Location(path.clone()), Sending::Path(path)] {
            let words = folders.find(sending).unwrap_err();
            assert!(words.contains("\"/x\\nyy") && words.len() < 400, "{words}");
        }
        assert!(folders.find(Sending::Ambiguous).is_err());
    }
}
