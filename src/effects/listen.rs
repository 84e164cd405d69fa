//! Listeners: bound once, or inherited from the init system, and kept open by the master as long as they are configured.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use preforkd_worker::env::{self, FIRST_LISTENER};

use super::socket_file::{self, Rights, SocketFile};
use crate::config::Address;
use crate::plan::Listener;
use crate::sys;

/// Why a listener cannot be opened.
#[derive(Debug)]
pub struct Error {
    address: Address,
    reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.reason)
    }
}

impl std::error::Error for Error {}

struct Open {
    socket: OwnedFd,
    /// Its configuration.
    wanted: Listener,
    /// Bound by the init system.
    inherited: bool,
    /// The file of a unix socket that the master has bound.
    file: Option<SocketFile>,
}

impl Open {
    fn adapt(&self, listener: &Listener) -> Result<(), String> {
        if self.inherited {
            return Ok(());
        }
        // listen(2) on a listening socket only changes the length of its queue.
        socket::listen(&self.socket, backlog(listener)).map_err(|errno| errno.desc().to_owned())?;
        if let Some(file) = &self.file {
            file.set(rights(listener))?;
            if !file.is_in_place() {
                return Err("its socket file was removed or replaced, so that no client can connect (restart preforkd)".into());
            }
        }
        if self.wanted.v6only != listener.v6only {
            return Err("a change of whether it also accepts IPv4 needs a restart".into());
        }
        Ok(())
    }
}

struct Inherited {
    name: String,
    socket: OwnedFd,
    address: Option<Address>,
}

/// All listeners of the master.
pub struct Listeners {
    open: BTreeMap<Address, Open>,
    inherited: Vec<Inherited>,
}

impl Listeners {
    /// The sockets that the init system has passed, and no listeners yet: sd_listen_fds(3).
    ///
    /// # Errors
    /// A socket that the environment names was not passed.
    pub fn inherit() -> io::Result<Self> {
        let names = passed(|name| std::env::var(name).ok(), std::process::id());
        let inherited = names.zip(FIRST_LISTENER..).map(|(name, fd)| {
            let socket = sys::adopt(fd)?;
            let address = local_address(&socket);
            Ok(Inherited {
                name,
                socket,
                address,
            })
        });
        Ok(Self {
            open: BTreeMap::new(),
            inherited: inherited.collect::<io::Result<_>>()?,
        })
    }

    /// Opens the wanted listeners that are not open yet, and returns their addresses.
    ///
    /// # Errors
    /// One of them cannot be opened; then none is.
    pub fn open(&mut self, wanted: &[Listener]) -> Result<Vec<Address>, Error> {
        let mut opened = Vec::new();
        for listener in wanted {
            if self.open.contains_key(&listener.address) {
                continue;
            }
            let found = self
                .take_inherited(listener)
                .or_else(|| match &listener.address {
                    Address::Tcp(address) => Some(tcp(*address, listener)),
                    Address::Unix(path) => Some(unix(path, listener)),
                    Address::Inherited(_) => None,
                });
            let found = found.unwrap_or_else(|| Err(self.not_passed()));
            match found {
                Ok(open) => {
                    self.open.insert(listener.address.clone(), open);
                    opened.push(listener.address.clone());
                }
                Err(reason) => {
                    self.close(&opened);
                    let address = listener.address.clone();
                    return Err(Error { address, reason });
                }
            }
        }
        Ok(opened)
    }

    /// Closes these listeners.
    pub fn close(&mut self, addresses: &[Address]) {
        self.open.retain(|address, _| !addresses.contains(address));
    }

    /// Applies changed settings to open listeners: accept queue, mode and owner. Returns what failed.
    pub fn adapt(&mut self, wanted: &[Listener]) -> Vec<String> {
        let mut failures = Vec::new();
        for listener in wanted {
            if let Some(open) = self.open.get_mut(&listener.address)
                && open.wanted != *listener
            {
                if let Err(reason) = open.adapt(listener) {
                    failures.push(format!("{}: {reason}", listener.address));
                }
                open.wanted = listener.clone();
            }
        }
        failures
    }

    /// Closes all other listeners, and returns their addresses.
    pub fn keep(&mut self, wanted: &[Listener]) -> Vec<Address> {
        let wanted = |address: &Address| wanted.iter().any(|listener| listener.address == *address);
        let gone: Vec<_> = self
            .open
            .keys()
            .filter(|address| !wanted(address))
            .cloned()
            .collect();
        self.close(&gone);
        gone
    }

    /// The socket of an open listener.
    pub fn socket(&self, address: &Address) -> Option<BorrowedFd<'_>> {
        self.open.get(address).map(|open| open.socket.as_fd())
    }

    /// Inherited sockets that no listener uses.
    pub fn unused(&self) -> Vec<String> {
        let describe = |i: &Inherited| match &i.address {
            Some(address) => format!("{} ({address})", i.name),
            None => i.name.clone(),
        };
        self.inherited.iter().map(describe).collect()
    }

    fn take_inherited(&mut self, listener: &Listener) -> Option<Result<Open, String>> {
        let matches = |i: &Inherited| match &listener.address {
            Address::Inherited(name) => i.name == *name,
            other => i.address.as_ref() == Some(other),
        };
        let at = self.inherited.iter().position(matches)?;
        let socket = self.inherited.remove(at).socket;
        if socket::getsockopt(&socket, sockopt::AcceptConn) == Ok(true) {
            // Not for a unix socket.
            let _ = no_delay(&socket);
            Some(Ok(Open {
                socket,
                wanted: listener.clone(),
                inherited: true,
                file: None,
            }))
        } else {
            Some(Err(
                "the inherited descriptor is not a listening socket".into()
            ))
        }
    }

    fn not_passed(&self) -> String {
        let names: Vec<_> = self.inherited.iter().map(|i| i.name.as_str()).collect();
        if names.is_empty() {
            "no socket with this name was passed (the socket unit of the init system sets LISTEN_FDS and LISTEN_FDNAMES)".into()
        } else {
            format!(
                "no socket with this name was passed (passed: {})",
                names.join(", ")
            )
        }
    }
}

/// The names of the sockets that the init system has passed to the process `own`; the first is descriptor 3.
fn passed(variable: impl Fn(&str) -> Option<String>, own: u32) -> impl Iterator<Item = String> {
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    let count = match number(env::LISTEN_PID) {
        Some(pid) if pid == own => number(env::LISTEN_FDS).unwrap_or(0),
        _ => 0,
    };
    let names = variable(env::LISTEN_FDNAMES).filter(|names| !names.is_empty());
    let names = names.iter().flat_map(|names| names.split(':'));
    let names: Vec<_> = names.map(str::to_owned).collect();
    // The name of a socket without one: sd_listen_fds_with_names(3).
    let nameless = std::iter::repeat_with(|| "unknown".to_owned());
    names.into_iter().chain(nameless).take(count as usize)
}

fn local_address(socket: &OwnedFd) -> Option<Address> {
    let address: SockaddrStorage = socket::getsockname(socket.as_raw_fd()).ok()?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(Address::Tcp(std::net::SocketAddrV4::from(*v4).into()));
    }
    if let Some(v6) = address.as_sockaddr_in6() {
        return Some(Address::Tcp(std::net::SocketAddrV6::from(*v6).into()));
    }
    let path = address.as_unix_addr()?.path()?;
    Some(Address::Unix(path.to_owned()))
}

/// Accepted sockets inherit this option: tcp(7). Many programs set it where they bind a socket, and not on one that they are given. Without
/// it the second write of a response waits until the client acknowledges the first, which may take 40 ms.
fn no_delay(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)
}

fn tcp(address: SocketAddr, listener: &Listener) -> Result<Open, String> {
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
        socket::listen(&socket, backlog(listener))?;
        Ok(socket)
    };
    let explain = |errno: Errno| {
        match errno {
        Errno::EADDRINUSE => {
            "the address is in use (`ss -ltnp` shows the process; if it is this preforkd, with another address of this port, restart it)".into()
        }
        Errno::EACCES => format!(
            "{} (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
            errno.desc()
        ),
        Errno::EADDRNOTAVAIL => format!("{} (no interface of this host has this address)", errno.desc()),
        other => other.desc().to_owned(),
    }
    };
    let socket = bound().map_err(explain)?;
    Ok(Open {
        socket,
        wanted: listener.clone(),
        inherited: false,
        file: None,
    })
}

fn unix(path: &Path, listener: &Listener) -> Result<Open, String> {
    let socket = socket_file::stream().map_err(|error| format!("socket: {error}"))?;
    let listen = || socket::listen(&socket, backlog(listener));
    let file = SocketFile::bind(&socket, path, rights(listener), listen)?;
    Ok(Open {
        wanted: listener.clone(),
        inherited: false,
        socket,
        file: Some(file),
    })
}

fn rights(listener: &Listener) -> Rights {
    Rights {
        mode: listener.mode,
        owner: listener.owner,
        group: listener.group,
    }
}

fn backlog(listener: &Listener) -> Backlog {
    // The kernel limits it to net.core.somaxconn: listen(2).
    let wanted = i32::try_from(listener.backlog).unwrap_or(i32::MAX);
    Backlog::new(wanted).unwrap_or(Backlog::MAXCONN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_sockets_are_found_in_the_environment() {
        let of = |pid: &str, fds: &str, names: &str| {
            passed(
                |name| {
                    let value = match name {
                        "LISTEN_PID" => pid,
                        "LISTEN_FDS" => fds,
                        _ => names,
                    };
                    (!value.is_empty()).then(|| value.to_owned())
                },
                7,
            )
            .collect::<Vec<_>>()
        };
        assert_eq!(of("7", "2", "web:admin"), ["web", "admin"]);
        assert_eq!(of("7", "2", ""), ["unknown", "unknown"]);
        assert_eq!(of("7", "2", "web"), ["web", "unknown"]);
        assert_eq!(of("7", "1", "web:admin"), ["web"]);
        assert_eq!(of("7", "3", "x::z"), ["x", "", "z"]);
        for (pid, fds) in [("8", "1"), ("", "1"), ("7", ""), ("7", "-1"), ("x", "1")] {
            assert!(of(pid, fds, "web").is_empty(), "{pid} {fds}");
        }
    }
}
