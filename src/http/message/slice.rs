//! Bytes in memory that several responses send.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// A part of them. To clone it copies none.
#[derive(Debug, Clone)]
pub struct Slice {
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

impl Slice {
    /// So many of the bytes from an offset on, or as many as there are.
    pub fn new(bytes: Arc<[u8]>, offset: u64, length: u64) -> Self {
        let at = |offset| usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
        let range = at(offset)..at(offset.saturating_add(length));
        Self { bytes, range }
    }

    /// The first so many of its bytes, or all of them.
    pub fn first(&self, length: usize) -> Self {
        let end = self.range.end.min(self.range.start.saturating_add(length));
        Self {
            bytes: self.bytes.clone(),
            range: self.range.start..end,
        }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_goes_beyond_the_bytes() {
        let bytes: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        for (offset, length, expected) in [
            (0, 10, "0123456789"),
            (3, 4, "3456"),
            (8, 10, "89"),
            (10, 1, ""),
            (11, 1, ""),
            (u64::MAX, u64::MAX, ""),
            (2, u64::MAX, "23456789"),
        ] {
            let slice = Slice::new(bytes.clone(), offset, length);
            assert_eq!(&*slice, expected.as_bytes(), "{offset} {length}");
            assert_eq!(&*slice.first(2), &slice[..slice.len().min(2)]);
            assert_eq!(&*slice.first(usize::MAX), &*slice);
        }
    }
}
