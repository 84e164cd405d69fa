//! Digests by the library that TLS has.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// SHA-1, for protocols that ask for it where nobody has to be kept from finding two texts with the same.
pub fn sha1(text: &[u8]) -> impl AsRef<[u8]> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, text)
}
