//! The control socket: one line in (a request), lines out (the answer), then it is closed. Never blocks.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, Backlog, getsockopt, sockopt};
use nix::unistd::geteuid;

use super::socket_file::{self, Rights, SocketFile};

/// The longest request.
const LONGEST: usize = 4096;
/// More callers at a time are turned away, lest they take the descriptors that workers need.
const MOST_CALLERS: usize = 32;

/// The listening socket and those who have called.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    _file: SocketFile,
    callers: BTreeMap<RawFd, Caller>,
    /// Calls so far.
    calls: u64,
}

struct Caller {
    call: u64,
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// The request was passed on; what comes later is ignored.
    heard: bool,
    /// The answer is complete: close when it is written.
    answered: bool,
}

/// Where to find a caller again; never another one who has the same descriptor later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerId {
    fd: RawFd,
    call: u64,
}

#[cfg(test)]
impl CallerId {
    /// The only caller of this number.
    pub fn example(fd: RawFd) -> Self {
        Self { fd, call: 0 }
    }

    /// That number.
    pub fn number(self) -> RawFd {
        self.fd
    }
}

impl Control {
    /// Listens at `path`, for the master's own user and root only.
    ///
    /// # Errors
    /// The folder cannot be written, another process serves there, or something else lies there, which stays as it is.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = socket_file::stream()?;
        let rights = Rights {
            mode: Some(0o600),
            ..Rights::default()
        };
        let listen = || socket::listen(&socket, Backlog::MAXCONN);
        let file = SocketFile::bind(&socket, path, rights, listen).map_err(io::Error::other)?;
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            _file: file,
            callers: BTreeMap::new(),
            calls: 0,
        })
    }

    /// For the poll.
    pub fn fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes in whoever calls; says which descriptors are to be watched now, and whether some still wait, as there was
    /// no descriptor left for them.
    pub fn accept(&mut self) -> (Vec<RawFd>, bool) {
        let mut new = Vec::new();
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return (new, error.kind() != io::ErrorKind::WouldBlock),
            };
            let allowed = getsockopt(&stream, sockopt::PeerCredentials)
                .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw());
            if self.callers.len() >= MOST_CALLERS {
                // Some may have gone without a word, or while they waited for an answer.
                self.callers.retain(|_, caller| !caller.is_gone());
            }
            if !allowed
                || self.callers.len() >= MOST_CALLERS
                || stream.set_nonblocking(true).is_err()
            {
                continue;
            }
            let fd = stream.as_raw_fd();
            self.calls += 1;
            let caller = Caller {
                call: self.calls,
                stream,
                request: Vec::new(),
                answer: Vec::new(),
                heard: false,
                answered: false,
            };
            self.callers.insert(fd, caller);
            new.push(fd);
        }
    }

    /// Hangs up.
    pub fn dismiss(&mut self, fd: RawFd) {
        self.callers.remove(&fd);
    }

    /// A caller's socket is ready: reads on, writes on. Returns a request that is complete now.
    pub fn ready(&mut self, fd: RawFd) -> Option<(CallerId, String)> {
        let caller = self.callers.get_mut(&fd)?;
        let open = caller.read();
        let end = caller.request.iter().position(|&byte| byte == b'\n');
        let hopeless = !open && (end.is_none() || caller.heard && caller.is_gone());
        if hopeless || !caller.write() {
            self.callers.remove(&fd);
            return None;
        }
        let end = end.filter(|_| !caller.heard)?;
        caller.heard = true;
        let request = String::from_utf8_lossy(&caller.request[..end]);
        let call = caller.call;
        Some((CallerId { fd, call }, request.trim().to_owned()))
    }

    /// Sends the whole answer; the connection is closed after it.
    pub fn answer(&mut self, id: CallerId, answer: &str) {
        if let Some(caller) = self.callers.get_mut(&id.fd)
            && caller.call == id.call
        {
            caller.answer.extend_from_slice(answer.as_bytes());
            caller.answered = true;
            if !caller.write() {
                self.callers.remove(&id.fd);
            }
        }
    }
}

impl Caller {
    /// Reads what is there; whether more may come.
    fn read(&mut self) -> bool {
        let mut bytes = [0; LONGEST];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(n) => self.request.extend_from_slice(&bytes[..n]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if self.request.len() > LONGEST {
                return false;
            }
        }
    }

    /// Whether nobody is there to read an answer; one who has only ended the request still is.
    fn is_gone(&self) -> bool {
        let mut poll = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let _ = nix::poll::poll(&mut poll, PollTimeout::ZERO);
        poll[0]
            .revents()
            .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Writes what fits; whether the connection is still of use.
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
