//! Listening sockets shared with the other workers.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, acceptfrom_with, getsockname, sockopt,
};

use crate::net::descriptors::Own;

/// What came of an attempt to accept.
pub(crate) enum Accepted {
    Connection(OwnedFd, Option<SocketAddr>),
    /// Nobody waits (any more): another worker was faster.
    Nobody,
    /// The socket was shut down by whoever opened it.
    Over,
    /// No descriptor or memory is left.
    Exhausted(io::Error),
}

/// One listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Own,
    tcp: bool,
    watched: bool,
    /// It was shut down: there is nothing to watch any more.
    over: bool,
    /// Somebody waited at the last look.
    waited: bool,
}

impl Listener {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let family = getsockname(&socket)?.address_family();
        Ok(Self {
            socket: socket.into(),
            tcp: matches!(family, AddressFamily::INET | AddressFamily::INET6),
            watched: false,
            over: false,
            waited: false,
        })
    }

    /// Begins to watch the socket. EPOLLEXCLUSIVE wakes one of the waiting workers for a connection instead of all;
    /// level-triggered, so that a worker need not take everything that waits and leaves it to others.
    pub fn watch(&mut self, epoll: &Own, key: u64) -> io::Result<()> {
        if !self.watched && !self.over {
            epoll::add(
                epoll,
                &self.socket,
                EventData::new_u64(key),
                EventFlags::IN | EventFlags::EXCLUSIVE,
            )?;
            self.watched = true;
            self.waited = false;
        }
        Ok(())
    }

    pub fn unwatch(&mut self, epoll: &Own) {
        if self.watched {
            // It fails only for a descriptor that is not watched, and that is what is wanted.
            let _ = epoll::delete(epoll, &self.socket);
            self.watched = false;
        }
    }

    #[cfg(test)]
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// Whether somebody waits to be accepted.
    pub fn has_callers(&self) -> bool {
        let mut look = [PollFd::new(&self.socket, PollFlags::IN)];
        !self.over && poll(&mut look, Some(&Timespec::default())).is_ok_and(|n| n > 0)
    }

    /// Whether somebody waits now and somebody did at the last look, so that no worker takes them at once.
    pub fn is_left_alone(&mut self) -> bool {
        let waits = self.has_callers();
        mem::replace(&mut self.waited, waits) && waits
    }

    /// A Unix socket that does not block says EAGAIN for ever when it was shut down, while epoll says that there is something to
    /// accept.
    fn is_shut_down(&self) -> bool {
        let mut look = [PollFd::new(&self.socket, PollFlags::empty())];
        !self.tcp
            && poll(&mut look, Some(&Timespec::default())).is_ok_and(|n| n > 0)
            && look[0].revents().contains(PollFlags::HUP)
    }

    pub fn accept(&mut self) -> Accepted {
        loop {
            return match acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
            {
                Ok((socket, peer)) => {
                    if self.tcp {
                        // A response goes out in one write where it can; the last piece of a stream must not wait for an
                        // acknowledgement. Failure means that the client is gone, which the first read finds out.
                        let _ = sockopt::set_tcp_nodelay(&socket, true);
                    }
                    Accepted::Connection(socket, peer.and_then(address))
                }
                Err(Errno::AGAIN) if !self.is_shut_down() => Accepted::Nobody,
                Err(Errno::INVAL | Errno::AGAIN) => {
                    self.over = true;
                    Accepted::Over
                }
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    Accepted::Exhausted(error.into())
                }
                // accept(2), "Error handling": errors of the new connection come out here; the next one may be good.
                Err(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::PROTO
                    | Errno::PERM
                    | Errno::NETDOWN
                    | Errno::HOSTUNREACH,
                ) => {
                    continue;
                }
                Err(error) => Accepted::Exhausted(error.into()),
            };
        }
    }
}

fn address(peer: SocketAddrAny) -> Option<SocketAddr> {
    peer.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

    use rustix::net::{Shutdown, shutdown};

    use super::*;

    #[test]
    fn a_listener_that_was_shut_down_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix: OwnedFd = UnixListener::bind(&path).unwrap().into();
        let tcp: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
        for socket in [unix, tcp] {
            let mut listener = Listener::new(socket.try_clone().unwrap()).unwrap();
            assert!(matches!(listener.accept(), Accepted::Nobody));
            if !listener.tcp {
                // Who had come before is still taken.
                let _client = UnixStream::connect(&path).unwrap();
                assert!(matches!(listener.accept(), Accepted::Connection(_, None)));
                assert!(matches!(listener.accept(), Accepted::Nobody));
            }
            shutdown(&socket, Shutdown::Both).unwrap();
            assert!(matches!(listener.accept(), Accepted::Over));
        }
    }
}
