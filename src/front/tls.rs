//! TLS: the transport of listeners that speak it, on rustls, which has no input and output of its own.
//!
//! [`certificate`] makes pairs of certificates and keys from bytes and says what is wrong with them; [`terms`] is what is agreed on with the
//! clients of some names, and which names an address has; [`tickets`] lets sessions go on, on any worker; [`transport`] is the way of the
//! bytes; [`check`] looks at files before they are used; [`proofs`] are for handshakes of certificate authorities; [`outgoing`] is for
//! connections that this program opens; [`random`] begins what takes long at the first handshake. Nothing else in the crate knows rustls.

pub mod certificate;
pub mod check;
pub mod digest;
pub mod names;
pub mod outgoing;
pub mod proofs;
pub mod random;
pub mod terms;
pub mod tickets;
pub mod transport;

pub use transport::{Listeners, Way};
