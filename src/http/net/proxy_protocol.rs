//! The header of the PROXY protocol, versions 1 and 2 (HAProxy's specification, "The PROXY protocol"): what a proxy sends first on a
//! connection that it relays as it is. Bytes in, a header or an error out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[cfg(any(test, fuzzing))]
pub mod drive;

/// Section 2.1: the longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// The longest rest of a header of version 2: addresses and what follows them. The format has room for 64 KiB, but nobody needs it.
const LONGEST_REST: usize = 4096;

/// Section 2.2: what version 2 begins with. No request and no header of version 1 does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What became of the bytes so far. It does not depend on how they were split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// More are needed.
    More,
    /// A header, and its length.
    Header(Header, usize),
    /// Something else.
    Bad(&'static str),
}

/// For whom a connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// For the proxy itself, which looks whether the server is well (`LOCAL`).
    Local,
    /// For somebody whose address is not told, or is none of IP over TCP; and whether it speaks TLS with the proxy.
    Hidden { tls: bool },
    /// For a client, which has connected to `server`.
    Relayed {
        client: SocketAddr,
        server: SocketAddr,
        tls: bool,
    },
}

/// Parses the first bytes of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    const LINE: &[u8] = b"PROXY ";
    if starts_alike(bytes, SIGNATURE) {
        return binary(bytes);
    }
    match starts_alike(bytes, LINE) {
        true => line(bytes),
        false => Parsed::Bad("no PROXY header"),
    }
}

/// Whether the bytes begin with these, as far as they have come.
fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    let known = bytes.len().min(start.len());
    bytes[..known] == start[..known]
}

/// Version 1.
fn line(bytes: &[u8]) -> Parsed {
    const BAD: Parsed = Parsed::Bad("malformed PROXY header");
    let most = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = memchr::memchr(b'\n', most) else {
        return match most.len() < LONGEST_LINE {
            true => Parsed::More,
            false => BAD,
        };
    };
    let Some(line) = most[..end].strip_suffix(b"\r") else {
        return BAD;
    };
    match words(line) {
        Some(header) => Parsed::Header(header, end + 1),
        None => BAD,
    }
}

fn words(line: &[u8]) -> Option<Header> {
    let mut words = str::from_utf8(line).ok()?.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The rest of the line is to be ignored.
        return Some(Header::Hidden { tls: false });
    }
    let mut address = || {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (client, server) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        let plain = digits && (word == "0" || !word.starts_with('0'));
        plain.then(|| word.parse::<u16>().ok()).flatten()
    };
    let (client, server) = ((client, port()?).into(), (server, port()?).into());
    words.next().is_none().then_some(Header::Relayed {
        client,
        server,
        tls: false,
    })
}

/// Version 2.
fn binary(bytes: &[u8]) -> Parsed {
    const BAD: Parsed = Parsed::Bad("malformed PROXY header");
    // Each byte is judged as soon as it is there: what does not begin a header never becomes one.
    let command = match bytes.get(12) {
        None => return Parsed::More,
        Some(command @ (0x20 | 0x21)) => command & 0xf,
        Some(_) => return Parsed::Bad("unknown version or command in a PROXY header"),
    };
    let family = match bytes.get(13) {
        None => return Parsed::More,
        Some(family) if family >> 4 <= 3 && family & 0xf <= 2 => *family,
        Some(_) => return BAD,
    };
    let (Some(&high), Some(&low)) = (bytes.get(14), bytes.get(15)) else {
        return Parsed::More;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Parsed::Bad("the PROXY header is too long");
    }
    let Some(rest) = bytes.get(16..16 + length) else {
        return Parsed::More;
    };
    let header = match command {
        // Also if it has addresses: they are to be skipped.
        0 => Some(Header::Local),
        _ => addresses(family, rest),
    };
    match header {
        Some(header) => Parsed::Header(header, 16 + length),
        None => BAD,
    }
}

fn addresses(family: u8, rest: &[u8]) -> Option<Header> {
    let length = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        _ => 216,
    };
    let (addresses, more) = rest.split_at_checked(length)?;
    // Without a family, nobody knows where its addresses end.
    let tls = match family >> 4 {
        0 => false,
        _ => is_tls(more)?,
    };
    let (client, server) = match family {
        0x11 => ips::<4>(addresses)?,
        0x21 => ips::<16>(addresses)?,
        _ => return Some(Header::Hidden { tls }),
    };
    Some(Header::Relayed {
        client,
        server,
        tls,
    })
}

/// Both addresses, then both ports.
fn ips<const LENGTH: usize>(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)>
where
    IpAddr: From<[u8; LENGTH]>,
{
    let (client, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let (server, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (client_port, rest) = rest.split_first_chunk()?;
    let (server_port, _) = rest.split_first_chunk()?;
    let of = |ip: &[u8; LENGTH], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Some((of(client, client_port), of(server, server_port)))
}

/// Whether the client speaks TLS with the proxy: section 2.2.5, `PP2_TYPE_SSL` with `PP2_CLIENT_SSL`. All else is skipped. None if
/// something is longer than the header.
fn is_tls(mut extras: &[u8]) -> Option<bool> {
    const SSL: u8 = 0x20;
    const CLIENT_SSL: u8 = 0x01;
    let mut tls = false;
    while let Some((&kind, rest)) = extras.split_first() {
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        tls |= kind == SSL && value.first().is_some_and(|flags| flags & CLIENT_SSL != 0);
        extras = rest;
    }
    Some(tls)
}

#[cfg(test)]
#[path = "proxy_protocol/tests.rs"]
mod tests;
