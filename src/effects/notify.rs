//! The socket on which workers say that they are ready. The kernel says whose datagram it is.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    UnixCredentials, setsockopt, sockopt,
};
use nix::unistd::{Pid, getpid};

/// The longest message that is read; the rest of a longer one is cut.
const LONGEST: usize = 4096;

/// The master's end.
pub struct NotifySocket {
    socket: OwnedFd,
    name: String,
}

impl NotifySocket {
    /// Binds an abstract address (unix(7)) that no file has to be removed for.
    ///
    /// # Errors
    /// No socket could be made.
    pub fn bind() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        let name = format!("preforkd/{}/{:08x}", getpid(), nonce());
        socket::bind(
            socket.as_raw_fd(),
            &UnixAddr::new_abstract(name.as_bytes())?,
        )?;
        Ok(Self {
            socket,
            name: format!("@{name}"),
        })
    }

    /// What `NOTIFY_SOCKET` is for a worker.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For the poll.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The next message and who sent it; `None` if there is none.
    pub fn receive(&self) -> Option<(Pid, String)> {
        receive(&self.socket)
    }
}

/// A name that others cannot guess and bind before us.
fn nonce() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as u32
}

/// The kernel may lack memory for a moment; what is not read now might wait for the next message.
const ATTEMPTS: u32 = 3;

/// Receives one message from a socket that passes credentials; skips what has none.
pub(super) fn receive(socket: &OwnedFd) -> Option<(Pid, String)> {
    let mut failures = 0;
    loop {
        let mut bytes = [0; LONGEST];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut control = cmsg_space!(UnixCredentials);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match socket::recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            flags,
        ) {
            Ok(message) => message,
            Err(nix::Error::EINTR) => continue,
            Err(nix::Error::EAGAIN) => return None,
            Err(_) => {
                failures += 1;
                if failures == ATTEMPTS {
                    return None;
                }
                continue;
            }
        };
        let length = message.bytes;
        let sender = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::ScmCredentials(who) => Some(Pid::from_raw(who.pid())),
                _ => None,
            })
        });
        if length == 0 && sender.is_none_or(|pid| pid.as_raw() == 0) {
            // The other end of a connected socket is closed.
            return None;
        }
        if let Some(pid) = sender {
            return Some((pid, String::from_utf8_lossy(&bytes[..length]).into_owned()));
        }
    }
}
