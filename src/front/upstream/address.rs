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
