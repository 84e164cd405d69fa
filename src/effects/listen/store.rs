//! The listeners that the init system keeps while no master runs: sd_notify(3), `FDSTORE`. The next master gets them with the other
//! sockets, so that no connection is refused meanwhile.
//!
//! A socket is taken back for an address if the kernel says that it has this address. The name under which it is kept also
//! has device and inode of the file of a unix socket: the path must still lead to that file.
//!
//! What is kept is what is served: a socket that is kept and not taken back is replaced, or dropped, under its name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use log::{info, warn};
use nix::sys::socket::{self, sockopt};
use nix::sys::stat::fstat;

use super::bind::{no_delay, rights};
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

/// What the init system keeps, by name: the number that the kernel gives the socket, which no other one has as long as it is kept.
/// `None` if there are several of one name.
pub(super) type Kept = BTreeMap<String, Option<u64>>;

fn number(socket: impl AsFd) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
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

    /// Takes back a socket that was kept under this name. It may have been closed for its clients: then it listens again, unless it is one
    /// that waits for a worker.
    fn take_back(wanted: &Listener, kept: &Passed) -> Result<Self, String> {
        let socket = kept.copy().map_err(|error| error.to_string())?;
        if let Address::Tcp(address) = &wanted.address {
            if address.is_ipv6()
                && socket::getsockopt(&socket, sockopt::Ipv6V6Only) != Ok(wanted.v6only)
            {
                return Err("whether it also accepts IPv4 has changed".into());
            }
            // An earlier version of this program may have bound it.
            let _ = no_delay(&socket);
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
            return Err(match wanted.address {
                Address::Tcp(_) => "it is kept under the name of another address".into(),
                _ => "its path leads to another file".into(),
            });
        }
        let listens = socket::getsockopt(&socket, sockopt::AcceptConn) == Ok(true);
        let mut open = Self::bound(wanted, 0, socket, file);
        if listens || wanted.stays_open {
            // On a listening socket, listen(2) only changes the length of its queue.
            open.listen().map_err(|reason| reason.text)?;
        }
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
            let number = number(kept.socket()).ok();
            match self.kept.entry(kept.name().to_owned()) {
                Entry::Vacant(place) => drop(place.insert(number)),
                // Two descriptors of one socket.
                Entry::Occupied(place) if number.is_some() && *place.get() == number => continue,
                Entry::Occupied(mut place) => drop(place.insert(None)),
            }
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
                    self.discard(&kept);
                }
                None => self.discard(&kept),
            }
        }
    }

    /// Takes over the listeners of a master that was killed, which its guard has kept under these names, as far as they are wanted. The
    /// others listen no more, so that their addresses can be bound, and nobody waits there.
    pub fn take_over(&mut self, left: Vec<(String, OwnedFd)>, wanted: &[Listener]) {
        for (name, socket) in left {
            let left = Passed::named(&name, socket);
            let of = number(left.socket()).ok();
            let is_same = |socket: &OwnedFd| number(socket).ok() == of;
            let mut open = self.open.values().flatten();
            // The init system has kept it, or has bound it.
            if open.any(|open| open.sockets.iter().any(is_same))
                || self.passed.iter().any(|passed| is_same(passed.socket()))
            {
                continue;
            }
            let wanted = wanted.iter().find(|wanted| {
                let address = &wanted.address;
                let is_free = !self.open.contains_key(address);
                is_free && left.serves(address) && !self.passed.iter().any(|p| p.serves(address))
            });
            match wanted.map(|wanted| Open::take_back(wanted, &left)) {
                Some(Ok(open)) => {
                    let address = open.wanted.address.clone();
                    info!("{address}: took over the socket of the previous master");
                    self.open.insert(address, vec![open]);
                    continue;
                }
                Some(Err(reason)) => warn!(
                    "{}: cannot take over the socket of the previous master: {reason}; binding a new one",
                    left.shown()
                ),
                None => {}
            }
            let _ = socket::shutdown(left.socket().as_raw_fd(), socket::Shutdown::Read);
        }
    }

    /// The listeners that the next master is to get if this one is killed, with their names and numbers. At the path of a unix socket it
    /// binds a new one.
    pub fn left_by_death(&self) -> Vec<(String, u64, BorrowedFd<'_>)> {
        let serving = self.open.values().filter_map(|all| all.first());
        let serving = serving.filter(|open| !open.is_proposed && !open.refuses);
        let serving = serving.filter(|open| matches!(open.wanted.address, Address::Tcp(_)));
        let left = serving.filter_map(|open| {
            let socket = open.sockets.first()?;
            Some((open.name_in_store()?, number(socket).ok()?, socket.as_fd()))
        });
        left.collect()
    }

    /// Ends a socket that was kept and is not wanted any more, and removes its file. The init system has it open until it has read
    /// [`Order::Drop`], and workers of the previous master may have it, too: until then clients would wait for nobody, and its
    /// address could not be bound. So it listens no more, see [`Open::refuse`].
    fn discard(&self, kept: &Passed) {
        let _ = socket::shutdown(kept.socket().as_raw_fd(), socket::Shutdown::Read);
        let mut open = self.open.values().flatten();
        if !open.any(|open| open.name_in_store().as_deref() == Some(kept.name())) {
            discard_file(kept);
        }
    }

    /// What the init system is to keep and to close, since the last call. It must get the orders in this order, as it may be told to
    /// close what it has under a name and to keep another socket under it.
    pub fn orders(&mut self) -> Vec<Order> {
        if !self.can_be_kept {
            return Vec::new();
        }
        // A candidate may be rolled back.
        let serving = self.open.values().filter_map(|all| all.first());
        let serving = serving.filter(|open| !open.is_proposed);
        let (mut kept, mut orders) = (Kept::new(), Vec::new());
        for open in serving {
            let (Some(name), Some(socket)) = (open.name_in_store(), open.sockets.first()) else {
                continue;
            };
            let copy = number(socket).and_then(|number| {
                let is_kept = self.kept.get(&name) == Some(&Some(number));
                let copy = (!is_kept).then(|| socket.try_clone()).transpose()?;
                Ok((number, copy))
            });
            match copy {
                Ok((number, copy)) => {
                    orders.extend(copy.map(|copy| Order::Keep(name.clone(), copy)));
                    kept.insert(name, Some(number));
                }
                Err(error) => warn!(
                    "{}: cannot hand its socket to the init system: {error}; a restart will refuse connections",
                    open.wanted.address
                ),
            }
        }
        let before = self.kept.iter();
        let gone = before.filter(|(name, number)| kept.get(*name) != Some(*number));
        let gone = gone.map(|(name, _)| Order::Drop(name.clone()));
        let orders = gone.chain(orders).collect();
        self.kept = kept;
        orders
    }

    /// Leaves the files of the sockets that the init system keeps, for the next master.
    pub(super) fn leave_files(&mut self) {
        if !self.files_stay {
            return;
        }
        for open in self.open.values_mut().filter_map(|all| all.first_mut()) {
            let name = open.name_in_store();
            let number = open.sockets.first().and_then(|socket| number(socket).ok());
            let is_kept =
                number.is_some() && name.and_then(|name| *self.kept.get(&name)?) == number;
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
    use std::collections::BTreeSet;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// The listeners of a master that gets these sockets of the previous one. The init system keeps the other descriptor of each.
    fn after(kept: &[(String, OwnedFd)], wanted: &[Listener]) -> Listeners {
        let mut listeners = Listeners {
            open: BTreeMap::new(),
            missing: BTreeMap::new(),
            proposed: None,
            ended: Vec::new(),
            passed: Vec::new(),
            discarded: BTreeSet::new(),
            kept: Kept::new(),
            can_be_kept: true,
            files_stay: true,
        };
        let passed = |(name, socket): &(String, OwnedFd)| {
            Passed::named(name, socket.try_clone().expect("a descriptor"))
        };
        listeners.take_back(kept.iter().map(passed).collect(), wanted);
        listeners
            .open(wanted, 0)
            .expect("nobody else has the address");
        listeners
    }

    fn orders(listeners: &mut Listeners) -> Vec<String> {
        let orders = listeners.orders().into_iter();
        let shown = orders.map(|order| match order {
            Order::Keep(name, _) => format!("+{name}"),
            Order::Drop(name) => format!("-{name}"),
        });
        shown.collect()
    }

    /// A socket of a previous master, and its listener.
    fn tcp(at: &str) -> (OwnedFd, Listener) {
        let socket = TcpListener::bind(at).expect("a port");
        let address = socket.local_addr().expect("bound");
        drop(socket);
        // The kernel takes back a port that it has chosen itself when the socket listens no more.
        let socket = TcpListener::bind(address).expect("it is free");
        (socket.into(), Listener::example(Address::Tcp(address)))
    }

    fn named(listener: &Listener) -> String {
        name(&listener.address, None).expect("a TCP address")
    }

    fn at(listener: &Listener) -> SocketAddr {
        match &listener.address {
            Address::Tcp(address) => *address,
            other => unreachable!("{other}"),
        }
    }

    #[test]
    fn a_socket_that_was_closed_for_its_clients_listens_again() {
        let (socket, wanted) = tcp("127.0.0.1:0");
        socket::shutdown(socket.as_raw_fd(), socket::Shutdown::Read).expect("it listens");
        TcpStream::connect(at(&wanted)).expect_err("it is closed");
        let kept = [(named(&wanted), socket)];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        TcpStream::connect(at(&wanted)).expect("it listens");
        assert_eq!(orders(&mut next), [""; 0], "it is kept already");
    }

    #[test]
    fn a_socket_that_waits_for_a_worker_waits_on() {
        for listens in [false, true] {
            let (socket, mut wanted) = tcp("127.0.0.1:0");
            if !listens {
                socket::shutdown(socket.as_raw_fd(), socket::Shutdown::Read).expect("it listens");
            }
            wanted.stays_open = false;
            let kept = [(named(&wanted), socket)];
            let mut next = after(&kept, std::slice::from_ref(&wanted));
            assert_eq!(TcpStream::connect(at(&wanted)).is_ok(), listens);
            let opened = next.open_missing(&wanted.address, 1);
            assert_eq!(opened.expect("nobody else has it"), !listens);
            TcpStream::connect(at(&wanted)).expect("it listens");
        }
    }

    #[test]
    fn a_socket_that_cannot_be_taken_back_is_replaced_under_its_name() {
        let name = named;
        // Whether it accepts IPv4 too has changed.
        let (both, mut wanted) = tcp("[::]:0");
        wanted.v6only = true;
        let kept = [(name(&wanted), both)];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        let both = [format!("-{}", name(&wanted)), format!("+{}", name(&wanted))];
        assert_eq!(orders(&mut next), both);
        assert_eq!(orders(&mut next), [""; 0]);
        // Another socket has its name.
        let (_, wanted) = tcp("127.0.0.1:0");
        let kept = [(name(&wanted), tcp("127.0.0.1:0").0)];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        let both = [format!("-{}", name(&wanted)), format!("+{}", name(&wanted))];
        assert_eq!(orders(&mut next), both);
        assert_eq!(orders(&mut next), [""; 0]);
        // It is no socket that can listen.
        let (socket, wanted) = tcp("127.0.0.1:0");
        let client = TcpStream::connect(at(&wanted)).expect("it listens");
        let (accepted, _) = TcpListener::from(socket).accept().expect("a client");
        let kept = [(name(&wanted), OwnedFd::from(accepted))];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        let both = [format!("-{}", name(&wanted)), format!("+{}", name(&wanted))];
        assert_eq!(orders(&mut next), both);
        drop(client);
    }

    #[test]
    fn of_several_sockets_of_one_name_only_the_one_that_serves_is_kept() {
        let (socket, wanted) = tcp("127.0.0.1:0");
        let (other, _) = tcp("127.0.0.1:0");
        let name = named(&wanted);
        let same = (name.clone(), socket.try_clone().expect("a descriptor"));
        let kept = [(name.clone(), socket), same];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        TcpStream::connect(at(&wanted)).expect("it listens");
        assert_eq!(orders(&mut next), [""; 0], "it is one socket");
        drop(next);
        let [first, _] = kept;
        let kept = [(name.clone(), other), first];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        TcpStream::connect(at(&wanted)).expect("it listens");
        assert_eq!(orders(&mut next), [format!("-{name}"), format!("+{name}")]);
        assert_eq!(orders(&mut next), [""; 0]);
    }

    #[test]
    fn another_socket_of_the_name_of_a_unix_socket_does_not_cost_it_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("web.sock");
        let socket = UnixListener::bind(&path).expect("room");
        let wanted = Listener::example(Address::Unix(path.clone()));
        let file = SocketFile::take_back(&path).expect("it is there");
        let identity = file.identity();
        file.leave();
        let name = name(&wanted.address, identity).expect("a name");
        // Its path was that of the first one once.
        let moved = folder.path().join("moved.sock");
        std::fs::rename(&path, &moved).expect("ours");
        let other = UnixListener::bind(&path).expect("room");
        std::fs::rename(&moved, &path).expect("ours");
        let kept = [
            (name.clone(), OwnedFd::from(socket)),
            (name.clone(), OwnedFd::from(other)),
        ];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        UnixStream::connect(&path).expect("its file is there");
        assert_eq!(orders(&mut next), [format!("-{name}"), format!("+{name}")]);
    }

    #[test]
    fn the_address_of_a_socket_that_is_not_wanted_is_free_at_once() {
        let (socket, old) = tcp("0.0.0.0:0");
        let address = SocketAddr::from(([127, 0, 0, 1], at(&old).port()));
        let wanted = Listener::example(Address::Tcp(address));
        let kept = [(named(&old), socket)];
        let mut next = after(&kept, std::slice::from_ref(&wanted));
        TcpStream::connect(address).expect("it listens");
        let both = [format!("-{}", named(&old)), format!("+{}", named(&wanted))];
        assert_eq!(orders(&mut next), both);
    }

    #[test]
    fn a_listener_of_a_candidate_is_kept_when_that_has_taken_over() {
        let (socket, first) = tcp("127.0.0.1:0");
        drop(socket);
        let (socket, second) = tcp("127.0.0.1:0");
        drop(socket);
        let mut listeners = after(&[], std::slice::from_ref(&first));
        assert_eq!(orders(&mut listeners), [format!("+{}", named(&first))]);
        let both = [first.clone(), second.clone()];
        listeners.open(&both, 2).expect("free");
        assert_eq!(orders(&mut listeners), [""; 0]);
        listeners.close_proposed();
        assert_eq!(orders(&mut listeners), [""; 0]);
        listeners.open(&both, 3).expect("free");
        listeners.keep(&both);
        assert_eq!(orders(&mut listeners), [format!("+{}", named(&second))]);
        listeners.keep(std::slice::from_ref(&second));
        assert_eq!(orders(&mut listeners), [format!("-{}", named(&first))]);
    }

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
