//! Starts the process that watches certificates ([`crate::certificate_watch`]), and reads its result.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use super::launch;
use crate::plan::Secret;

/// The maximum size of all certificates as JSON, in bytes.
const MAX_SIZE: u64 = 256 << 20;

/// A process that watches certificates, or has ended.
pub struct CertificateWatch {
    /// The process id.
    pub pid: Pid,
    answer: File,
}

impl CertificateWatch {
    /// Starts one that waits for others than those in a memory file. `front` is the path of the program that checks them.
    ///
    /// # Errors
    /// The process or a memory file cannot be created.
    pub fn start(front: &Path, running: BorrowedFd) -> io::Result<Self> {
        let answer = memfd_create(c"preforkd certificates", MFdFlags::MFD_CLOEXEC)?;
        let arguments: [OsString; 2] = ["watch-certificates".into(), front.into()];
        let pid = launch::own(arguments, None, vec![answer.as_fd(), running])?;
        let answer = answer.into();
        Ok(Self { pid, answer })
    }

    /// The new certificates; none if it has ended without any.
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
