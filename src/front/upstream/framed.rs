//! The socket of a connection to an upstream of HTTP/2: frames there, and the bytes of HTTP/1.1 towards the proxy.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::connection::Read;
use crate::h2::client::{Client, Got};

/// One read takes at most so much, and so many follow each other.
const BUFFER: usize = 16 * 1024;
const READS: usize = 64;

/// What is between the socket and the proxy.
#[derive(Debug, Default)]
pub(super) struct Framed {
    client: Client,
    /// Frames that go out; those before it are written.
    out: Vec<u8>,
    written: usize,
    /// The socket may have something to read.
    readable: bool,
    /// Nothing can be sent any more.
    refused: bool,
}

impl Framed {
    /// Another request begins.
    pub fn begin(&mut self) {
        self.client.begin();
    }

    /// Moves frames in both directions, as far as the socket goes along. What comes is bounded by the windows that the upstream was given, so it
    /// is taken in also while nobody reads the response: the request may wait for it.
    pub fn carry(&mut self, socket: &OwnedFd) {
        self.flush(socket);
        let mut buffer = [0; BUFFER];
        for _ in 0..READS {
            if !self.readable || self.client.is_full() {
                break;
            }
            match recv(socket, &mut buffer, RecvFlags::empty()) {
                Ok((_, n @ 1..)) => self.client.give(&buffer[..n]),
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Ok((_, 0)) | Err(_) => {
                    self.readable = false;
                    self.client.end();
                }
            }
            self.flush(socket);
        }
    }

    /// There may be something to read.
    pub fn note_readable(&mut self) {
        self.readable = true;
    }

    /// Whether there may be something to read of the response before the next event. An upstream that does not take what it is answered is not
    /// read.
    pub fn is_readable(&self) -> bool {
        self.readable && !self.client.is_full() || self.client.has_input()
    }

    fn flush(&mut self, socket: &OwnedFd) {
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                self.client.output(&mut self.out);
            }
            if self.out.is_empty() {
                return;
            }
            if self.refused {
                self.written = self.out.len();
                continue;
            }
            match send(socket, &self.out[self.written..], SendFlags::NOSIGNAL) {
                Ok(n) => self.written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // It may have answered before.
                Err(_) => (self.refused, self.readable) = (true, true),
            }
        }
    }

    /// Takes bytes of the request.
    pub fn write(&mut self, socket: &OwnedFd, data: &[u8]) -> Result<usize, Errno> {
        let taken = self.client.write(data);
        self.flush(socket);
        match taken {
            Ok(_) if self.refused => Err(Errno::PIPE),
            taken => taken,
        }
    }

    /// Gives out what has come of the response.
    pub fn read(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Read {
        self.carry(socket);
        let got = self.client.read(buffer);
        self.flush(socket);
        match got {
            Got::Bytes(n) => Read::Bytes(n),
            Got::Nothing => Read::Nothing,
            Got::End => Read::End,
            Got::NotBegun => Read::NotBegun,
            Got::Broken(why) => Read::Broken(why),
        }
    }

    /// Whether another request may follow.
    pub fn is_free(&mut self, socket: &OwnedFd) -> bool {
        self.carry(socket);
        !self.refused && !self.readable && self.client.is_free()
    }

    /// The connection ends: the upstream is told if its response is not wanted.
    pub fn leave(&mut self, socket: &OwnedFd) {
        self.client.reset();
        self.flush(socket);
    }
}
