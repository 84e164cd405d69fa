//! Decoding a chunked body (RFC 9112 section 7.1), strictly and from pieces of any size.

use crate::proto::bytes::{text, token};
use crate::proto::h1::target::hex;
use crate::proto::reject::Reject;

/// Digits of a chunk's size: as many as fit into 64 bits.
const MAX_DIGITS: u32 = 16;
/// Bytes of extensions in the whole body: they carry nothing we read, and clients have used them to make a server
/// read for ever (CVE-2023-39326).
const MAX_EXTENSIONS: usize = 4 * 1024;
/// Bytes of trailer fields, which are checked.
const MAX_TRAILERS: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    SizeBlank,
    ExtNameStart,
    ExtName,
    ExtNameBlank,
    ExtValueStart,
    ExtValue,
    ExtQuoted,
    ExtEscape,
    ExtEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// The decoder's place in the body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Bytes left of the chunk.
    left: u64,
    /// Digits of its size.
    digits: u32,
    extensions: usize,
    trailers: usize,
}

impl Decoder {
    pub fn new() -> Self {
        Self {
            state: State::SizeStart,
            left: 0,
            digits: 0,
            extensions: 0,
            trailers: 0,
        }
    }

    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that the chunk announced and that are still to come.
    pub fn announced(&self) -> u64 {
        if self.state == State::Data {
            self.left
        } else {
            0
        }
    }

    /// Decodes from `input`, hands data to `sink` and returns how many bytes it took: all of them unless the body ended.
    pub fn decode(
        &mut self,
        input: &[u8],
        sink: impl FnMut(&[u8]) -> Result<(), Reject>,
    ) -> Result<usize, Reject> {
        self.decode_all(input, sink, |_| {})
    }

    /// The same, and hands the bytes of trailer fields to `trailers`, as lines.
    pub fn decode_all(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), Reject>,
        mut trailers: impl FnMut(u8),
    ) -> Result<usize, Reject> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let n = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(input.len() - at);
                sink(&input[at..at + n])?;
                at += n;
                self.left -= n as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                let next = self.step(input[at])?;
                if self.is_in_trailers() && next != State::EndLf {
                    trailers(input[at]);
                }
                self.state = next;
                at += 1;
            }
        }
        Ok(at)
    }

    fn is_in_trailers(&self) -> bool {
        (State::TrailerStart as u8..=State::TrailerLf as u8).contains(&(self.state as u8))
    }

    fn step(&mut self, b: u8) -> Result<State, Reject> {
        use State::*;
        const SIZE: Reject = Reject::bad("invalid chunk size");
        const EXTENSION: Reject = Reject::bad("invalid chunk extension");
        const DATA: Reject = Reject::bad("a chunk does not end where its size says");
        const TRAILER: Reject = Reject::bad("invalid trailer");
        if (ExtNameStart as u8..=ExtEnd as u8).contains(&(self.state as u8))
            || self.state == SizeBlank
        {
            self.extensions += 1;
            if self.extensions > MAX_EXTENSIONS {
                return Err(Reject::bad("too many chunk extensions"));
            }
        }
        if self.is_in_trailers() {
            self.trailers += 1;
            if self.trailers > MAX_TRAILERS {
                return Err(Reject::with(431, "trailers too large"));
            }
        }
        let blank = matches!(b, b' ' | b'\t');
        Ok(match (self.state, b) {
            (SizeStart, _) => {
                self.left = u64::from(hex(b).ok_or(SIZE)?);
                self.digits = 1;
                Size
            }
            (Size | SizeBlank, b';') => ExtNameStart,
            (Size, b'\r') => SizeLf,
            (Size | SizeBlank, _) if blank => SizeBlank,
            (Size, _) => {
                // Leading zeros count too: they could go on without end.
                if self.digits == MAX_DIGITS {
                    return Err(SIZE);
                }
                self.digits += 1;
                self.left = self.left << 4 | u64::from(hex(b).ok_or(SIZE)?);
                Size
            }
            (SizeBlank, _) => return Err(SIZE),

            (ExtNameStart, _) if blank => ExtNameStart,
            (ExtNameStart | ExtName, _) if token(b) => ExtName,
            (ExtName | ExtNameBlank, b'=') => ExtValueStart,
            (ExtName | ExtNameBlank | ExtValue | ExtEnd, b';') => ExtNameStart,
            (ExtName | ExtValue | ExtEnd, b'\r') => SizeLf,
            (ExtName | ExtNameBlank, _) if blank => ExtNameBlank,
            (ExtValueStart, _) if blank => ExtValueStart,
            (ExtValueStart, b'"') => ExtQuoted,
            (ExtValueStart | ExtValue, _) if token(b) => ExtValue,
            (ExtValue | ExtEnd, _) if blank => ExtEnd,
            (ExtQuoted, b'"') => ExtEnd,
            (ExtQuoted, b'\\') => ExtEscape,
            (ExtQuoted | ExtEscape, _) if text(b) => ExtQuoted,
            (
                ExtNameStart | ExtName | ExtNameBlank | ExtValueStart | ExtValue | ExtQuoted
                | ExtEscape | ExtEnd,
                _,
            ) => {
                return Err(EXTENSION);
            }

            (SizeLf, b'\n') if self.left == 0 => TrailerStart,
            (SizeLf, b'\n') => Data,
            (SizeLf, _) => return Err(SIZE),
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => SizeStart,
            (DataCr | DataLf | Data, _) => return Err(DATA),

            (TrailerStart, b'\r') => EndLf,
            (TrailerStart | TrailerName, _) if token(b) => TrailerName,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if text(b) => TrailerValue,
            (TrailerLf, b'\n') => TrailerStart,
            (EndLf, b'\n') => Done,
            (TrailerStart | TrailerName | TrailerValue | TrailerLf | EndLf | Done, _) => {
                return Err(TRAILER);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool, usize), Reject> {
        let (mut decoder, mut body, mut taken) = (Decoder::new(), Vec::new(), 0);
        for part in input.chunks(piece) {
            taken += decoder.decode(part, |data| {
                body.extend_from_slice(data);
                Ok(())
            })?;
        }
        Ok((body, decoder.done(), taken))
    }

    #[test]
    fn whole_bodies_and_their_ends() {
        for (input, body, rest) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", 3),
            (b"A\r\n0123456789\r\n00000\r\n\r\n", b"0123456789", 0),
            (b"1;a\r\nx\r\n1 ; a = \"q;\\\"\r\" \r\n", b"x", 0),
            (
                b"1;a=b;c=\"d e\" ;f\r\nx\r\n0\r\nTrailer: v\r\nX: \xff\r\n\r\n",
                b"x",
                0,
            ),
        ] {
            for piece in 1..=input.len() {
                match decode(input, piece) {
                    Ok((decoded, true, taken)) => {
                        assert_eq!((decoded.as_slice(), input.len() - taken), (body, rest))
                    }
                    // The fourth has a CR inside its quoted string, which is refused.
                    other => assert!(
                        input.contains(&b'"') && other.is_err(),
                        "{input:?}: {other:?}"
                    ),
                }
            }
        }
    }

    #[test]
    fn malformed_bodies() {
        for input in [
            "\r\n",
            " 5\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5\n",
            "5 \r\n",
            "g\r\n",
            "10000000000000000\r\n",
            "5\rx",
            "1\r\nxx",
            "1\r\nx\n",
            "1\r\nx\rx",
            "1;\r\n",
            "1;=\r\n",
            "1;a=\r\n",
            "1;a\n",
            "1;a=\"\x01\"\r\n",
            "1;a=\"b\"c\r\n",
            "1;a b\r\n",
            "1,a\r\n",
            "0\r\n\n",
            "0\r\nA\r\n",
            "0\r\nA b: c\r\n",
            "0\r\n a: b\r\n",
            "0\r\nA: b\n",
            "0\r\nA: \0\r\n",
            "0\r\n\rx",
        ] {
            for piece in 1..=input.len() {
                assert!(
                    decode(input.as_bytes(), piece).is_err(),
                    "{input:?} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_limited() {
        assert!(decode(format!("1;a={}\r\n", "b".repeat(5000)).as_bytes(), 4096).is_err());
        let many = "1;a\r\nx\r\n".repeat(2500);
        assert!(decode(many.as_bytes(), 4096).is_err());
        assert_eq!(
            decode(format!("0\r\nA: {}\r\n", "b".repeat(9000)).as_bytes(), 4096)
                .unwrap_err()
                .status,
            431
        );
    }
}
