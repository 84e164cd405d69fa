//! How many connections wait at listeners until somebody accepts them: sock_diag(7), which answers everybody.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// linux/sock_diag.h, linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// The state of a listener, as a set of states.
const LISTENERS: u32 = 1 << 10;
const IPPROTO_TCP: u8 = 6;
/// linux/unix_diag.h: the name, and the lengths of the queues.
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_RQLEN: u16 = 4;
/// The sizes of the headers of a message, and of what follows it.
const HEADER: usize = 16;
const INET_MESSAGE: usize = 72;
const UNIX_MESSAGE: usize = 16;

/// The waiting connections by the address of each listener, in the form of the configuration. Those that the kernel does not tell are missing.
pub(super) fn waiting() -> HashMap<String, u64> {
    let mut all = HashMap::new();
    let mut add =
        |address: String, number: u32| *all.entry(address).or_insert(0) += u64::from(number);
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let _ = ask(&of_inet(family), |message| {
            if let Some((address, number)) = inet(message) {
                add(address.to_string(), number);
            }
        });
    }
    let _ = ask(&of_unix(), |message| {
        if let Some((path, number)) = unix(message) {
            add(format!("unix:{path}"), number);
        }
    });
    all
}

/// A request for all listeners of a family of TCP: `struct inet_diag_req_v2`.
fn of_inet(family: AddressFamily) -> Vec<u8> {
    let mut request = vec![family.as_raw() as u8, IPPROTO_TCP, 0, 0];
    request.extend(LISTENERS.to_ne_bytes());
    request.resize(56, 0);
    request
}

/// The same of Unix sockets: `struct unix_diag_req`.
fn of_unix() -> Vec<u8> {
    let mut request = vec![AddressFamily::UNIX.as_raw() as u8, 0, 0, 0];
    request.extend(LISTENERS.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend((UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN).to_ne_bytes());
    request.extend([0xff; 8]);
    request
}

/// Sends a request, and gives each message of the answer to `take`.
fn ask(request: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let socket: OwnedFd = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    let mut bytes = Vec::with_capacity(HEADER + request.len());
    bytes.extend(((HEADER + request.len()) as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(request);
    sendto(
        &socket,
        &bytes,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // A dump is there as soon as it is asked for.
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        let mut rest = &buffer[..length];
        if rest.is_empty() {
            return Ok(());
        }
        while let Some((kind, message, next)) = split(rest) {
            match kind {
                NLMSG_DONE | NLMSG_ERROR => return Ok(()),
                _ => take(message),
            }
            rest = next;
        }
    }
}

/// The kind of the first message, what follows its header, and the messages behind it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32(bytes, 0)?).ok()?;
    let message = bytes.get(HEADER..length)?;
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((u16(bytes, 4)?, message, &bytes[next..]))
}

/// The address of a listener, and how many wait: `struct inet_diag_msg`.
fn inet(message: &[u8]) -> Option<(SocketAddr, u32)> {
    let message = message.get(..INET_MESSAGE)?;
    let port = u16::from_be_bytes([message[4], message[5]]);
    let ip = match AddressFamily::from_raw(message[0].into()) {
        AddressFamily::INET => {
            let ip: [u8; 4] = message[8..12].try_into().ok()?;
            IpAddr::from(Ipv4Addr::from(ip))
        }
        AddressFamily::INET6 => {
            let ip: [u8; 16] = message[8..24].try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(ip))
        }
        _ => return None,
    };
    Some((SocketAddr::new(ip, port), u32(message, 56)?))
}

/// The path of a listener, and how many wait: `struct unix_diag_msg` with its attributes. An abstract one has no path.
fn unix(message: &[u8]) -> Option<(String, u32)> {
    let mut rest = message.get(UNIX_MESSAGE..)?;
    let (mut path, mut number) = (None, None);
    while rest.len() >= 4 {
        let (length, kind) = (usize::from(u16(rest, 0)?), u16(rest, 2)?);
        let value = rest.get(4..length)?;
        match kind {
            UNIX_DIAG_NAME if value.first() != Some(&0) => {
                let name = value.split(|byte| *byte == 0).next()?;
                path = Some(String::from_utf8_lossy(name).into_owned());
            }
            UNIX_DIAG_RQLEN => number = u32(value, 0),
            _ => {}
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    path.zip(number)
}

fn u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn the_kernel_tells_who_waits_at_each_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        let unix = UnixListener::bind(&path).expect("room");
        let four = TcpListener::bind("127.0.0.1:0").expect("a port");
        let six = TcpListener::bind("[::1]:0").ok();
        let addresses: Vec<SocketAddr> = [Some(&four), six.as_ref()]
            .into_iter()
            .flatten()
            .map(|listener| listener.local_addr().expect("bound"))
            .collect();
        let shown = format!("unix:{}", path.display());
        let before = waiting();
        assert_eq!(before.get(&shown), Some(&0));
        let _at_unix = [0; 3].map(|_| UnixStream::connect(&path).expect("room"));
        let _at_tcp: Vec<TcpStream> = addresses
            .iter()
            .flat_map(|address| [0; 2].map(|_| TcpStream::connect(address).expect("room")))
            .collect();
        let after = waiting();
        assert_eq!(after.get(&shown), Some(&3));
        for address in addresses {
            assert_eq!(before.get(&address.to_string()), Some(&0));
            assert_eq!(after.get(&address.to_string()), Some(&2), "{address}");
        }
        drop(unix);
        assert_eq!(waiting().get(&shown), None);
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        assert_eq!(split(&[]), None);
        let mut bytes = vec![0; 20];
        bytes[0] = 99;
        assert_eq!(split(&bytes), None);
        assert_eq!(inet(&[2; 71]), None);
        assert_eq!(unix(&[1; 18]), None);
    }
}
