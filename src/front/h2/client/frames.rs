//! Where frames begin in the bytes of a connection (RFC 9113 section 4.1).

/// Bytes of the header of a frame.
const HEADER: usize = 9;
const RST_STREAM: u8 = 3;

/// Where in a frame the bytes stand.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
}

impl Frames {
    /// How many of the bytes may be read at once: up to the payload of the next RST_STREAM.
    ///
    /// A server may end its response and reset the stream for the rest of the request (RFC 9113 section 8.1). The library forgets at the
    /// reset that the response was complete, so what comes before it has to be looked at before.
    pub fn before_reset(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.left > 0 {
                let n = self.left.min(rest.len());
                self.left -= n;
                at += n;
                continue;
            }
            let n = (HEADER - self.have).min(rest.len());
            self.header[self.have..self.have + n].copy_from_slice(&rest[..n]);
            self.have += n;
            at += n;
            if self.have == HEADER {
                self.have = 0;
                let [high, middle, low, kind, ..] = self.header;
                self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                if kind == RST_STREAM {
                    return at;
                }
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_in_each_reset_wherever_they_were_split() {
        let mut bytes = vec![0, 0, 3, 0, 0, 0, 0, 0, 1, 3, 3, 3];
        bytes.extend([0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1]);
        let first = bytes.len();
        bytes.extend([0, 0, 0, 0]);
        bytes.extend([0, 0, 4, RST_STREAM, 0, 0, 0, 0, 3]);
        let second = bytes.len();
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]);
        for size in 1..=bytes.len() {
            let (mut frames, mut cuts, mut given) = (Frames::default(), Vec::new(), 0);
            for piece in bytes.chunks(size) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let n = frames.before_reset(rest);
                    given += n;
                    rest = &rest[n..];
                    cuts.push(given);
                }
            }
            assert!(cuts.contains(&first) && cuts.contains(&second), "{size}");
            assert_eq!(given, bytes.len());
        }
    }
}
