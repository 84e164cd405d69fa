//! Sockets that the init system has passed: sd_listen_fds(3).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{self, SockaddrStorage, sockopt};
use preforkd_worker::env::{self, FIRST_LISTENER};

use super::bind::no_delay;
use crate::config::Address;
use crate::sys;

/// A socket that the init system has passed. It stays open while the master runs, so that an app that was removed can come back.
pub(super) struct Passed {
    name: String,
    socket: OwnedFd,
    address: Option<Address>,
}

impl Passed {
    /// All sockets that were passed to this process.
    ///
    /// # Errors
    /// A socket that the environment names was not passed.
    pub(super) fn all() -> io::Result<Vec<Self>> {
        let names = passed(|name| std::env::var(name).ok(), std::process::id());
        let all = names
            .zip(FIRST_LISTENER..)
            .map(|(name, fd)| Ok(Self::named(&name, sys::adopt(fd)?)));
        all.collect()
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its address, if it has one of a kind that an app can listen on.
    pub(super) fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Its name and address, for messages.
    pub(super) fn shown(&self) -> String {
        match &self.address {
            Some(address) => format!("{} ({address})", self.name),
            None => self.name.clone(),
        }
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// No descriptor is available.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Whether a listener with this address uses it.
    pub(super) fn serves(&self, wanted: &Address) -> bool {
        match wanted {
            Address::Inherited(name) => self.name == *name,
            other => self.address.as_ref() == Some(other),
        }
    }

    /// The socket, for a listener.
    ///
    /// # Errors
    /// It does not listen, or no descriptor is available.
    pub(super) fn listener(&self) -> Result<OwnedFd, String> {
        if socket::getsockopt(&self.socket, sockopt::AcceptConn) != Ok(true) {
            return Err("the inherited descriptor is not a listening socket".into());
        }
        // Not for a unix socket.
        let _ = no_delay(&self.socket);
        self.copy().map_err(|error| error.to_string())
    }

    /// A socket that was passed in another way, with this name.
    pub(super) fn named(name: &str, socket: OwnedFd) -> Self {
        Self {
            name: name.to_owned(),
            address: local_address(&socket),
            socket,
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
