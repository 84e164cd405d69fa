//! Starts the process that checks the configuration ([`crate::config_check`]), and reads its result.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use super::launch;
use crate::plan::{Extent, Plan};

/// The maximum size of a plan as JSON, in bytes. It has room for thousands of apps.
const MAX_SIZE: u64 = 256 << 20;

/// What is read at each reload.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The file, or the path that stands for the command line.
    pub file: PathBuf,
    /// The arguments of the command line, if they are the configuration.
    pub arguments: Vec<OsString>,
}

/// A configuration check that runs or has ended.
pub struct ConfigCheck {
    /// The process id.
    pub pid: Pid,
    answer: File,
}

impl ConfigCheck {
    /// Starts a configuration check for a release of this extent.
    ///
    /// # Errors
    /// The process or one of its memory files cannot be created.
    pub fn start(configuration: &Configuration, extent: &Extent) -> io::Result<Self> {
        let answer = memfd_create(c"preforkd plan", MFdFlags::MFD_CLOEXEC)?;
        let mut asked = File::from(memfd_create(c"preforkd extent", MFdFlags::MFD_CLOEXEC)?);
        asked.write_all(&serde_json::to_vec(extent)?)?;
        let own = ["check-config".into(), configuration.file.clone().into()];
        let theirs = &configuration.arguments;
        let separator = (!theirs.is_empty()).then(|| "--".into());
        let arguments = own
            .into_iter()
            .chain(separator)
            .chain(theirs.iter().cloned());
        let pid = launch::own(arguments, None, vec![answer.as_fd(), asked.as_fd()])?;
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
