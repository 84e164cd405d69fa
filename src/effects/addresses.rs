//! Addresses for programs that cannot take over a socket: each worker is told one, which it binds itself.
//!
//! While a worker lives, the master holds a socket that is bound to its address and does not listen. So the kernel gives the port to no
//! connection and to no other program that asks for any port, and a second master does not choose it. The worker can still bind it,
//! because the option SO_REUSEADDR is set, as nearly all servers set it: socket(7), ip(7).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket,
    sockopt,
};
use nix::unistd::Pid;

use crate::plan::OwnAddress;

/// An address that the kernel gives to nobody else.
pub struct Reserved {
    /// The address.
    pub address: SocketAddr,
    _socket: OwnedFd,
}

/// The addresses of workers.
#[derive(Default)]
pub struct Addresses {
    of: HashMap<Pid, Reserved>,
}

impl Addresses {
    /// Reserves the first free address.
    ///
    /// # Errors
    /// The last reason why none can be bound, and what to do.
    pub fn reserve(&self, wanted: &OwnAddress) -> io::Result<Reserved> {
        let taken: BTreeSet<_> = self.of.values().map(|held| held.address).collect();
        let mut last = Errno::EADDRINUSE;
        for port in wanted.first..=wanted.last {
            let address = SocketAddr::new(wanted.ip, port);
            if taken.contains(&address) {
                continue;
            }
            match reserve(address) {
                Ok(reserved) => return Ok(reserved),
                Err(error) => last = error,
            }
        }
        let hint = match last {
            Errno::EADDRINUSE => " (extend the range of `addresses`)",
            Errno::EADDRNOTAVAIL => {
                " (no interface of this host has this address: see `addresses`)"
            }
            _ => "",
        };
        let reason = format!("no address in {wanted} is free: {}{hint}", last.desc());
        Err(io::Error::new(io::Error::from(last).kind(), reason))
    }

    /// A worker has this address until [`Addresses::release`].
    pub fn hold(&mut self, pid: Pid, reserved: Reserved) {
        self.of.insert(pid, reserved);
    }

    /// The worker was reaped.
    pub fn release(&mut self, pid: Pid) {
        self.of.remove(&pid);
    }

    /// The address of a worker.
    pub fn of(&self, pid: Pid) -> Option<SocketAddr> {
        self.of.get(&pid).map(|held| held.address)
    }
}

fn reserve(wanted: SocketAddr) -> Result<Reserved, Errno> {
    let family = match wanted.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let any = wanted.port() == 0;
    // Connections of an earlier worker in TIME_WAIT must not block a given port. If any port will do, one without such is better,
    // and the option follows, as it counts when others bind the port.
    if !any {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(wanted))?;
    if any {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = bound.as_sockaddr_in().map(|address| address.port());
    let v6 = bound.as_sockaddr_in6().map(|address| address.port());
    let port = v4.or(v6).ok_or(Errno::EAFNOSUPPORT)?;
    Ok(Reserved {
        address: SocketAddr::new(wanted.ip(), port),
        _socket: socket,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> OwnAddress {
        OwnAddress {
            ip: [127, 0, 0, 1].into(),
            first: 0,
            last: 0,
        }
    }

    #[test]
    fn a_reserved_address_can_be_bound_by_a_server_and_is_chosen_once() {
        let mut addresses = Addresses::default();
        let first = addresses.reserve(&any()).expect("a free port");
        let address = first.address;
        addresses.hold(Pid::from_raw(7), first);
        assert_eq!(addresses.of(Pid::from_raw(7)), Some(address));
        // The standard library sets SO_REUSEADDR.
        let server = std::net::TcpListener::bind(address).expect("it is for the server");
        let only = OwnAddress {
            first: address.port(),
            last: address.port(),
            ..any()
        };
        let refused = addresses.reserve(&only).map(|other| other.address);
        let reason = refused.expect_err("it is taken").to_string();
        assert!(
            reason.contains("extend the range of `addresses`"),
            "{reason}"
        );
        addresses.release(Pid::from_raw(7));
        // Something else listens there.
        assert!(addresses.reserve(&only).is_err());
        drop(server);
        let again = addresses.reserve(&only).expect("it is free again");
        assert_eq!(again.address, address);
    }

    #[test]
    fn two_workers_have_two_addresses() {
        let mut addresses = Addresses::default();
        let first = addresses.reserve(&any()).expect("a free port");
        let only = OwnAddress {
            first: first.address.port(),
            last: first.address.port(),
            ..any()
        };
        addresses.hold(Pid::from_raw(7), first);
        assert!(addresses.reserve(&only).is_err());
    }
}
