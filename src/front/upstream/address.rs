//! Where an upstream listens, and how a connection to it begins.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use super::failure::Failure;

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix stream socket by its path.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// One as in `listen`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => Some(Self::Unix(path.into())),
            None => text.parse::<SocketAddr>().ok().map(Self::Tcp),
        }
    }

    /// Begins a connection, without waiting; and whether it has come about already.
    pub(super) fn connect(&self) -> Result<(OwnedFd, bool), Failure> {
        match self.try_connect() {
            Ok(socket) => Ok(socket),
            // connect(2): on a Unix socket, the queue of the listener is full. No event would tell of room in it.
            Err(Errno::AGAIN) if matches!(self, Self::Unix(_)) => Err(Failure::Busy),
            Err(error) => Err(Failure::Connect(error.into())),
        }
    }

    fn try_connect(&self) -> Result<(OwnedFd, bool), Errno> {
        let family = match self {
            Self::Unix(_) => AddressFamily::UNIX,
            Self::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
            Self::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        let result = match self {
            Self::Unix(path) => connect(&socket, &SocketAddrUnix::new(path.as_path())?),
            Self::Tcp(address) => {
                sockopt::set_tcp_nodelay(&socket, true)?;
                connect(&socket, address)
            }
        };
        match result {
            Ok(()) => Ok((socket, true)),
            // It goes on after a signal as well.
            Err(Errno::INPROGRESS | Errno::INTR) => Ok((socket, false)),
            Err(error) => Err(error),
        }
    }
}

/// How the connection has come about that had begun.
///
/// # Errors
/// It has not.
pub(super) fn connected(socket: &OwnedFd) -> io::Result<()> {
    sockopt::socket_error(socket)?.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_listen() {
        let address = Address::parse;
        let tcp = Address::Tcp(([127, 0, 0, 1], 80).into());
        assert_eq!(address("127.0.0.1:80"), Some(tcp));
        assert_eq!(address("unix:/a b"), Some(Address::Unix("/a b".into())));
        let v6 = address("[::1]:80").map(|address| address.to_string());
        assert_eq!(v6.as_deref(), Some("[::1]:80"));
        assert_eq!((address("/a"), address("localhost:80")), (None, None));
    }
}
