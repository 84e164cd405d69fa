//! What must hold of the parser whatever the bytes are, for random tests and for the fuzzer.

use super::{Header, Parsed, parse};

/// Parses each beginning of the bytes. What they are is known as soon as it is known of a beginning of them, and a header never has more
/// bytes than there are.
///
/// # Panics
/// It does not hold.
pub fn check(bytes: &[u8]) {
    let mut known = None;
    for end in 0..=bytes.len() {
        let parsed = parse(&bytes[..end]);
        match known {
            Some(known) => assert_eq!(parsed, known, "{}", bytes[..end].escape_ascii()),
            None if parsed == Parsed::More => continue,
            None => known = Some(parsed),
        }
        let Parsed::Header(header, length) = parsed else {
            continue;
        };
        assert!(length <= end);
        if let Header::Relayed { client, server, .. } = header {
            assert_eq!(client.is_ipv4(), server.is_ipv4());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of headers, right and wrong.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        let known: Vec<&'static [u8]> = vec![
            b"PROXY ",
            b"TCP4 ",
            b"TCP6 ",
            b"UNKNOWN",
            b"192.0.2.1 ",
            b"::1 ",
            b"80 ",
            b"65535",
            b"065536",
            b"\r\n",
            b"\n",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"\x21\x11\0\x0c",
            b"\x21\x21\0\x24",
            b"\x20\0\0\0",
            b"\x21\x11\0\x14",
            b"\x20\0\0\0\0\0\0\x01",
            &[0; 12],
            &[7; 36],
        ];
        prop_oneof![
            6 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..12),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_bytes_are_does_not_depend_on_how_they_were_split(parts in prop::collection::vec(part(), 0..12)) {
            check(&parts.concat());
        }
    }
}
