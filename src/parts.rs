//! The files of one release: this program, the program that serves sites, and the extension module of Python workers; where the other
//! two lie, and what is said when they are missing or of another release. Pure.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use preforkd_worker::version;

/// A file that this program needs besides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The program that serves sites.
    Front,
    /// The extension module that Python workers load.
    Extension,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Front, Self::Extension];

    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Front => "preforkd-front",
            Self::Extension => "libpreforkd_python.so",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Front => "the program that serves sites",
            Self::Extension => "the Python extension module",
        }
    }
}

/// Where it is looked for, given the path of this program without symbolic links: `../libexec/preforkd` is what every package and
/// `scripts/install` fill; beside the program it lies where cargo builds.
pub fn places(own: &Path, part: Part) -> [PathBuf; 2] {
    let folder = own.parent().unwrap_or(Path::new("/"));
    let above = folder.parent().unwrap_or(folder);
    let installed = above.join("libexec/preforkd").join(part.file_name());
    [installed, folder.join(part.file_name())]
}

/// The first of its places with a file.
///
/// # Errors
/// It is missing; with its places.
pub fn find(own: &Path, part: Part, is_file: impl Fn(&Path) -> bool) -> Result<PathBuf, String> {
    let places = places(own, part);
    places
        .iter()
        .find(|place| is_file(place))
        .cloned()
        .ok_or_else(|| {
            format!(
                "{} is missing (expected at {}, or at {})",
                part.what(),
                places[0].display(),
                places[1].display()
            )
        })
}

/// The virtual environment that this program is installed in: the folder with a file pyvenv.cfg (PEP 405), of which it lies in `bin`.
pub fn environment(own: &Path, is_file: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let folder = own.parent().filter(|folder| folder.ends_with("bin"))?;
    let environment = folder.parent()?;
    is_file(&environment.join("pyvenv.cfg")).then(|| environment.to_owned())
}

/// The version of the file of a part; `None` if it has no record of it.
///
/// # Errors
/// It cannot be read.
pub fn version_in(file: impl BufRead) -> io::Result<Option<String>> {
    for piece in file.split(version::SEPARATOR) {
        if let Some(version) = version::of_record(&piece?) {
            return Ok(Some(version.to_owned()));
        }
    }
    Ok(None)
}

/// Why a part of that version cannot be used by this program; `None` if it is of the same release.
pub fn mismatch(
    own: &Path,
    own_version: &str,
    part: Part,
    path: &Path,
    version: Option<&str>,
) -> Option<String> {
    if version == Some(own_version) {
        return None;
    }
    let version = version.map_or("an unknown release".to_owned(), |it| {
        format!("preforkd {it}")
    });
    Some(format!(
        "{} {} is of {version}, but this program, {}, is of preforkd {own_version} (install both from the same release; if this \
         master was started before they were installed, restart it)",
        part.what(),
        path.display(),
        own.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_found_below_libexec_or_beside_the_program() {
        for (installation, own, files, found) in [
            (
                "a virtual environment",
                "/srv/shop/.venv/bin/preforkd",
                &["/srv/shop/.venv/libexec/preforkd/preforkd-front"][..],
                Some("/srv/shop/.venv/libexec/preforkd/preforkd-front"),
            ),
            (
                "a Debian package, an image",
                "/usr/bin/preforkd",
                &["/usr/libexec/preforkd/preforkd-front"],
                Some("/usr/libexec/preforkd/preforkd-front"),
            ),
            (
                "a prefix",
                "/usr/local/bin/preforkd",
                &["/usr/local/libexec/preforkd/preforkd-front"],
                Some("/usr/local/libexec/preforkd/preforkd-front"),
            ),
            (
                "pip install --target",
                "/srv/site/bin/preforkd",
                &["/srv/site/libexec/preforkd/preforkd-front"],
                Some("/srv/site/libexec/preforkd/preforkd-front"),
            ),
            (
                "cargo",
                "/src/target/release/preforkd",
                &["/src/target/release/preforkd-front"],
                Some("/src/target/release/preforkd-front"),
            ),
            (
                "both: what was installed",
                "/usr/bin/preforkd",
                &[
                    "/usr/bin/preforkd-front",
                    "/usr/libexec/preforkd/preforkd-front",
                ],
                Some("/usr/libexec/preforkd/preforkd-front"),
            ),
            (
                "the root directory",
                "/preforkd",
                &["/preforkd-front"],
                Some("/preforkd-front"),
            ),
            (
                "elsewhere",
                "/usr/bin/preforkd",
                &["/usr/lib/preforkd/preforkd-front"],
                None,
            ),
        ] {
            let is_file = |path: &Path| files.contains(&path.to_str().unwrap_or_default());
            let result = find(Path::new(own), Part::Front, is_file);
            assert_eq!(
                result.ok().as_deref(),
                found.map(Path::new),
                "{installation}"
            );
        }
    }

    #[test]
    fn the_environment_is_the_folder_above_bin_with_its_mark() {
        for (own, mark, found) in [
            ("/srv/.venv/bin/preforkd", "/srv/.venv/pyvenv.cfg", true),
            ("/srv/.venv/sbin/preforkd", "/srv/.venv/pyvenv.cfg", false),
            ("/usr/bin/preforkd", "/usr/bin/pyvenv.cfg", false),
        ] {
            let environment = environment(Path::new(own), |file| file == Path::new(mark));
            assert_eq!(
                environment,
                found.then(|| PathBuf::from("/srv/.venv")),
                "{own}"
            );
        }
    }

    #[test]
    fn a_missing_part_is_said_with_its_places() {
        let message = find(Path::new("/usr/bin/preforkd"), Part::Extension, |_| false);
        assert_eq!(
            message.expect_err("missing"),
            "the Python extension module is missing (expected at /usr/libexec/preforkd/libpreforkd_python.so, or at \
             /usr/bin/libpreforkd_python.so)"
        );
    }

    #[test]
    fn the_version_is_read_from_the_file() {
        let of = |bytes: &[u8]| version_in(bytes).expect("no error");
        let record = b"\x7fELF\0\x1e preforkd version \x1epreforkd version 0.1.0\x1e\xff";
        assert_eq!(of(record), Some("0.1.0".into()));
        assert_eq!(of(b"\x7fELF preforkd version 0.1.0"), None);
        assert_eq!(of(b""), None);
    }

    #[test]
    fn another_release_is_refused_with_both_files_and_what_to_do() {
        let own = Path::new("/usr/bin/preforkd");
        let path = Path::new("/usr/libexec/preforkd/preforkd-front");
        let said = |version| mismatch(own, "1.0.0", Part::Front, path, version);
        assert_eq!(said(Some("1.0.0")), None);
        assert_eq!(
            said(Some("1.0.1")).as_deref(),
            Some(
                "the program that serves sites /usr/libexec/preforkd/preforkd-front is of preforkd 1.0.1, but this program, \
                 /usr/bin/preforkd, is of preforkd 1.0.0 (install both from the same release; if this master was started before they \
                 were installed, restart it)"
            )
        );
        let unknown = said(None).expect("refused");
        assert!(
            unknown.contains("is of an unknown release, but"),
            "{unknown}"
        );
    }
}
