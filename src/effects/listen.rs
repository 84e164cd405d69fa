//! Listeners: bound once, or taken over from the init system, and held by the master for as long as they are
//! configured.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, setsockopt,
    sockopt,
};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use crate::config::Address;
use crate::plan::Listener;
use crate::sys;

/// Why a listener could not be had.
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
    /// How it was asked for.
    wanted: Listener,
    /// The init system has bound it, as it was told to.
    inherited: bool,
    /// The file of a unix socket that we made: removed at the end if it is still the same.
    file: Option<(PathBuf, u64)>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.file
            && path
                .symlink_metadata()
                .is_ok_and(|file| file.ino() == *inode)
        {
            // If this fails, the next start takes the stale file over.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Open {
    fn adapt(&self, listener: &Listener) -> Result<(), String> {
        if self.inherited {
            return Ok(());
        }
        // listen(2) on a listening socket only changes the length of its queue.
        socket::listen(&self.socket, backlog(listener)).map_err(|errno| errno.desc().to_owned())?;
        if let Some((path, _)) = &self.file {
            own(path, listener)?;
            if let Some(mode) = listener.mode {
                let mode = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(path, mode)
                    .map_err(|error| format!("changing its mode: {error}"))?;
            }
        }
        if self.wanted.v6only != listener.v6only {
            return Err("whether it takes IPv4 too can only be changed by a restart".into());
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
    /// No listeners yet, but those that the init system passed: sd_listen_fds(3).
    pub fn inherit() -> Self {
        let passed = sd_notify::listen_fds_with_names().into_iter().flatten();
        let inherited = passed.map(|(fd, name)| {
            let socket = sys::adopt(fd);
            let address = local_address(&socket);
            Inherited {
                name,
                socket,
                address,
            }
        });
        Self {
            open: BTreeMap::new(),
            inherited: inherited.collect(),
        }
    }

    /// Opens what is wanted and not open yet; says which those are.
    ///
    /// # Errors
    /// One could not be had; then none is opened.
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

    /// Closes some listeners again.
    pub fn close(&mut self, addresses: &[Address]) {
        self.open.retain(|address, _| !addresses.contains(address));
    }

    /// Lets open listeners have what has changed in how they are wanted: accept queue, mode and owner. Says what
    /// could not be done.
    pub fn adapt(&mut self, wanted: &[Listener]) -> Vec<String> {
        let mut complaints = Vec::new();
        for listener in wanted {
            if let Some(open) = self.open.get_mut(&listener.address)
                && open.wanted != *listener
            {
                if let Err(reason) = open.adapt(listener) {
                    complaints.push(format!("{}: {reason}", listener.address));
                }
                open.wanted = listener.clone();
            }
        }
        complaints
    }

    /// Closes all listeners that are not wanted any more; says which.
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

    /// Sockets that the init system passed and that nobody asked for.
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
            Some(Ok(Open {
                socket,
                wanted: listener.clone(),
                inherited: true,
                file: None,
            }))
        } else {
            Some(Err("the inherited descriptor is no listening socket".into()))
        }
    }

    fn not_passed(&self) -> String {
        let names: Vec<_> = self.inherited.iter().map(|i| i.name.as_str()).collect();
        if names.is_empty() {
            "no socket was passed under this name (LISTEN_FDS and LISTEN_FDNAMES are set by the socket unit of the init system)".into()
        } else {
            format!(
                "no socket was passed under this name (there is: {})",
                names.join(", ")
            )
        }
    }
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

fn tcp(address: SocketAddr, listener: &Listener) -> Result<Open, String> {
    let bound = || -> nix::Result<OwnedFd> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Connections of the last run in TIME_WAIT must not keep the address: socket(7).
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6V6Only, &listener.v6only)?;
        }
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        socket::listen(&socket, backlog(listener))?;
        Ok(socket)
    };
    let explain = |errno: Errno| {
        match errno {
        Errno::EADDRINUSE => {
            "the address is in use (`ss -ltnp` shows by which process; if by preforkd itself, for another address with this port, restart it)".into()
        }
        Errno::EACCES => format!(
            "{} (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
            errno.desc()
        ),
        Errno::EADDRNOTAVAIL => format!("{} (no interface of this host has it)", errno.desc()),
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
    remove_stale(path)?;
    let explain = |doing: &'static str| move |errno: Errno| format!("{doing}: {}", errno.desc());
    let address = UnixAddr::new(path).map_err(explain("address"))?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .map_err(explain("socket"))?;
    // The mode is right from the first moment on, whatever umask the master was started with.
    let before = listener
        .mode
        .map(|mode| nix::sys::stat::umask(Mode::from_bits_truncate(!mode & 0o777)));
    let bound = socket::bind(socket.as_raw_fd(), &address);
    if let Some(before) = before {
        nix::sys::stat::umask(before);
    }
    bound.map_err(explain("bind"))?;
    let inode = path.symlink_metadata().map_err(|e| e.to_string())?.ino();
    let open = Open {
        wanted: listener.clone(),
        inherited: false,
        socket,
        file: Some((path.to_owned(), inode)),
    };
    own(path, listener)?;
    socket::listen(&open.socket, backlog(listener)).map_err(explain("listen"))?;
    Ok(open)
}

/// Gives a socket file its owner and group.
fn own(path: &Path, listener: &Listener) -> Result<(), String> {
    let (owner, group) = (
        listener.owner.map(Uid::from_raw),
        listener.group.map(Gid::from_raw),
    );
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    nix::unistd::chown(path, owner, group)
        .map_err(|errno| format!("changing its owner: {}", errno.desc()))
}

/// Removes the socket file of a process that is gone.
fn remove_stale(path: &Path) -> Result<(), String> {
    let Ok(file) = path.symlink_metadata() else {
        return Ok(());
    };
    if !file.file_type().is_socket() {
        return Err("there is a file of this name that is no socket (move it away)".into());
    }
    let probe = || -> nix::Result<i32> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let probe = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        socket::connect(probe.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(socket::getsockopt(&probe, sockopt::PeerCredentials)?.pid())
    };
    match probe() {
        Err(Errno::ECONNREFUSED) => std::fs::remove_file(path)
            .map_err(|error| format!("removing the stale socket file: {error}")),
        Ok(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Err(format!(
                "process {pid} ({}) is serving there (stop it first)",
                name.trim()
            ))
        }
        // EAGAIN: its accept queue is full, so it lives.
        Err(Errno::EAGAIN) => Err("another process is serving there (stop it first)".into()),
        Err(errno) => Err(format!("asking who serves there: {}", errno.desc())),
    }
}

fn backlog(listener: &Listener) -> Backlog {
    // The kernel cuts it to net.core.somaxconn: listen(2).
    let wanted = i32::try_from(listener.backlog).unwrap_or(i32::MAX);
    Backlog::new(wanted).unwrap_or(Backlog::MAXCONN)
}
