//! The control socket. A client sends one line (the request), reads the answer, and the connection is closed. Never blocks.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use log::warn;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, Backlog, getsockopt, sockopt};
use nix::unistd::geteuid;

use super::socket_file::{self, Rights, SocketFile};

/// The maximum length of a request.
const MAX_REQUEST: usize = 4096;
/// Further clients are disconnected, so that they cannot use up the descriptors that workers need.
const MAX_CLIENTS: usize = 32;
/// The most bytes that are kept for a client that is sent more and more and does not read.
const MAX_UNREAD: usize = 1024 * 1024;

/// The listening socket and its clients.
#[derive(Default)]
pub struct Control {
    listening: Option<Listening>,
    clients: BTreeMap<RawFd, Client>,
    /// The last client could not be accepted.
    is_deaf: bool,
    /// Connections accepted so far.
    calls: u64,
}

/// A listening socket and its file, until it is dropped.
pub struct Listening {
    listener: UnixListener,
    file: SocketFile,
    path: PathBuf,
    rights: Rights,
}

struct Client {
    call: u64,
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// The request was returned by `ready`; further input is ignored.
    has_request: bool,
    /// The answer is complete. The connection is closed when it is written.
    answered: bool,
}

/// Identifies a client, and never a later one with the same descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId {
    fd: RawFd,
    call: u64,
}

#[cfg(test)]
impl ClientId {
    /// The only client with this descriptor.
    pub fn example(fd: RawFd) -> Self {
        Self { fd, call: 0 }
    }

    /// The client's descriptor.
    pub fn number(self) -> RawFd {
        self.fd
    }
}

impl Control {
    /// Listens at `path`, and returns the listener that this one has replaced; clients stay connected. Root, the master's own user and whoever may write to
    /// the socket can send commands.
    ///
    /// # Errors
    /// The folder is not writable, another process listens there ([`io::ErrorKind::AddrInUse`]), or the path is another file, which is
    /// not touched. It listens where it has listened before.
    pub fn listen(
        &mut self,
        path: &Path,
        mode: u32,
        group: Option<u32>,
    ) -> io::Result<Option<Listening>> {
        let socket = socket_file::stream()?;
        let rights = rights(mode, group);
        let listen = || socket::listen(&socket, Backlog::MAXCONN);
        let file = SocketFile::bind(&socket, path, rights, listen).map_err(|not_bound| {
            let kind = match not_bound.in_use {
                true => io::ErrorKind::AddrInUse,
                false => io::ErrorKind::Other,
            };
            io::Error::new(kind, not_bound)
        })?;
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        let listening = Listening {
            listener,
            file,
            // A link on the way to it may lead to another folder later.
            path: std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            rights,
        };
        Ok(self.listening.replace(listening))
    }

    /// Listens no more.
    pub fn stop_listening(&mut self) {
        self.listening = None;
    }

    /// Whether this path leads to the socket.
    pub fn is_at(&self, path: &Path) -> bool {
        let listening = self.listening.as_ref();
        listening.is_some_and(|listening| listening.file.is_at(path))
    }

    /// Applies changed rights.
    ///
    /// # Errors
    /// The system's reason.
    pub fn change(&mut self, mode: u32, group: Option<u32>) -> Result<(), String> {
        let Some(listening) = &mut self.listening else {
            return Ok(());
        };
        let rights = rights(mode, group);
        listening.file.change(listening.rights, rights)?;
        listening.rights = rights;
        Ok(())
    }

    /// The path at which it listens, without symbolic links.
    pub fn path(&self) -> Option<&Path> {
        let listening = self.listening.as_ref();
        listening.map(|listening| listening.path.as_path())
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> Option<RawFd> {
        let listening = self.listening.as_ref();
        listening.map(|listening| listening.listener.as_raw_fd())
    }

    /// Accepts waiting clients. Returns the descriptors to poll, and whether clients still wait because no descriptor was
    /// available.
    pub fn accept(&mut self) -> (Vec<RawFd>, bool) {
        let Some(listening) = &self.listening else {
            return (Vec::new(), false);
        };
        let before = self.calls;
        // The kernel has let them connect by the rights of the file.
        let for_others = listening.rights.mode.is_some_and(|mode| mode & 0o066 != 0);
        let more_wait = loop {
            let stream = match listening.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) => {
                    if !std::mem::replace(&mut self.is_deaf, true) {
                        warn!("cannot accept clients at the control socket: {error}; trying again");
                    }
                    break true;
                }
            };
            self.is_deaf = false;
            let allowed = for_others
                || getsockopt(&stream, sockopt::PeerCredentials)
                    .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw());
            if self.clients.len() >= MAX_CLIENTS {
                // Some may have closed their connection without a request, or before their answer.
                self.clients.retain(|_, client| !client.is_gone());
            }
            if !allowed
                || self.clients.len() >= MAX_CLIENTS
                || stream.set_nonblocking(true).is_err()
            {
                continue;
            }
            let fd = stream.as_raw_fd();
            self.calls += 1;
            let client = Client {
                call: self.calls,
                stream,
                request: Vec::new(),
                answer: Vec::new(),
                has_request: false,
                answered: false,
            };
            self.clients.insert(fd, client);
        };
        // One that was accepted may have been dropped for a later one.
        let clients = self.clients.iter();
        let new = clients.filter(|(_, client)| client.call > before);
        (new.map(|(fd, _)| *fd).collect(), more_wait)
    }

    /// Closes the connection to a client.
    pub fn close_client(&mut self, fd: RawFd) {
        self.clients.remove(&fd);
    }

    /// Reads or writes after an event of a client's socket. Returns a request that is now complete.
    pub fn ready(&mut self, fd: RawFd) -> Option<(ClientId, String)> {
        let client = self.clients.get_mut(&fd)?;
        let open = client.read();
        let end = client.request.iter().position(|&byte| byte == b'\n');
        let hopeless = !open && (end.is_none() || client.has_request && client.is_gone());
        if hopeless || !client.write() {
            self.clients.remove(&fd);
            return None;
        }
        let end = end.filter(|_| !client.has_request)?;
        client.has_request = true;
        let request = String::from_utf8_lossy(&client.request[..end]);
        let call = client.call;
        Some((ClientId { fd, call }, request.trim().to_owned()))
    }

    /// Sends a part of an answer that has no end. Returns whether the client is still there: one that does not read is
    /// disconnected.
    pub fn send(&mut self, id: ClientId, part: &str) -> bool {
        let Some(client) = self.client(id) else {
            return false;
        };
        client.answer.extend_from_slice(part.as_bytes());
        let stays = client.write() && client.answer.len() <= MAX_UNREAD;
        if !stays {
            self.clients.remove(&id.fd);
        }
        stays
    }

    /// Sends the complete answer. The connection is closed after it.
    pub fn answer(&mut self, id: ClientId, answer: &str) {
        if let Some(client) = self.client(id) {
            client.answer.extend_from_slice(answer.as_bytes());
            client.answered = true;
            if !client.write() {
                self.clients.remove(&id.fd);
            }
        }
    }

    /// The client, unless it has left.
    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        let client = self.clients.get_mut(&id.fd);
        client.filter(|client| client.call == id.call)
    }
}

fn rights(mode: u32, group: Option<u32>) -> Rights {
    Rights {
        mode: Some(mode),
        owner: None,
        group,
    }
}

impl Client {
    /// Reads what is available. Returns whether more may follow.
    fn read(&mut self) -> bool {
        let mut bytes = [0; MAX_REQUEST];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(n) => self.request.extend_from_slice(&bytes[..n]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if self.request.len() > MAX_REQUEST {
                return false;
            }
        }
    }

    /// Whether the client has closed its connection. A client that has only ended its request still reads the answer.
    fn is_gone(&self) -> bool {
        let mut poll = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let _ = nix::poll::poll(&mut poll, PollTimeout::ZERO);
        poll[0]
            .revents()
            .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Writes what fits. Returns whether the connection is still needed.
    fn write(&mut self) -> bool {
        while !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(n) => drop(self.answer.drain(..n)),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        !self.answered
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;

    use super::*;

    #[test]
    fn a_client_that_is_sent_more_and_more_is_disconnected_if_it_does_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let mut control = Control::default();
        control.listen(&path, 0o600, None).expect("it listens");
        let client = UnixStream::connect(&path).expect("it listens");
        let (new, more) = control.accept();
        assert!(new.len() == 1 && !more);
        (&client).write_all(b"follow 0\n").expect("room");
        let (id, _) = control.ready(new[0]).expect("a request");
        let part = "x".repeat(1023) + "\n";
        assert!(control.send(id, &part));
        let mut line = String::new();
        std::io::BufReader::with_capacity(1, &client)
            .read_line(&mut line)
            .expect("it is there");
        assert_eq!(line, part);
        let most = 4 * MAX_UNREAD / part.len();
        let sent = (0..most).take_while(|_| control.send(id, &part)).count();
        assert!(sent < most && sent * part.len() >= MAX_UNREAD, "{sent}");
        assert!(!control.send(id, &part), "it is gone");
    }
}
