//! The listeners that the init system keeps while no master runs: sd_notify(3), `FDSTORE`. The next master gets them with the other
//! sockets, so that no connection is refused meanwhile.
//!
//! A socket is taken back for an address if the kernel says that it has this address. The name under which it is kept also
//! has device and inode of the file of a unix socket: the path must still lead to that file.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use log::{info, warn};
use nix::sys::socket::{self, sockopt};

use super::bind::{backlog, rights};
use super::passed::Passed;
use super::{Listeners, Open, SocketFile};
use crate::config::Address;
use crate::plan::Listener;

/// The beginning of all our names. The init system allows printable ASCII except colons: sd_notify(3).
const PREFIX: &str = "preforkd-";

/// The longest name that systemd accepts.
const MAX_NAME: usize = 255;

/// What the init system is to do.
#[derive(Debug)]
pub enum Order {
    /// Keep a socket under this name.
    Keep(String, OwnedFd),
    /// Close what it keeps under this name.
    Drop(String),
}

/// Whether a socket was kept for a master of ours.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Whether the init system says that it keeps sockets for this service: sd_notify(3), `$FDSTORE`.
pub(super) fn is_announced(variable: impl Fn(&str) -> Option<String>) -> bool {
    let limit = variable("FDSTORE").and_then(|limit| limit.parse::<u32>().ok());
    let reaches = variable("NOTIFY_SOCKET").is_some_and(|address| !address.is_empty());
    reaches && limit.is_some_and(|limit| limit > 0)
}

/// Whether the init system would only log that it keeps nothing. It announces neither a store nor its lack before systemd 254, which
/// also began to announce the other variable.
pub(super) fn is_missing(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("FDSTORE").is_none() && variable("MEMORY_PRESSURE_WATCH").is_some()
}

/// The name for a socket.
fn name(address: &Address, file: Option<(u64, u64)>) -> Option<String> {
    let (kind, shown) = match (address, file) {
        (Address::Tcp(address), _) => ("tcp".to_owned(), address.to_string()),
        (Address::Unix(path), Some((device, inode))) => (
            format!("unix-{device:x}-{inode:x}"),
            path.to_string_lossy().into_owned(),
        ),
        _ => return None,
    };
    let plain = |c: char| {
        if c.is_ascii_graphic() && c != ':' {
            c
        } else {
            '_'
        }
    };
    let name: String = format!("{PREFIX}{kind}-")
        .chars()
        .chain(shown.chars())
        .map(plain)
        .collect();
    (name.len() <= MAX_NAME).then_some(name)
}

impl Open {
    /// The name under which the init system can keep it; `None` if it cannot.
    fn name_in_store(&self) -> Option<String> {
        if self.inherited {
            return None;
        }
        let file = self.file.as_ref();
        // A path that others can change is no proof of what it leads to.
        let file = file.filter(|file| file.is_in_trusted_folder());
        name(&self.wanted.address, file.and_then(SocketFile::identity))
    }

    /// Takes back a socket that was kept under this name.
    fn take_back(wanted: &Listener, kept: &Passed) -> Result<Self, String> {
        let socket = kept.listener()?;
        if let Address::Tcp(address) = &wanted.address
            && address.is_ipv6()
            && socket::getsockopt(&socket, sockopt::Ipv6V6Only) != Ok(wanted.v6only)
        {
            return Err("whether it also accepts IPv4 has changed".into());
        }
        let file = match &wanted.address {
            Address::Unix(path) => Some(SocketFile::take_back(path)?),
            _ => None,
        };
        let identity = file.as_ref().and_then(SocketFile::identity);
        if name(&wanted.address, identity).as_deref() != Some(kept.name()) {
            if let Some(file) = file {
                file.leave();
            }
            return Err("its path leads to another file".into());
        }
        // listen(2) on a listening socket only changes the length of its queue.
        socket::listen(&socket, backlog(wanted)).map_err(|errno| errno.desc().to_owned())?;
        let mut open = Self::bound(wanted, 0, socket, file);
        if let Some(file) = &mut open.file {
            file.reset(rights(wanted))?;
            if wanted.is_lent {
                let _ = file.add_spare(rights(wanted));
            }
        }
        Ok(open)
    }
}

impl Listeners {
    /// Takes back the sockets that were kept, as far as they are wanted, and closes the others.
    pub(super) fn take_back(&mut self, kept: Vec<Passed>, wanted: &[Listener]) {
        for kept in kept {
            self.kept.insert(kept.name().to_owned());
            let wanted = wanted.iter().find(|wanted| {
                let address = &wanted.address;
                let is_free = !self.open.contains_key(address);
                is_free && kept.serves(address) && !self.passed.iter().any(|p| p.serves(address))
            });
            match wanted.map(|wanted| Open::take_back(wanted, &kept)) {
                Some(Ok(open)) => {
                    let address = open.wanted.address.clone();
                    info!("{address}: took back the socket of the previous master");
                    self.open.insert(address, vec![open]);
                }
                Some(Err(reason)) => {
                    warn!(
                        "{}: cannot take back the socket of the previous master: {reason}; binding a new one",
                        kept.shown()
                    );
                    discard_file(&kept);
                }
                None => discard_file(&kept),
            }
        }
    }

    /// What the init system is to keep and to close, since the last call.
    pub fn orders(&mut self) -> Vec<Order> {
        if !self.can_be_kept {
            return Vec::new();
        }
        let serving = self.open.values().filter_map(|all| all.first());
        let mut wanted = BTreeSet::new();
        let mut orders = Vec::new();
        for open in serving {
            let (Some(name), Some(socket)) = (open.name_in_store(), open.sockets.first()) else {
                continue;
            };
            if !self.kept.contains(&name) {
                match socket.try_clone() {
                    Ok(socket) => orders.push(Order::Keep(name.clone(), socket)),
                    Err(error) => {
                        warn!(
                            "{}: cannot hand its socket to the init system: {error}; a restart will refuse connections",
                            open.wanted.address
                        );
                        continue;
                    }
                }
            }
            wanted.insert(name);
        }
        let gone = self.kept.difference(&wanted).cloned().map(Order::Drop);
        // A new file of the same path has another name, so the order of the two does not matter.
        let orders = gone.chain(orders).collect();
        self.kept = wanted;
        orders
    }

    /// Leaves the files of the sockets that the init system keeps, for the next master.
    pub(super) fn leave_files(&mut self) {
        if !self.files_stay {
            return;
        }
        for open in self.open.values_mut().filter_map(|all| all.first_mut()) {
            let is_kept = open
                .name_in_store()
                .is_some_and(|name| self.kept.contains(&name));
            if let Some(file) = open.file.take_if(|_| is_kept) {
                file.leave();
            }
        }
    }
}

/// Removes the file of a unix socket that is not wanted any more.
fn discard_file(kept: &Passed) {
    let Some(address @ Address::Unix(path)) = kept.address() else {
        return;
    };
    if let Ok(file) = SocketFile::take_back(path)
        && name(address, file.identity()).as_deref() != Some(kept.name())
    {
        file.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_sockets_apart_and_is_valid() {
        let tcp = |text: &str| name(&Address::Tcp(text.parse().expect("an address")), None);
        assert_eq!(
            tcp("0.0.0.0:80").as_deref(),
            Some("preforkd-tcp-0.0.0.0_80")
        );
        assert_eq!(tcp("[::1]:80").as_deref(), Some("preforkd-tcp-[__1]_80"));
        assert_ne!(tcp("[::1]:80"), tcp("[::]:180"));
        let unix = |path: &str, file| name(&Address::Unix(path.into()), file);
        let first = unix("/run/web.sock", Some((0x1f, 0x2a)));
        assert_eq!(first.as_deref(), Some("preforkd-unix-1f-2a-/run/web.sock"));
        assert_ne!(first, unix("/run/web.sock", Some((0x1f, 0x2b))));
        assert_eq!(unix("/run/web.sock", None), None, "its file is unknown");
        let longest = unix(&"/é\n:".repeat(21), Some((u64::MAX, u64::MAX)));
        let longest = longest.expect("it is short enough");
        let is_valid = |c: char| c.is_ascii_graphic() && c != ':';
        assert!(longest.chars().all(is_valid), "{longest}");
        assert_eq!(name(&Address::Inherited("web".into()), None), None);
    }

    #[test]
    fn a_store_is_known_by_the_environment() {
        let announced = |limit: &'static str, socket: &'static str| {
            is_announced(|name| match name {
                "FDSTORE" => Some(limit.to_owned()),
                _ => Some(socket.to_owned()),
            })
        };
        assert!(announced("16", "/run/systemd/notify"));
        for (limit, socket) in [("16", ""), ("0", "@x"), ("", "@x"), ("many", "@x")] {
            assert!(!announced(limit, socket), "{limit} {socket}");
        }
        let missing =
            |set: &'static [&str]| is_missing(|name| set.contains(&name).then(String::new));
        assert!(missing(&["MEMORY_PRESSURE_WATCH"]));
        assert!(!missing(&["MEMORY_PRESSURE_WATCH", "FDSTORE"]));
        assert!(!missing(&[]));
    }
}
