//! The master's process id in a file, for tools that look for it there.

use std::io;
use std::path::PathBuf;

/// The file; removed when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes it: whole or not at all.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written.
    pub fn write(path: PathBuf) -> io::Result<Self> {
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&draft, format!("{}\n", std::process::id()))?;
        std::fs::rename(&draft, &path)?;
        Ok(Self { path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = format!("{}\n", std::process::id());
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == ours) {
            // If it cannot be removed, it names a dead process: no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
