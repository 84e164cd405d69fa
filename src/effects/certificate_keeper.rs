//! Starts the process that keeps certificates ([`crate::certificate_keeper`]), and reads its result.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use super::launch;
use crate::plan::Secret;

/// The maximum size of all challenges as JSON, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// A process that keeps certificates, or has ended.
pub struct CertificateKeeper {
    /// The process id.
    pub pid: Pid,
    answer: File,
}

impl CertificateKeeper {
    /// Starts one with memory files: what to do, and the challenges that the workers of the front have been told.
    ///
    /// # Errors
    /// The process or a memory file cannot be created.
    pub fn start(orders: BorrowedFd, told: BorrowedFd) -> io::Result<Self> {
        let answer = memfd_create(c"preforkd challenges", MFdFlags::MFD_CLOEXEC)?;
        let arguments: [OsString; 1] = ["keep-certificates".into()];
        let pid = launch::own(arguments, None, vec![answer.as_fd(), orders, told])?;
        let answer = answer.into();
        Ok(Self { pid, answer })
    }

    /// The challenges that are to be told; none if it has ended without any.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn found(mut self) -> io::Result<Option<Secret>> {
        let mut text = String::new();
        self.answer.rewind()?;
        (&self.answer).take(MAX_SIZE).read_to_string(&mut text)?;
        Ok((!text.is_empty()).then_some(Secret(text)))
    }
}
