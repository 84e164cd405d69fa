//! Who holds an address that is in use, as far as this process may see it: proc_pid_net(5), proc_pid_fd(5).

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nix::unistd::{Pid, getsid};

use crate::effects::process;

/// How much of a table of sockets is read. Those that listen come first.
const MAX_TABLE: u64 = 1 << 20;

/// How many descriptors are looked at, of all processes: a matter of milliseconds.
const MAX_DESCRIPTORS: usize = 20_000;

/// The flags of a unix socket that listens: __SO_ACCEPTCON of the kernel's include/uapi/linux/net.h.
const ACCEPTS: &str = "00010000";

/// How the path ends by which a socket was bound in a private folder, see `socket_file`.
const DRAFT: &str = "/socket";

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Socket {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

/// Who listens on an address so that it cannot be bound.
#[derive(Debug)]
pub(super) struct Holder {
    /// For a message.
    pub(super) text: String,
    /// Its processes, and the leaders of their sessions.
    pub(super) processes: Vec<Pid>,
}

/// Finds who listens on an address so that it cannot be bound.
pub(super) fn find(wanted: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(table);
    let sockets = tables.iter().flat_map(|table| table.lines().skip(1));
    let sockets = sockets
        .filter_map(parse)
        .filter(|socket| conflicts(socket.address, wanted));
    let sockets: Vec<Socket> = sockets.collect();
    let first = sockets.first()?;
    let inodes = sockets.iter().map(|socket| socket.inode).collect();
    let on = format!("on {}", first.address);
    let own = std::process::id();
    let owners = owners(&inodes);
    let text = match &owners[..] {
        [] => format!(
            "by a process of uid {}, which listens {on} (`ss -ltnp`, run as root, shows it)",
            first.uid
        ),
        pids if pids.contains(&own) => {
            format!(
                "by this preforkd, which listens {on} (restart it to change between addresses of a port)"
            )
        }
        [pid, others @ ..] => {
            let others = match others.len() {
                0 => String::new(),
                number => format!(" and {number} more"),
            };
            let name = name(*pid);
            let process = Pid::from_raw(i32::try_from(*pid).unwrap_or_default());
            let whose = process::app(process).map_or(String::new(), |app| {
                format!(", started by a preforkd for its app {app}")
            });
            let advice = match process::is_orphan(process) {
                true => format!(
                    "that preforkd was killed together with its guard, so nobody ends it: `kill -9 {pid}` does"
                ),
                false => "stop it, or configure another address".into(),
            };
            format!("by {name} (pid {pid}{others}{whose}), which listens {on} ({advice})")
        }
    };
    let owners = owners.into_iter().filter_map(|pid| pid.try_into().ok());
    let owners: Vec<Pid> = owners.map(Pid::from_raw).collect();
    let sessions = owners.iter().filter_map(|pid| getsid(Some(*pid)).ok());
    let processes = sessions.chain(owners.iter().copied()).collect();
    Some(Holder { text, processes })
}

fn table(path: &str) -> String {
    let mut text = Vec::new();
    let file = File::open(path).map(|file| file.take(MAX_TABLE));
    // What cannot be read is not told.
    let _ = file.and_then(|mut file| file.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// A line of the table, if its socket listens.
fn parse(line: &str) -> Option<Socket> {
    let mut words = line.split_whitespace();
    let address = words.nth(1)?;
    let listens = words.nth(1)? == "0A";
    let (uid, inode) = (words.nth(3)?.parse().ok()?, words.nth(1)?.parse().ok()?);
    let (ip, port) = address.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of the network's order, printed as numbers of this machine.
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?))
        }
        _ => return None,
    };
    listens.then_some(Socket {
        address: SocketAddr::new(ip, port),
        uid,
        inode,
    })
}

/// Whether both addresses cannot be bound. A socket for all addresses of IPv6 may or may not be one for IPv4, too.
fn conflicts(open: SocketAddr, wanted: SocketAddr) -> bool {
    let (one, other) = (open.ip().to_canonical(), wanted.ip().to_canonical());
    let is_dual = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let same_family = one.is_ipv4() == other.is_ipv4() || is_dual(one) || is_dual(other);
    let overlap = one == other || one.is_unspecified() || other.is_unspecified();
    open.port() == wanted.port() && same_family && overlap
}

/// The processes that hold one of these sockets, oldest number first.
fn owners(inodes: &HashSet<u64>) -> Vec<u32> {
    let (mut found, mut left) = (Vec::new(), MAX_DESCRIPTORS);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        for socket in process::sockets(Pid::from_raw(pid)) {
            if left == 0 {
                return found;
            }
            left -= 1;
            if socket.is_some_and(|inode| inodes.contains(&inode)) {
                found.push(pid as u32);
                break;
            }
        }
    }
    found.sort_unstable();
    found
}

/// The name of a program, for messages: a process can have any.
fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).collect()
}

/// The processes that a preforkd has left which was killed together with its guard, and that have the unix socket of this path.
pub(super) fn orphans(path: &Path) -> Vec<Pid> {
    let table = table("/proc/net/unix");
    let at_path = table.lines().filter_map(|line| parse_unix(line, path));
    let sockets: HashSet<u64> = at_path.collect();
    let all = process::all().map(|(pid, _)| pid);
    let orphans = all.filter(|pid| process::is_orphan(*pid));
    let has_it = |pid: &Pid| {
        let mut found = process::sockets(*pid).flatten();
        found.any(|number| sockets.contains(&number))
    };
    orphans.filter(has_it).collect()
}

/// The number of a socket that listens at this path, by its line in proc_pid_net(5). In a folder that others can change it was bound by
/// another name, and its own is not known.
fn parse_unix(line: &str, path: &Path) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let listens = words.nth(3)? == ACCEPTS;
    let number = words.nth(2)?.parse().ok()?;
    // The path may contain spaces.
    let is_at = line.ends_with(&format!(" {}", path.display())) || line.ends_with(DRAFT);
    (listens && is_at).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_of_the_tables_are_read() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4711 1 0 100 0";
        let v6 = "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0";
        let socket = |address: &str, uid, inode| Socket {
            address: address.parse().expect("one"),
            uid,
            inode,
        };
        if cfg!(target_endian = "little") {
            assert_eq!(parse(v4), Some(socket("127.0.0.1:8080", 33, 4711)));
            assert_eq!(parse(v6), Some(socket("[::1]:80", 0, 12)));
        }
        assert_eq!(parse(&v4.replace(" 0A ", " 01 ")), None, "a connection");
        for wrong in ["", "0:", "0: x 0 0A", &v4.replace("1F90", "xx"), &v4[..40]] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_unix_socket_that_listens_is_known_by_its_path() {
        let path = Path::new("/run/a b.sock");
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/a b.sock";
        assert_eq!(parse_unix(line, path), Some(4711));
        let draft = line.replace("/run/a b.sock", "/proc/self/fd/7/socket");
        assert_eq!(parse_unix(&draft, path), Some(4711));
        for other in [
            line.replace("00010000", "00000000"),
            line.replace("/run/a b.sock", "/run/b.sock"),
            "Num       RefCount Protocol Flags    Type St Inode Path".into(),
            String::new(),
        ] {
            assert_eq!(parse_unix(&other, path), None, "{other}");
        }
    }

    #[test]
    fn addresses_of_a_port_conflict_where_they_overlap() {
        for (open, wanted, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[::]:80", true),
            ("[::1]:80", "0.0.0.0:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
        ] {
            let parse = |text: &str| text.parse().expect("an address");
            assert_eq!(
                conflicts(parse(open), parse(wanted)),
                expected,
                "{open} {wanted}"
            );
        }
    }

    #[test]
    fn a_holder_is_named() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        let Holder {
            text: said,
            processes,
        } = find(address).expect("it is in use");
        assert_eq!(processes, [getsid(None).expect("ours"), Pid::this()]);
        assert!(
            said.contains(&format!("by this preforkd, which listens on {address}")),
            "{said}"
        );
        drop(socket);
    }
}
