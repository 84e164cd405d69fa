//! The files of this release on this machine ([`crate::parts`]).

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use preforkd_worker::version;

use crate::parts::{self, Part};

/// The path of this program, without symbolic links. It is also known after the file was replaced.
///
/// # Errors
/// /proc cannot be read.
pub fn own() -> Result<PathBuf, String> {
    let own = std::env::current_exe()
        .map_err(|error| format!("cannot find the path of this program: {error}"))?;
    // proc_pid_exe(5).
    let bytes = own.as_os_str().as_bytes();
    match bytes.strip_suffix(b" (deleted)") {
        Some(path) if !own.exists() => Ok(std::ffi::OsString::from_vec(path.to_vec()).into()),
        _ => Ok(own),
    }
}

/// The path of a part of this release. A process looks once, as it checks one configuration.
///
/// # Errors
/// It is missing, or of another release.
pub fn find(part: Part) -> Result<PathBuf, String> {
    static FOUND: [OnceLock<Result<PathBuf, String>>; 2] = [OnceLock::new(), OnceLock::new()];
    let look = || {
        let own = own()?;
        let path = place(&own, part)?;
        let found = version_of(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let refusal = parts::mismatch(&own, version::own(), part, &path, found.as_deref());
        refusal.map_or(Ok(path), Err)
    };
    FOUND[part as usize].get_or_init(look).clone()
}

/// The path of a part of any release.
///
/// # Errors
/// It is missing.
pub fn place(own: &Path, part: Part) -> Result<PathBuf, String> {
    parts::find(own, part, Path::is_file)
}

/// The version of a part; `None` if it has none.
///
/// # Errors
/// It cannot be read.
pub fn version_of(path: &Path) -> io::Result<Option<String>> {
    parts::version_in(BufReader::with_capacity(1 << 16, File::open(path)?))
}
