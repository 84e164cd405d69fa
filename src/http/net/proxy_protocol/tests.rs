//! Headers byte for byte.

use super::*;

const BAD: Parsed = Parsed::Bad("");

fn relayed(client: &str, server: &str, tls: bool) -> Parsed {
    let header = Header::Relayed {
        client: client.parse().unwrap(),
        server: server.parse().unwrap(),
        tls,
    };
    Parsed::Header(header, 0)
}

fn hidden(tls: bool) -> Parsed {
    Parsed::Header(Header::Hidden { tls }, 0)
}

/// The bytes give this, with the request after them or without, and split anywhere.
#[track_caller]
fn check(bytes: &[u8], expected: Parsed) {
    let after = b"GET / HTTP/1.1\r\n";
    let whole = [bytes, after].concat();
    let found = parse(&whole);
    match (found, expected) {
        (Parsed::Header(header, length), Parsed::Header(wanted, _)) => {
            assert_eq!((header, length), (wanted, bytes.len()), "{bytes:x?}");
        }
        (Parsed::Bad(_), Parsed::Bad(_)) => {}
        _ => panic!("{found:?}, not {expected:?}: {bytes:x?}"),
    }
    for end in 0..whole.len() {
        let part = parse(&whole[..end]);
        match found {
            // A header does not change any more, and before its end nothing is decided.
            Parsed::Header(_, length) if end < length => assert_eq!(part, Parsed::More, "{end}"),
            Parsed::Header(..) => assert_eq!(part, found, "{end}"),
            // Once something is bad, it stays so.
            _ => assert!(part == Parsed::More || part == found, "{end}: {part:?}"),
        }
    }
}

#[test]
fn version_1() {
    for (line, expected) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n",
            relayed("192.0.2.1:5000", "198.51.100.2:443", false),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n",
            relayed("[2001:db8::1]:65535", "[2001:db8::2]:0", false),
        ),
        ("PROXY UNKNOWN\r\n", hidden(false)),
        (
            "PROXY UNKNOWN ffff:f...f:ffff what ever 1 2 3\r\n",
            hidden(false),
        ),
        // The longest line, and one byte more.
        (
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 16)),
            hidden(false),
        ),
        (
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 15)),
            BAD,
        ),
        (&"PROXY UNKNOWN ".repeat(100), BAD),
        ("", BAD),
        ("\r\n", BAD),
        ("proxy TCP4 192.0.2.1 198.51.100.2 5000 443\r\n", BAD),
        ("PROXY  TCP4 192.0.2.1 198.51.100.2 5000 443\r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 5000 443 \r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 5000 443 x\r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 5000\r\n", BAD),
        ("PROXY TCP4 192.0.2.1  198.51.100.2 5000 443\r\n", BAD),
        ("PROXY TCP4 192.0.2.1\t198.51.100.2 5000 443\r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 5000 65536\r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 05000 443\r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 +500 443\r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n", BAD),
        ("PROXY TCP4 192.0.2.1 198.51.100.2  443\r\n", BAD),
        ("PROXY TCP4 192.0.2.01 198.51.100.2 5000 443\r\n", BAD),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 5000 443\r\n", BAD),
        ("PROXY TCP6 192.0.2.1 198.51.100.2 5000 443\r\n", BAD),
        ("PROXY TCP4 localhost 198.51.100.2 5000 443\r\n", BAD),
        ("PROXY UDP4 192.0.2.1 198.51.100.2 5000 443\r\n", BAD),
        ("PROXY TCP 192.0.2.1 198.51.100.2 5000 443\r\n", BAD),
        ("PROXY UNKNOWNX\r\n", BAD),
        ("PROXY unknown\r\n", BAD),
        ("PROXY\r\n", BAD),
        ("PROXY \r\n", BAD),
    ] {
        check(line.as_bytes(), expected);
    }
}

/// A header of version 2.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0x88, 1, 0xbb];
const IPV6: &[u8] = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x13\x88\x01\xbb";
/// `PP2_TYPE_SSL`: TLS, verification skipped, with the version inside.
const TLS: &[u8] = b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3";

#[test]
fn version_2_addresses() {
    let ipv4 = |tls| relayed("192.0.2.1:5000", "198.51.100.2:443", tls);
    let unix = [&b"/run/haproxy.sock"[..], &[0; 199]].concat();
    let with = |extras: &[u8]| [IPV4, extras].concat();
    for (command, family, rest, expected) in [
        (0x21, 0x11, IPV4.to_vec(), ipv4(false)),
        (
            0x21,
            0x21,
            IPV6.to_vec(),
            relayed("[2001:db8::1]:5000", "[2001:db8::2]:443", false),
        ),
        // Something after the addresses is skipped, unless it says that there is TLS.
        (0x21, 0x11, with(b"\x04\0\x03abc\xee\0\0"), ipv4(false)),
        (0x21, 0x11, with(TLS), ipv4(true)),
        (0x21, 0x11, with(&[b"\x04\0\0", TLS].concat()), ipv4(true)),
        (0x21, 0x11, with(b"\x20\0\x05\0\0\0\0\0"), ipv4(false)),
        (0x21, 0x11, with(b"\x20\0\0"), ipv4(false)),
        (0x21, 0x11, with(b"\x04\0\x04abc"), BAD),
        (0x21, 0x11, with(b"\x04\0"), BAD),
        (0x21, 0x11, with(b"\x04"), BAD),
        // The proxy's own connections; AWS sends addresses with them.
        (0x20, 0x00, vec![], Parsed::Header(Header::Local, 0)),
        (0x20, 0x11, IPV4.to_vec(), Parsed::Header(Header::Local, 0)),
        (0x20, 0x11, vec![1], Parsed::Header(Header::Local, 0)),
        // Others that are not told.
        (0x21, 0x00, vec![], hidden(false)),
        (0x21, 0x00, b"whatever".to_vec(), hidden(false)),
        (0x21, 0x12, IPV4.to_vec(), hidden(false)),
        (0x21, 0x31, unix.clone(), hidden(false)),
        (0x21, 0x31, [&unix[..], TLS].concat(), hidden(true)),
        // Too short for their family.
        (0x21, 0x11, IPV4[..11].to_vec(), BAD),
        (0x21, 0x21, IPV4.to_vec(), BAD),
        (0x21, 0x31, unix[..215].to_vec(), BAD),
        // No such version, command, family or transport.
        (0x11, 0x11, IPV4.to_vec(), BAD),
        (0x01, 0x11, IPV4.to_vec(), BAD),
        (0x22, 0x11, IPV4.to_vec(), BAD),
        (0x31, 0x11, IPV4.to_vec(), BAD),
        (0x21, 0x41, IPV4.to_vec(), BAD),
        (0x21, 0x13, IPV4.to_vec(), BAD),
        (0x20, 0xff, vec![], BAD),
    ] {
        check(&version_2(command, family, &rest), expected);
    }
}

#[test]
fn version_2_has_a_greatest_length_and_one_signature() {
    let padded = |length: usize| {
        let padding = length - IPV4.len() - 3;
        let head = [4, (padding >> 8) as u8, padding as u8];
        version_2(0x21, 0x11, &[IPV4, &head, &vec![0; padding]].concat())
    };
    check(
        &padded(LONGEST_REST),
        relayed("192.0.2.1:5000", "198.51.100.2:443", false),
    );
    check(&padded(LONGEST_REST + 1), BAD);
    for at in 0..SIGNATURE.len() {
        let mut header = version_2(0x21, 0x11, IPV4);
        header[at] ^= 1;
        check(&header, BAD);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_was_decided_stays_decided(
        start in proptest::sample::select(vec![
            &b""[..], b"PROXY ", b"PROXY TCP4 1.2.3.4 ", b"PROXY TCP6 ::1 ", b"PROXY UNKNOWN", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10",
        ]),
        rest in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let whole = [start, &rest].concat();
        let mut decided = None;
        for end in 0..=whole.len() {
            let parsed = parse(&whole[..end]);
            match decided {
                None if parsed != Parsed::More => decided = Some(parsed),
                None => {}
                Some(decided) => proptest::prop_assert_eq!(parsed, decided),
            }
            if let Parsed::Header(_, length) = parsed {
                proptest::prop_assert!(length <= end);
            }
        }
    }
}
