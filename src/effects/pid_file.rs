//! The master's process id in a file, for tools that look for it there.

use std::io;
use std::path::{Path, PathBuf};

/// The file; removed when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes it: whole or not at all.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written; or the file names another master that runs.
    pub fn write(path: PathBuf) -> io::Result<Self> {
        if let Some(pid) = other_master(&path) {
            let message = format!("it names another preforkd that runs, pid {pid}");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&draft, format!("{}\n", std::process::id()))?;
        std::fs::rename(&draft, &path)?;
        Ok(Self { path })
    }
}

/// The master that is named in a pid file and runs. What a crashed one has left behind is nobody's.
fn other_master(path: &Path) -> Option<u32> {
    let pid: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (command.trim() == "preforkd" && pid != std::process::id()).then_some(pid)
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
