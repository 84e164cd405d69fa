//! What bytes go through: a stream socket, TCP or Unix.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, connect_unspec, recv, send, shutdown, sockopt};

use crate::net::descriptors::Own;
use crate::net::standing::{self, Standing};

/// A connected stream socket that does not block.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Own,
    is_tcp: bool,
    watched: EventFlags,
    /// See [`Transport::reset_at_death`].
    resets: bool,
}

impl Transport {
    pub fn new(socket: OwnedFd, is_tcp: bool) -> Self {
        standing::note(&socket, Some(Standing::Idle));
        Self {
            socket: socket.into(),
            is_tcp,
            watched: EventFlags::empty(),
            resets: false,
        }
    }

    /// Notes where the connection stands, should the process have to die.
    #[inline]
    pub fn stands(&self, standing: Standing) {
        standing::note(&self.socket, Some(standing));
    }

    /// Whether what was written with `more` waits for [`Transport::push`]. On a Unix socket nothing can wait.
    pub fn can_hold(&self) -> bool {
        self.is_tcp
    }

    /// Reads once. 0 is the end.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        recv(&self.socket, buffer, RecvFlags::empty()).map(|(_, n)| n)
    }

    /// Writes once. With `more` it may be held until [`Transport::push`].
    #[inline]
    pub fn write(&self, data: &[u8], more: bool) -> Result<usize, Errno> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        send(&self.socket, data, flags)
    }

    /// Writes a part of a file once, and moves `offset` on. 0 is the end of the file.
    pub fn send_file(&self, file: &File, offset: &mut u64, length: usize) -> Result<usize, Errno> {
        sendfile(&self.socket, file, Some(offset), length)
    }

    /// Sends what was held. The option is on already; to set it again pushes (tcp(7), `TCP_NODELAY`).
    pub fn push(&self) {
        // Failure means that the client is gone, which the next read finds out.
        let _ = sockopt::set_tcp_nodelay(&self.socket, true);
    }

    /// The orderly end of what is sent.
    pub fn finish(&mut self) -> Result<(), Errno> {
        self.reset_at_death(false);
        shutdown(&self.socket, Shutdown::Write)
    }

    /// Breaks the connection off: its end must not pass for the end of what is sent. On TCP this resets it (RFC 9293 section
    /// 3.10.5, ABORT); a Unix socket knows no such end.
    pub fn abort(&self) {
        // Failure means that it has ended already.
        let _ = connect_unspec(&self.socket);
    }

    /// Neither reads nor sends any more, though the socket stays open. A response that ends with the connection breaks off visibly.
    pub fn leave(&self) {
        if self.resets {
            self.abort();
        }
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Whether the kernel resets the connection should the worker die (socket(7), `SO_LINGER`): the end of the connection would
    /// pass for the end of a response. On TCP only.
    pub fn reset_at_death(&mut self, reset: bool) {
        if mem::replace(&mut self.resets, reset) != reset {
            // Failure means that the client is gone, which the next read or write finds out.
            let _ = sockopt::set_socket_linger(&self.socket, reset.then_some(Duration::ZERO));
        }
    }

    /// Watches the socket, edge-triggered; for room to write only once that was needed.
    pub fn watch(&mut self, epoll: &Own, key: u64, write: bool) -> io::Result<()> {
        let mut flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        flags.set(EventFlags::OUT, write);
        if self.watched.is_empty() {
            epoll::add(epoll, &self.socket, EventData::new_u64(key), flags)?;
        } else if !self.watched.contains(flags) {
            epoll::modify(epoll, &self.socket, EventData::new_u64(key), flags)?;
        } else {
            return Ok(());
        }
        self.watched = flags;
        Ok(())
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        standing::note(&self.socket, None);
    }
}
