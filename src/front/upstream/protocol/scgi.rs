//! SCGI: a netstring with variables, then the body (the protocol of Neil Schemenauer, 2006). The response is that of
//! CGI, or one of HTTP/1, and ends with the connection.

use preforkd_http::{Fault, Response};

use super::cgi::Answer;

/// Appends the head of a request with these variables, each with a NUL behind name and value. `length` is that of the body.
pub fn begin(out: &mut Vec<u8>, variables: &[u8], length: u64) {
    // These two are required, and the length comes first.
    let first = format!("CONTENT_LENGTH\0{length}\0SCGI\x001\0");
    out.extend_from_slice(format!("{}:", first.len() + variables.len()).as_bytes());
    out.extend_from_slice(first.as_bytes());
    out.extend_from_slice(variables);
    out.push(b',');
}

/// Appends one variable to `variables`. Neither name nor value has a NUL.
pub fn pair(variables: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if name != b"CONTENT_LENGTH" {
        for text in [name, value] {
            variables.extend_from_slice(text);
            variables.push(0);
        }
    }
}

/// The response to one request.
#[derive(Debug)]
pub struct Reader {
    answer: Answer,
    begun: bool,
}

impl Reader {
    /// Of a request that is HEAD or not.
    pub fn new(head_only: bool) -> Self {
        Self {
            answer: Answer::new(head_only, true),
            begun: false,
        }
    }

    /// Whether a byte has come.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Reads `bytes` into the response.
    ///
    /// # Errors
    /// The head is malformed.
    pub fn read(&mut self, bytes: &[u8], response: &mut Response) -> Result<(), Fault> {
        self.begun |= !bytes.is_empty();
        self.answer.advance(bytes, response)
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// The response is not complete.
    pub fn end(&self) -> Result<(), Fault> {
        self.answer.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_netstring_that_begins_with_the_length_of_the_body() {
        let (mut variables, mut out) = (Vec::new(), Vec::new());
        for (name, value) in [
            ("CONTENT_LENGTH", "27"),
            ("REQUEST_METHOD", "POST"),
            ("X", ""),
        ] {
            pair(&mut variables, name.as_bytes(), value.as_bytes());
        }
        begin(&mut out, &variables, 27);
        let expected = "48:CONTENT_LENGTH\x0027\0SCGI\x001\0REQUEST_METHOD\0POST\0X\0\0,";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
