//! The protocol uwsgi: a packet with variables, then the body. The answer is one of HTTP/1.

use super::Refused;

/// Appends the packet with these variables to `out`.
///
/// # Errors
/// They do not fit: its length has 16 bits.
pub fn begin(out: &mut Vec<u8>, variables: &[u8]) -> Result<(), Refused> {
    let length = u16::try_from(variables.len()).map_err(|_| Refused::TooLong)?;
    let [low, high] = length.to_le_bytes();
    // The numbers of the kind of request: a WSGI one, or any other with a CGI-like interface.
    out.extend_from_slice(&[0, low, high, 0]);
    out.extend_from_slice(variables);
    Ok(())
}

/// Appends one variable to `variables`.
pub fn pair(variables: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for text in [name, value] {
        // One that is longer makes the packet too long as well.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        variables.extend_from_slice(&length.to_le_bytes());
        variables.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_lengths_in_little_endian_order_and_a_limit() {
        let (mut variables, mut out) = (Vec::new(), Vec::new());
        pair(&mut variables, b"AB", b"c");
        pair(&mut variables, b"D", b"");
        begin(&mut out, &variables).unwrap();
        assert_eq!(out, b"\0\x0c\0\0\x02\0AB\x01\0c\x01\0D\0\0");
        for (length, fits) in [(65_530, true), (65_531, false), (70_000, false)] {
            let mut variables = Vec::new();
            pair(&mut variables, b"X", &vec![b'x'; length]);
            assert_eq!(begin(&mut Vec::new(), &variables).is_ok(), fits, "{length}");
        }
    }
}
