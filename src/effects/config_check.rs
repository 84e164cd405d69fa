//! Starts the process that checks the configuration ([`crate::config_check`]), and reads its result.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use super::launch;
use crate::plan::Plan;

/// The maximum size of a plan as JSON, in bytes. It has room for thousands of apps.
const MAX_SIZE: u64 = 256 << 20;

/// A configuration check that runs or has ended.
pub struct ConfigCheck {
    /// The process id.
    pub pid: Pid,
    answer: File,
}

impl ConfigCheck {
    /// Starts a configuration check.
    ///
    /// # Errors
    /// The process or its memory file cannot be created.
    pub fn start(file: &Path) -> io::Result<Self> {
        let answer = memfd_create(c"preforkd plan", MFdFlags::MFD_CLOEXEC)?;
        let arguments: [OsString; 2] = ["check-config".into(), file.into()];
        let pid = launch::own(arguments, None, vec![answer.as_fd()])?;
        let answer = answer.into();
        Ok(Self { pid, answer })
    }

    /// The result of a check that has ended.
    ///
    /// # Errors
    /// What is wrong with the configuration, in one line; empty if the process ended without a result.
    pub fn found(mut self) -> Result<Plan, String> {
        let mut text = Vec::new();
        let read = self.answer.seek(SeekFrom::Start(0));
        let read = read.and_then(|_| (&self.answer).take(MAX_SIZE).read_to_end(&mut text));
        read.map_err(|error| format!("cannot read the checked configuration: {error}"))?;
        if text.is_empty() {
            return Err(String::new());
        }
        serde_json::from_slice(&text)
            .unwrap_or_else(|error| Err(format!("cannot read the checked configuration: {error}")))
    }
}
