//! A worker's end of a lane: a connection on which the front sends several requests, one behind the other.
//!
//! The front offers one with the first bytes of a connection, by two descriptors: memory in which the worker claims each request
//! before it begins it ([`Claims`]), and an eventfd(2). The front does not wait for the connection to become readable but for that bell. So
//! responses that follow one another closely wake it once, and are all the same in the kernel as soon as they are made: the front can read them
//! at any time, and none is lost when the worker dies.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;

use preforkd_worker::lane::Claims;

use crate::net::descriptors::Own;

/// A lane that was taken.
#[derive(Debug)]
pub(crate) struct Lane {
    claims: Claims,
    bell: Own,
    /// Something was written that the front was not told of.
    is_held: Cell<bool>,
}

impl Lane {
    /// Takes what the front has sent.
    ///
    /// # Errors
    /// The memory is not what a front sends.
    pub fn take(memory: &OwnedFd, bell: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            claims: Claims::take(memory)?,
            bell: bell.into(),
            is_held: Cell::new(false),
        })
    }

    /// Whether the next request may begin. It has, then.
    pub fn begins(&self) -> bool {
        self.claims.begin()
    }

    /// Something was written; with `more` something else follows soon, unless the front has to read first because not all of it was taken.
    #[inline(never)]
    pub fn wrote(&self, more: bool, whole: bool) {
        match more && whole {
            true => self.is_held.set(true),
            false => self.ring(),
        }
    }

    /// Tells the front of what was held.
    pub fn push(&self) {
        if self.is_held.get() {
            self.ring();
        }
    }

    fn ring(&self) {
        self.is_held.set(false);
        // It can only fail when it has not been heard for ages.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}
