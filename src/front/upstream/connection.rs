//! One connection to an upstream: its socket, and how far the request and the response have come.

use std::os::fd::OwnedFd;

use preforkd_http::{Expected, NOT_BEGUN, Watch};
use preforkd_worker::running::Switched;
use preforkd_worker::socket;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::dispatch::{Place, Ticket};
use super::framed::Framed;
use super::lane::{Lane, Stage};
use super::protocol::{Protocol, Reader};
use super::{Instant, NEVER};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It comes about, for this request.
    Connecting(Ticket),
    /// It serves this request.
    Busy(Ticket),
    /// It is kept for another.
    Kept,
}

/// What a read has brought.
#[derive(Debug)]
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    End,
    Lost(Errno),
    /// The upstream says that it has not begun with the request.
    NotBegun,
    /// It says why it breaks the response off, or breaks the protocol.
    Broken(String),
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// What is between the socket and the others, where it carries frames.
    framed: Option<Box<Framed>>,
    pub upstream: usize,
    pub place: Place,
    pub state: State,
    pub reader: Reader,
    /// Bytes of the request's head, and of what is sent together with it, that were written.
    pub written: usize,
    /// Bytes of the rest of its body that were not.
    pub body_left: u64,
    /// The whole request was written.
    pub sent: bool,
    /// A byte of it was.
    pub begun: bool,
    /// The upstream takes nothing more of it. It may have answered all the same.
    pub refused: bool,
    /// It has served a request before this one.
    pub reused: bool,
    /// It speaks another protocol now, in both directions.
    pub switched: bool,
    /// That is noted for the master.
    pub noted: Option<Switched>,
    /// The upstream has ended its direction; the other one goes on.
    pub ended: bool,
    /// There may be something to read.
    pub readable: bool,
    /// An end was announced: read on to it even when a read came short.
    pub hangup: bool,
    /// An event will tell of room to write.
    pub watches_room: bool,
    /// The client has no room: nothing is read.
    pub paused: bool,
    /// It is in the list of those that go on in the next turn.
    pub queued: bool,
    pub deadline: Instant,
    /// When its entry in the timers comes up.
    pub armed: Instant,
    /// Several requests are sent on it, if the worker takes it as a lane.
    pub lane: Option<Box<Lane>>,
    /// The bell of the lane tells when there is something to read.
    pub rings: bool,
    /// The last bytes that were taken in, so many, follow the response that is complete.
    pub left_over: usize,
}

impl Connection {
    /// One that comes about, or has.
    pub fn new(
        socket: OwnedFd,
        upstream: usize,
        place: Place,
        state: State,
        protocol: Protocol,
    ) -> Self {
        Self {
            socket,
            framed: protocol.is_framed().then(Box::default),
            upstream,
            place,
            state,
            reader: Reader::new(protocol),
            written: 0,
            body_left: 0,
            sent: false,
            begun: false,
            refused: false,
            reused: false,
            switched: false,
            noted: None,
            ended: false,
            readable: false,
            hangup: false,
            watches_room: false,
            paused: false,
            queued: false,
            deadline: NEVER,
            armed: NEVER,
            lane: None,
            rings: false,
            left_over: 0,
        }
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// A request begins on it, with so many bytes of a body that are not sent together with the head.
    pub fn begin(&mut self, expected: Expected, body_left: u64) {
        self.reader.expect(expected);
        if let Some(framed) = &mut self.framed {
            framed.begin();
        }
        self.written = 0;
        self.body_left = body_left;
        (self.sent, self.begun, self.refused, self.paused) = (false, false, false, false);
    }

    /// The response to another request on the lane comes next.
    pub fn begin_in_lane(&mut self, expected: Expected) {
        self.reader.expect(expected);
        (self.sent, self.begun, self.paused) = (true, true, false);
    }

    /// Whether the client has left whose response comes next on the lane.
    pub fn is_left(&self) -> bool {
        let lane = self.lane.as_ref();
        lane.and_then(|lane| lane.sent.front())
            .is_some_and(|first| first.left)
    }

    /// The worker has taken the lane that it was offered: from now on the bell tells when there is something to read.
    pub fn open_lane(&mut self, watch: Option<&Watch>, token: u32) {
        let lane = self.lane.as_mut();
        let Some(lane) = lane.filter(|lane| lane.stage == Stage::Offered) else {
            return;
        };
        let watched = watch.map(|watch| {
            watch.add(lane.bell(), token, false)?;
            watch.change_to_end(&self.socket, token, false)
        });
        self.rings = true;
        lane.stage = match watched {
            Some(Ok(())) => Stage::Open,
            _ => Stage::Closed,
        };
    }

    /// The request that it serves, or will.
    pub fn ticket(&self) -> Option<Ticket> {
        match self.state {
            State::Connecting(ticket) | State::Busy(ticket) => Some(ticket),
            State::Kept => None,
        }
    }

    /// Reads once.
    pub fn read(&mut self, buffer: &mut [u8]) -> Read {
        if let Some(framed) = &mut self.framed {
            if self.readable {
                framed.note_readable();
            }
            let read = framed.read(&self.socket, buffer);
            self.readable = framed.is_readable();
            return read;
        }
        let length = buffer.len();
        match recv(&self.socket, buffer, RecvFlags::empty()) {
            Ok((_, 0)) => {
                self.readable = false;
                Read::End
            }
            Ok((_, n)) => {
                // A short read has emptied the socket, and what comes later is a new edge; but an end that was announced is not.
                self.readable = n == length || self.hangup;
                Read::Bytes(n)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Read::Nothing
            }
            Err(Errno::INTR) => Read::Nothing,
            Err(error) => Read::Lost(error),
        }
    }

    /// Whether a kept connection is still there and has nothing to say. No event may have told yet that it is not.
    pub fn is_quiet(&mut self) -> bool {
        if let Some(framed) = &mut self.framed {
            framed.note_readable();
            return framed.is_free(&self.socket);
        }
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.socket, &mut [0; 1], flags), Err(Errno::AGAIN))
    }

    /// Writes once.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let offer = self.lane.as_mut();
        let offered = offer.and_then(|lane| lane.write_offer(&self.socket, data));
        let n = match (&mut self.framed, offered) {
            (_, Some(written)) => written?,
            (Some(framed), None) => {
                let written = framed.write(&self.socket, data);
                self.readable |= framed.is_readable();
                written?
            }
            (None, None) => send(&self.socket, data, SendFlags::NOSIGNAL)?,
        };
        self.begun |= n > 0;
        Ok(n)
    }

    /// Writes once what waits on the lane.
    pub fn write_lane(&mut self) -> Result<(), Errno> {
        if let Some(lane) = &mut self.lane {
            let n = send(&self.socket, lane.rest(), SendFlags::NOSIGNAL)?;
            lane.consume(n);
        }
        Ok(())
    }

    /// Whether it carries frames: there may be something to send or to read at any time.
    pub fn is_framed(&self) -> bool {
        self.framed.is_some()
    }

    /// Moves frames, also while nobody reads the response. True if there may be room for more of the request.
    pub fn carry(&mut self) -> bool {
        let Some(framed) = &mut self.framed else {
            return false;
        };
        if self.readable {
            framed.note_readable();
        }
        framed.carry(&self.socket);
        self.readable = framed.is_readable();
        true
    }

    /// The upstream speaks another protocol from now on, and so does the client.
    pub fn switch(&mut self) {
        self.switched = true;
        self.sent = false;
    }

    /// Tells the upstream that nothing follows what was written.
    pub fn end_writing(&self) {
        // Failure means that it has ended, which the next read finds out.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Whether the request was written whole, and the upstream has read nothing of it. On a Unix socket only, where the kernel knows.
    pub fn is_unread(&self) -> bool {
        self.sent && !self.refused && matches!(socket::unread(&self.socket), Ok(1..))
    }

    /// Whether a worker of ours says that it has not begun the request.
    pub fn is_given_back(&self, bytes: &[u8]) -> bool {
        bytes == [NOT_BEGUN] && !self.reader.has_begun()
    }

    /// Whether it can serve another request after a response that left so many bytes over.
    pub fn can_be_kept(&mut self, left_over: usize) -> bool {
        let framed = self.framed.as_mut();
        self.reader.keeps_connection()
            && self.sent
            && !self.refused
            && !self.hangup
            && left_over == 0
            && framed.is_none_or(|framed| framed.is_free(&self.socket))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(framed) = &mut self.framed {
            framed.leave(&self.socket);
        }
    }
}
