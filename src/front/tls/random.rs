//! The random numbers of handshakes.

use std::io;

use aws_lc_rs::rand;

/// Gets the first random numbers of this process. For these the library measures the jitter of the processor's clock, which takes as long
/// as twenty handshakes: in the first handshake, all other clients of the worker would wait for that.
///
/// # Errors
/// The system has none.
pub fn begin() -> io::Result<()> {
    rand::fill(&mut [0; 32]).map_err(io::Error::other)
}
