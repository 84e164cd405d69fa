//! What changes the body of a response on its way to the client.

use std::fmt;
use std::io;

/// Changes the body of a response while it is sent, such as a compression. It goes with the response from one thread to another.
pub trait Coder: Send + fmt::Debug {
    /// Takes a piece of the body, and appends what it becomes as far as that is there.
    ///
    /// # Errors
    /// The body cannot be changed; the response breaks off.
    fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()>;

    /// Appends what is held back, so that the client can read all that was given.
    ///
    /// # Errors
    /// As those of [`Coder::write`].
    fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()>;

    /// Appends the rest. Nothing else is called after it.
    ///
    /// # Errors
    /// As those of [`Coder::write`].
    fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()>;
}

/// A coder, and what the response has to know of it.
#[derive(Debug)]
pub(crate) struct Coded {
    pub coder: Box<dyn Coder>,
    /// What the coder has made.
    pub out: Vec<u8>,
    /// The coder may hold something back.
    pub holds: bool,
}

impl Coded {
    pub fn new(coder: Box<dyn Coder>) -> Self {
        Self {
            coder,
            out: Vec::new(),
            holds: false,
        }
    }
}
