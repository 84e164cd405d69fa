//! What the master tells of upstreams while the worker serves: where the workers of each app are.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _, Seek as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use preforkd_worker::upstreams::Ready;
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::address::Address;
use super::proxy::At;

/// The worker's end of the socket. Each message is a memory file.
#[derive(Debug)]
pub struct News {
    socket: OwnedFd,
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl News {
    /// The messages that come on the socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// The next message; `None` if there is none now.
    pub fn next(&mut self) -> Option<Ready> {
        loop {
            let error = match self.receive() {
                Ok(None) => return None,
                Ok(Some(file)) => match read(file) {
                    Ok(ready) => return Some(ready),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            log::error!(
                "could not read from the master where workers are: {error}; requests go to those that are known"
            );
        }
    }

    fn receive(&self) -> io::Result<Option<File>> {
        let mut text = [0; 16];
        let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut along = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut text)];
        match recvmsg(&self.socket, &mut parts, &mut along, flags) {
            // The end: the master has died, or gives up this worker.
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut fds = along.drain().filter_map(|along| match along {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let file = fds.by_ref().flatten().next();
        let file = file.ok_or_else(|| io::Error::other("no memory file has come along"))?;
        Ok(Some(file.into()))
    }
}

/// Nobody else has the open file, and its position is where the master has left it.
fn read(mut file: File) -> io::Result<Ready> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(Ready::parse(&text)?)
}

/// Where requests can go. Workers with the same address count as one, as nobody can choose between them.
pub fn places(ready: &Ready) -> Vec<At> {
    let mut places: Vec<At> = Vec::new();
    for worker in &ready.workers {
        let Some(address) = Address::parse(&worker.address) else {
            log::error!(
                "could not use the address of a worker: app={} address={}: it is none; sending it no requests",
                ready.app,
                worker.address.escape_debug()
            );
            continue;
        };
        let at_a_time = worker.at_a_time.map_or(usize::MAX, |most| most as usize);
        match places.iter_mut().find(|place| place.address == address) {
            Some(place) => place.at_a_time = place.at_a_time.saturating_add(at_a_time),
            None => places.push(At { address, at_a_time }),
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write as _};
    use std::os::unix::net::UnixDatagram;

    use preforkd_worker::upstreams::Worker;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    fn send(socket: &UnixDatagram, text: &str) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let fds = [file.as_fd()];
        let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut room);
        assert!(along.push(SendAncillaryMessage::ScmRights(&fds)));
        let text = [IoSlice::new(b"upstream")];
        sendmsg(socket, &text, &mut along, SendFlags::empty()).unwrap();
    }

    #[test]
    fn messages_are_read_one_after_the_other_and_nonsense_is_left_out() {
        let (master, ours) = UnixDatagram::pair().unwrap();
        let mut news = News::new(ours.into());
        assert_eq!(news.next(), None);
        let ready = |app: &str| Ready {
            app: app.into(),
            workers: Vec::new(),
        };
        send(&master, &ready("web").encode().unwrap());
        send(&master, "nonsense");
        master.send(b"upstream").unwrap();
        send(&master, &ready("api").encode().unwrap());
        assert_eq!(news.next(), Some(ready("web")));
        assert_eq!(news.next(), Some(ready("api")));
        assert_eq!(news.next(), None);
    }

    #[test]
    fn workers_that_nobody_can_tell_apart_are_one_place() {
        let worker = |address: &str, at_a_time| Worker {
            address: address.into(),
            at_a_time,
        };
        let ready = Ready {
            app: "web".into(),
            workers: vec![
                worker("unix:/a", Some(1)),
                worker("unix:/b", Some(4)),
                worker("nowhere", None),
                worker("unix:/b", None),
            ],
        };
        let at = |path: &str, at_a_time| At {
            address: Address::Unix(path.into()),
            at_a_time,
        };
        assert_eq!(places(&ready), [at("/a", 1), at("/b", usize::MAX)]);
    }
}
