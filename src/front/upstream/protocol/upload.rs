//! The body of a request as a protocol sends it.

use std::io::{self, BufRead, Read};

use preforkd_http::Body;

use super::fastcgi;

/// The most bytes of a body in one record: a multiple of eight, as the specification recommends.
const RECORD: u64 = 0xfff8;

/// A body on its way.
#[derive(Debug)]
pub struct Upload {
    body: Body,
    records: Option<Records>,
    length: u64,
}

/// How far the body has come in records of FastCGI.
#[derive(Debug)]
struct Records {
    header: [u8; 8],
    /// Bytes of the header that are gone.
    gone: usize,
    /// Bytes of the body that follow in this record, and in later ones.
    here: u64,
    later: u64,
    is_last: bool,
}

impl Records {
    fn new(length: u64) -> Self {
        let mut records = Self {
            header: [0; 8],
            gone: 0,
            here: 0,
            later: length,
            is_last: false,
        };
        records.next();
        records
    }

    /// Begins a record. The last one has no content.
    fn next(&mut self) {
        self.here = self.later.min(RECORD);
        self.later -= self.here;
        self.header = fastcgi::stdin(self.here as u16);
        self.gone = 0;
        self.is_last = self.here == 0;
    }
}

impl Upload {
    /// A body of so many bytes as it is.
    pub fn plain(body: Body, length: u64) -> Self {
        Self {
            body,
            records: None,
            length,
        }
    }

    /// The same in records of FastCGI, with the empty one that ends it, which applications wait for also where there is no body.
    pub fn records(body: Body, length: u64) -> Self {
        Self {
            body,
            records: Some(Records::new(length)),
            length,
        }
    }

    /// All bytes that are sent.
    pub fn length(&self) -> u64 {
        let headers = 8 * (self.length.div_ceil(RECORD) + 1);
        self.length + if self.records.is_some() { headers } else { 0 }
    }

    /// Goes back to the beginning.
    ///
    /// # Errors
    /// The body cannot be read again.
    pub fn rewind(&mut self) -> io::Result<()> {
        if let Some(records) = &mut self.records {
            *records = Records::new(self.length);
        }
        self.body.rewind()
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Upload {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Some(records) = &mut self.records else {
            return self.body.fill_buf();
        };
        let is_over = records.gone == records.header.len() && records.here == 0;
        if is_over && !records.is_last {
            records.next();
        }
        if records.gone < records.header.len() {
            return Ok(&records.header[records.gone..]);
        }
        if records.here == 0 {
            return Ok(&[]);
        }
        let data = self.body.fill_buf()?;
        let most = usize::try_from(records.here).unwrap_or(usize::MAX);
        Ok(&data[..data.len().min(most)])
    }

    fn consume(&mut self, amount: usize) {
        let Some(records) = &mut self.records else {
            return self.body.consume(amount);
        };
        if records.gone < records.header.len() {
            records.gone += amount;
        } else {
            self.body.consume(amount);
            records.here = records.here.saturating_sub(amount as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn body(data: &[u8]) -> Body {
        let mut body = Body::default();
        *body.memory().unwrap() = Cursor::new(data.to_vec());
        body
    }

    #[test]
    fn records_hold_the_body_and_end_with_an_empty_one() {
        for length in [0, 1, 0xfff7, 0xfff8, 0xfff9, 0xffff, 0x1_0000, 200_000] {
            let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut upload = Upload::records(body(&data), length as u64);
            let total = upload.length();
            for _ in 0..2 {
                let mut sent = Vec::new();
                (&mut upload).take(total).read_to_end(&mut sent).unwrap();
                assert_eq!(sent.len() as u64, total);
                let (mut found, mut rest) = (Vec::new(), &sent[..]);
                while let [1, 5, 0, 1, high, low, 0, 0, more @ ..] = rest {
                    let n = usize::from(u16::from_be_bytes([*high, *low]));
                    found.extend_from_slice(&more[..n]);
                    rest = &more[n..];
                    assert_eq!(n == 0, rest.is_empty(), "{length}");
                }
                assert!(rest.is_empty() && found == data, "{length}");
                upload.rewind().unwrap();
            }
        }
    }

    #[test]
    fn a_plain_body_is_as_it_is() {
        let mut upload = Upload::plain(body(b"abc"), 3);
        let mut sent = Vec::new();
        upload.read_to_end(&mut sent).unwrap();
        assert_eq!((sent.as_slice(), upload.length()), (&b"abc"[..], 3));
    }
}
