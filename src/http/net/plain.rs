//! Plain bytes: a stream socket, TCP or Unix.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    connect_unspec, recv, recvmsg, send, sendmsg, shutdown, sockopt,
};

use crate::message::request::Origin;
use crate::message::slice::Slice;
use crate::net::descriptors::Own;
use crate::net::lane::Lane;
use crate::net::multiplex::Single;
use crate::net::standing::{self, Standing};
use crate::net::transport::Transport;

/// A connected stream socket that does not block.
#[derive(Debug)]
pub struct Plain {
    socket: Own,
    is_tcp: bool,
    watched: EventFlags,
    /// See [`Transport::reset_at_death`].
    resets: bool,
    lane: Option<Box<Lane>>,
}

impl Plain {
    /// A connected socket that does not block.
    pub fn over(socket: OwnedFd, is_tcp: bool) -> Self {
        standing::note(&socket, Some(Standing::Idle));
        Self {
            socket: socket.into(),
            is_tcp,
            watched: EventFlags::empty(),
            resets: false,
            lane: None,
        }
    }
}

impl Transport for Plain {
    type Shared = ();
    type Multiplex = Single;

    #[inline]
    fn new(_shared: &mut (), socket: OwnedFd, origin: &Origin) -> Self {
        Self::over(socket, origin.peer.is_some())
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        recv(&self.socket, buffer, RecvFlags::empty()).map(|(_, n)| n)
    }

    #[inline]
    fn write(&mut self, data: &[u8], more: bool) -> Result<usize, Errno> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        let sent = send(&self.socket, data, flags);
        if let Some(lane) = &self.lane {
            lane.wrote(more, sent == Ok(data.len()));
        }
        sent
    }

    fn write_both(&mut self, data: &[u8], slice: &Slice, more: bool) -> Result<usize, Errno> {
        if data.is_empty() {
            return self.write(slice, more);
        }
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        let pieces = [IoSlice::new(data), IoSlice::new(slice)];
        let mut nothing = SendAncillaryBuffer::default();
        let sent = sendmsg(&self.socket, &pieces, &mut nothing, flags);
        if let Some(lane) = &self.lane {
            lane.wrote(more, sent == Ok(data.len() + slice.len()));
        }
        sent
    }

    fn send_file(&mut self, file: &File, offset: &mut u64, length: usize) -> Result<usize, Errno> {
        let sent = sendfile(&self.socket, file, Some(offset), length);
        if let Some(lane) = &self.lane {
            lane.wrote(false, true);
        }
        sent
    }

    /// On a Unix socket nothing can be held.
    #[inline]
    fn can_hold(&self) -> bool {
        self.is_tcp
    }

    /// The option is on already; to set it again pushes (tcp(7), `TCP_NODELAY`).
    fn push(&self) {
        if let Some(lane) = &self.lane {
            return lane.push();
        }
        // Failure means that the client is gone, which the next read finds out.
        let _ = sockopt::set_tcp_nodelay(&self.socket, true);
    }

    fn finish(&mut self) -> Result<(), Errno> {
        self.reset_at_death(false);
        shutdown(&self.socket, Shutdown::Write)
    }

    /// On TCP this resets it (RFC 9293 section 3.10.5, ABORT); a Unix socket knows no such end.
    fn abort(&mut self) {
        // Failure means that it has ended already.
        let _ = connect_unspec(&self.socket);
    }

    fn leave(&mut self) {
        if self.resets {
            self.abort();
        }
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// The kernel resets the connection (socket(7), `SO_LINGER`). On TCP only.
    fn reset_at_death(&mut self, reset: bool) {
        if mem::replace(&mut self.resets, reset) != reset {
            // Failure means that the client is gone, which the next read or write finds out.
            let _ = sockopt::set_socket_linger(&self.socket, reset.then_some(Duration::ZERO));
        }
    }

    #[inline]
    fn stands(&self, standing: Standing) {
        standing::note(&self.socket, Some(standing));
    }

    fn read_offer(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, buffers, &mut control, flags)?;
        let mut passed = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        if let Some(mut rights) = passed.next()
            && let (Some(memory), Some(bell)) = (rights.next(), rights.next())
        {
            // The front sees whether it was taken.
            self.lane = Lane::take(&memory, bell).ok().map(Box::new);
        }
        Ok(received.bytes)
    }

    fn has_lane(&self) -> bool {
        self.lane.is_some()
    }

    fn begins(&self) -> bool {
        match &self.lane {
            Some(lane) => lane.begins(),
            None => {
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                !matches!(recv(&self.socket, &mut [0; 1], flags), Ok((_, 0)))
            }
        }
    }

    fn watch(&mut self, epoll: &Own, key: u64, write: bool) -> io::Result<()> {
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

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        standing::note(&self.socket, None);
    }
}
