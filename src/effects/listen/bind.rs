//! Binding new sockets.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use log::debug;
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use nix::unistd::Pid;

use super::holder::{self, Holder};
use super::{Reason, Rights, SocketFile, stream};
use crate::config::Address;
use crate::plan::Listener;

/// Binds a TCP socket, and listens if that is wanted.
///
/// # Errors
/// The system's reason, and what to do.
pub(super) fn tcp(
    address: SocketAddr,
    listener: &Listener,
    listens: bool,
) -> Result<OwnedFd, Reason> {
    let bound = || -> nix::Result<OwnedFd> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Connections of a previous master in TIME_WAIT must not block the address: socket(7).
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6V6Only, &listener.v6only)?;
        }
        no_delay(&socket)?;
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        if listens {
            socket::listen(&socket, backlog(listener))?;
        }
        Ok(socket)
    };
    let explain = |errno: Errno, holder: Option<&Holder>| match errno {
        Errno::EADDRINUSE => match holder {
            Some(Holder { text, .. }) => format!("the address is in use {text}"),
            None => "the address is in use (`ss -tanp` shows the process)".into(),
        },
        Errno::EACCES => format!(
            "{} (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
            errno.desc()
        ),
        Errno::EADDRNOTAVAIL => format!(
            "{} (no interface of this host has this address)",
            errno.desc()
        ),
        other => other.desc().to_owned(),
    };
    bound().map_err(|errno| {
        let in_use = errno == Errno::EADDRINUSE;
        let holder = in_use.then(|| holder::find(address)).flatten();
        Reason {
            text: explain(errno, holder.as_ref()),
            errno: Some(errno),
            holders: holder.map(|holder| holder.processes).unwrap_or_default(),
        }
    })
}

/// Accepted sockets inherit this option: tcp(7). Many programs set it where they bind a socket, and not on one that they are given. Without
/// it the second write of a response waits until the client acknowledges the first, which may take 40 ms.
///
/// # Errors
/// It is no TCP socket.
pub(super) fn no_delay(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)
}

/// Binds a unix socket, also at the path of one of these masters that have ended, and listens if that is wanted.
///
/// # Errors
/// The system's reason, and what to do.
pub(super) fn unix(
    path: &Path,
    listener: &Listener,
    ended: &[Pid],
    listens: bool,
) -> Result<(OwnedFd, SocketFile), Reason> {
    let socket = stream().map_err(|error| format!("socket: {error}"))?;
    let listen = || match listens {
        true => socket::listen(&socket, backlog(listener)),
        false => Ok(()),
    };
    let file = SocketFile::bind_after(ended, &socket, path, rights(listener), listen);
    let mut file = file.map_err(|not_bound| Reason {
        text: not_bound.text,
        errno: not_bound.in_use.then_some(Errno::EADDRINUSE),
        holders: match not_bound.was_left {
            true => holder::orphans(path),
            false => Vec::new(),
        },
    })?;
    if listener.is_lent {
        add_spare(&mut file, &listener.address, rights(listener));
    }
    Ok((socket, file))
}

/// Gives the file of a unix socket its spare name. It serves without one.
pub(super) fn add_spare(file: &mut SocketFile, address: &Address, rights: Rights) {
    if let Err(reason) = file.add_spare(rights) {
        debug!("{address}: no spare name for its file: {reason}");
    }
}

/// The configured owner and mode of a unix socket.
pub(super) fn rights(listener: &Listener) -> Rights {
    Rights {
        mode: listener.mode,
        owner: listener.owner,
        group: listener.group,
    }
}

/// The length of its accept queue.
pub(super) fn backlog(listener: &Listener) -> Backlog {
    // The kernel limits it to net.core.somaxconn: listen(2).
    let wanted = i32::try_from(listener.backlog).unwrap_or(i32::MAX);
    Backlog::new(wanted).unwrap_or(Backlog::MAXCONN)
}
