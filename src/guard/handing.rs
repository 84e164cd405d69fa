//! The listeners of a dead master, which its guard hands to the next one.
//!
//! A process that has inherited a listener may keep it for as long as its requests take, and nobody else can bind the address meanwhile.
//! So the next master takes the socket itself, with its accept queue, as after a reload. Workers that leave their listeners and go on with
//! requests lose no connection either: the guard keeps all listeners for a while, in which the next master mostly comes. After that it keeps
//! one only while a process of the dead master has it: at a socket that only the guard has, clients would wait for nobody.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};
use nix::sys::stat::fstat;
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, geteuid};

use super::sockets;
use crate::effects::process;
use crate::sys;

/// How long a listener is kept that no process has any more.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(5);

/// How many connections wait to be answered; the kernel lets others wait in the order in which they came. An abstract address is open to
/// everybody.
const WAITING: i32 = 16;

/// The pause after a stranger has asked: whoever asks again and again costs little.
const BREATH: Duration = Duration::from_millis(2);

/// How many descriptors are looked at in search of those who have the sockets. If there are more, a socket counts as one that somebody has.
const MAX_DESCRIPTORS: usize = 200_000;

/// How long the next master waits for its turn, and then for the sockets, in seconds. The guard has nothing else to do.
const PATIENCE: i64 = 1;

/// A socket that somebody may want.
#[derive(Debug)]
struct Kept {
    name: String,
    socket: OwnedFd,
    /// The number that the kernel has given it.
    number: u64,
    /// A process that had it at the last look.
    holder: Option<Pid>,
}

/// What the guard hands to the next master.
#[derive(Debug, Default)]
pub(super) struct Handing {
    kept: Vec<Kept>,
    /// Where the next master asks for it, and the name of that place.
    door: Option<(UnixListener, String)>,
    /// It has asked.
    is_given: bool,
}

impl Handing {
    /// The sockets that were left.
    pub(super) fn new(left: Vec<(String, OwnedFd)>) -> Self {
        let kept = left.into_iter().filter_map(|(name, socket)| {
            let number = fstat(&socket).ok()?.st_ino;
            Some(Kept {
                name,
                socket,
                number,
                holder: None,
            })
        });
        Self {
            kept: kept.collect(),
            door: None,
            is_given: false,
        }
    }

    /// Waits for the next master from now on. Returns the name of the abstract address at which it asks; `None` if there is nothing to
    /// hand over.
    ///
    /// # Errors
    /// No descriptor or address is left.
    pub(super) fn open(&mut self) -> io::Result<Option<&str>> {
        if self.kept.is_empty() {
            return Ok(None);
        }
        let name = format!("preforkd-guard-{:016x}", sys::random()?);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let door = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        bind(door.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        listen(&door, Backlog::new(WAITING)?)?;
        let (_, name) = self.door.insert((door.into(), name));
        Ok(Some(name))
    }

    /// Closes the sockets that none of these processes has, if the master has been dead for long enough.
    pub(super) fn keep_held_by(&mut self, processes: impl Iterator<Item = Pid>, passed: Duration) {
        if self.kept.is_empty() || passed < KEPT_FOR {
            return;
        }
        for kept in &mut self.kept {
            let has = |pid: &Pid| process::sockets(*pid).any(|found| found == Some(kept.number));
            kept.holder = kept.holder.filter(has);
        }
        let kept = self.kept.iter_mut();
        let kept = kept.filter(|kept| kept.holder.is_none());
        let mut sought: HashMap<u64, &mut Kept> = kept.map(|kept| (kept.number, kept)).collect();
        let mut left = MAX_DESCRIPTORS;
        for pid in processes {
            if sought.is_empty() {
                break;
            }
            for number in process::sockets(pid) {
                left = left.saturating_sub(1);
                if let Some(kept) = number.and_then(|number| sought.remove(&number)) {
                    kept.holder = Some(pid);
                }
                if left == 0 {
                    return;
                }
            }
        }
        self.kept.retain(|kept| kept.holder.is_some());
    }

    /// The first of these processes that has one of the sockets, unless the next master has them.
    pub(super) fn holder(&self, processes: &[Pid]) -> Option<Pid> {
        let has = |number: Option<u64>| self.kept.iter().any(|kept| Some(kept.number) == number);
        let mut processes = processes
            .iter()
            .filter(|_| !self.kept.is_empty() && !self.is_given);
        processes
            .find(|pid| process::sockets(**pid).any(has))
            .copied()
    }

    /// Waits for so long, or until it has given the sockets to somebody who has asked, or a signal has come.
    pub(super) fn wait(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        let door = self.door.as_ref().map(|(door, _)| door);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let sources = door.map(|door| PollFd::new(door.as_fd(), PollFlags::POLLIN));
            let found = poll(&mut Vec::from_iter(sources), left);
            match (found, door) {
                (Ok(1..), Some(door)) => match self.answer(door) {
                    true => {
                        self.is_given = true;
                        return;
                    }
                    false => thread::sleep(BREATH),
                },
                _ => return,
            }
        }
    }

    /// Gives the sockets to those who have asked. Returns whether anybody might.
    fn answer(&self, door: &UnixListener) -> bool {
        let mut any = false;
        for _ in 0..WAITING {
            let Ok((client, _)) = door.accept() else {
                break;
            };
            let user = getsockopt(&client, sockopt::PeerCredentials).map(|peer| peer.uid());
            if user != Ok(geteuid().as_raw()) {
                continue;
            }
            any = true;
            for Kept { name, socket, .. } in &self.kept {
                // What does not arrive is bound when it is free.
                let _ = sockets::send(&client, name, socket.as_fd());
            }
        }
        any
    }
}

/// Asks a guard for the sockets that it keeps.
pub(super) fn ask(name: &str, guard: Pid) -> nix::Result<Vec<(String, OwnedFd)>> {
    take(&knock(name, guard)?)
}

fn knock(name: &str, guard: Pid) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Strangers may be waiting there too. The kernel lets it wait for its turn.
    setsockopt(&client, sockopt::SendTimeout, &TimeVal::new(PATIENCE, 0))?;
    let address = UnixAddr::new_abstract(name.as_bytes())?;
    let connected = loop {
        match connect(client.as_raw_fd(), &address) {
            Err(Errno::EINTR) => {}
            connected => break connected,
        }
    };
    connected.map_err(|errno| match errno {
        Errno::EAGAIN => Errno::ETIMEDOUT,
        errno => errno,
    })?;
    // Somebody else may have the address when the guard has ended.
    match getsockopt(&client, sockopt::PeerCredentials)?.pid() == guard.as_raw() {
        true => Ok(client),
        false => Err(Errno::ECONNREFUSED),
    }
}

fn take(client: &OwnedFd) -> nix::Result<Vec<(String, OwnedFd)>> {
    let until = Instant::now() + Duration::from_secs(PATIENCE.unsigned_abs());
    let mut found = Vec::new();
    loop {
        match sockets::receive(client) {
            Ok(Some(socket)) => found.push(socket),
            Ok(None) => return Ok(found),
            Err(Errno::EAGAIN | Errno::EINTR) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Errno::ETIMEDOUT);
                }
                let mut fds = [PollFd::new(client.as_fd(), PollFlags::POLLIN)];
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                let _ = poll(&mut fds, left);
            }
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::guard::sockets::tests::refused;

    /// A listener, and the same in the form in which it is left.
    fn listener(name: &str) -> (TcpListener, (String, OwnedFd)) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let copy = listener.try_clone().expect("a descriptor");
        (listener, (name.into(), copy.into()))
    }

    /// A process that has this socket as its standard input.
    fn holding(socket: TcpListener) -> Child {
        let mut command = Command::new("sleep");
        let command = command
            .arg("1000")
            .stdin(Stdio::from(OwnedFd::from(socket)));
        command.spawn().expect("there is sleep")
    }

    #[test]
    fn what_a_process_still_has_is_handed_over_and_the_rest_is_closed() {
        let ((held, first), (free, second)) = (listener("held"), listener("free"));
        let [at, other] = [&held, &free].map(|socket| socket.local_addr().expect("bound"));
        drop(free);
        let mut holder = holding(held);
        let pid = Pid::from_raw(holder.id() as i32);
        let mut handing = Handing::new(vec![first, second]);
        let name = handing.open().expect("room").expect("two are left");
        let name = name.to_owned();
        handing.keep_held_by([pid].into_iter(), KEPT_FOR / 2);
        drop(TcpStream::connect(other).expect("the next master may come yet"));
        for _ in 0..2 {
            handing.keep_held_by([pid].into_iter(), KEPT_FOR);
        }
        refused(other);
        let next = knock(&name, Pid::this()).expect("it is ours");
        handing.wait(Duration::from_secs(30));
        let found = take(&next).expect("it has answered");
        holder.kill().expect("ours");
        holder.wait().expect("ours");
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["held"]);
        handing.keep_held_by([pid].into_iter(), KEPT_FOR);
        TcpStream::connect(at).expect("the next master has it");
        drop(found);
        refused(at);
    }

    /// As those of a stranger, who is sent away, these say nothing.
    #[test]
    fn whoever_fills_the_queue_of_the_door_delays_the_next_master_only() {
        let (_held, left) = listener("held");
        let mut handing = Handing::new(vec![left]);
        let name = handing.open().expect("room").expect("one is left");
        let name = name.to_owned();
        let knock = || knock(&name, Pid::this());
        let first: Vec<_> = (0..=WAITING)
            .map(|_| knock().expect("there is room"))
            .collect();
        assert_eq!(knock().err(), Some(Errno::ETIMEDOUT), "it has waited");
        handing.wait(Duration::from_secs(30));
        let next = knock().expect("there is room");
        while !matches!(sockets::receive(&next), Ok(Some(_))) {
            handing.wait(Duration::from_secs(30));
        }
        drop(first);
    }

    #[test]
    fn only_the_guard_itself_is_believed() {
        let (_held, left) = listener("held");
        let mut handing = Handing::new(vec![left]);
        let name = handing.open().expect("room").expect("one is left");
        assert_eq!(ask(name, Pid::from_raw(1)).err(), Some(Errno::ECONNREFUSED));
    }
}
