//! Requests are answered by a service: on the loop's own thread, later. It has descriptors and a deadline of its own in the loop.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{Answer, Engine};
use crate::files::NamedFile;
use crate::message::body::Body;
use crate::message::request::{Origin, Request};
use crate::message::response::{Piece, Response};
use crate::net::descriptors::Own;
use crate::net::transport::Transport;
use crate::serve::SERVICE;
use crate::serve::client::Client;
use crate::serve::core::{Core, Lent};
use crate::serve::handler::Observer;
use crate::serve::timers::Instant;

/// What answers requests without a thread for each: a proxy, for example. Everything is called on the loop's thread, and nothing may
/// wait. Times are those of CLOCK_MONOTONIC in nanoseconds.
///
/// A request is known by its key, from [`Service::call`] to [`Output::Done`] or [`Service::left`].
pub trait Service {
    /// The server begins. Descriptors can be watched with `watch` from now on.
    fn begin(&mut self, watch: Watch);

    /// How the body of a request is taken. Asked when its head is there, and only if it has a body.
    fn taking(&mut self, _request: Request<'_>, _origin: &Origin) -> Taking {
        Taking::Whole
    }

    /// Answers a request: at once, with a response that has ended, or later, with [`Output`].
    fn call(&mut self, call: Call<'_>, response: Response) -> Option<Response>;

    /// What has come of a body that is given out as it arrives, or after [`Output::Switched`]; and whether it has ended. Whether more of
    /// it is taken at once; [`Output::Wants`] tells of it else. Nothing is given before the first of those.
    ///
    /// A body that ends too early is never said to have ended: its client has left.
    fn body(&mut self, _key: u64, _bytes: Vec<u8>, _ended: bool, _now: u64) -> bool {
        false
    }

    /// The lines of the fields that have followed a body that is given out as it arrives, as the client has sent them (RFC 9110 section
    /// 6.5); see [`pass_trailers`](crate::pass_trailers). Called before [`Service::body`] says that it has ended.
    fn trailers(&mut self, _key: u64, _lines: &[u8]) {}

    /// The client of a request has left, or has taken nothing for too long. The response is given back as it is.
    fn left(&mut self, key: u64, now: u64) -> Option<Response>;

    /// So many bytes of what was given out for a request wait for its client, and more should not be made; 0 as long as there is room for
    /// more in memory or in a file. Called after each piece, and when there are fewer.
    fn waiting(&mut self, key: u64, bytes: usize, now: u64);

    /// Something has happened to a descriptor that is watched under this number. It may have been closed since.
    fn event(&mut self, token: u32, ready: Ready, now: u64);

    /// Called once in each turn of the loop, after the events.
    fn turn(&mut self, now: u64);

    /// When there is something to do in [`Service::turn`]; 0 for at once, [`u64::MAX`] for never.
    fn deadline(&self) -> u64;

    /// What was made for a request, by its key, in the order in which it was made.
    fn output(&mut self) -> Option<(u64, Output)>;
}

/// How the body of a request is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// As a whole, before the request is called.
    Whole,
    /// It is given out as it arrives, with [`Service::body`].
    Streamed,
    /// The same for a call in which both sides speak when they have something to say: its body may have any length, and take any time. How long
    /// both may be silent is for the service to say.
    Open,
}

/// A request for a [`Service`].
pub struct Call<'a> {
    /// The request's number. No other has it while this one is answered.
    pub key: u64,
    /// Its head.
    pub request: Request<'a>,
    /// Where it came in.
    pub origin: &'a Origin,
    /// Its body, whole.
    pub body: Body,
    /// Its body is empty so far: it is given out as it arrives, as the service has wished.
    pub streamed: bool,
    /// The time.
    pub now: u64,
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("key", &self.key)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// What a [`Service`] gives out for a request.
#[derive(Debug)]
pub enum Output {
    /// Nothing: the request has only waited up to now, as the log will say.
    Begins,
    /// More of the body is taken, with [`Service::body`].
    Wants,
    /// A part of the response.
    Piece(Piece),
    /// The head of the change to another protocol. What the client sends is given out with [`Service::body`], as it is.
    Switched(Piece),
    /// Nothing follows in the direction of the client; it may go on sending. After [`Output::Switched`] only.
    Ends,
    /// The response with the rest of what was written. It has ended.
    Done(Response),
    /// A file is sent in place of a body. The head of the response was begun and not finished; its fields stay.
    File(Response, NamedFile),
    /// Nothing was written, no byte of the body was taken: the request goes its way anew, with what was noted of it since. Files may answer
    /// it, it is asked again whether its body is given out as it arrives, and it is called again.
    Again(Response),
}

/// What can be done with a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Reading, which may give the end or an error.
    pub read: bool,
    /// Writing, which may give an error.
    pub write: bool,
    /// The peer sends nothing after what is there.
    pub hangup: bool,
}

impl Ready {
    fn new(flags: EventFlags) -> Self {
        let ended = EventFlags::HUP | EventFlags::ERR;
        let hangup = flags.intersects(EventFlags::RDHUP | ended);
        Self {
            read: hangup || flags.contains(EventFlags::IN),
            write: flags.intersects(EventFlags::OUT | ended),
            hangup,
        }
    }
}

/// Where a [`Service`] has its descriptors watched.
#[derive(Debug)]
pub struct Watch {
    epoll: Own,
}

impl Watch {
    /// Watches a descriptor, edge-triggered, until it is closed; for room to write only with `writes`: a Unix socket tells of that each time
    /// its peer has read. Its events come with this number.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn add(&self, fd: impl AsFd, token: u32, writes: bool) -> io::Result<()> {
        let (data, flags) = watched(token, writes);
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }

    /// Changes whether it is watched for room to write. What is there already makes an event again.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn change(&self, fd: impl AsFd, token: u32, writes: bool) -> io::Result<()> {
        let (data, flags) = watched(token, writes);
        Ok(epoll::modify(&self.epoll, fd, data, flags)?)
    }

    /// Has a descriptor that is watched tell only of its end, and of room to write. Something else tells when there is something to read.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn change_to_end(&self, fd: impl AsFd, token: u32, writes: bool) -> io::Result<()> {
        let (data, flags) = watched(token, writes);
        let flags = flags.difference(EventFlags::IN);
        Ok(epoll::modify(&self.epoll, fd, data, flags)?)
    }
}

fn watched(token: u32, writes: bool) -> (EventData, EventFlags) {
    let mut flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    flags.set(EventFlags::OUT, writes);
    (EventData::new_u64(SERVICE | u64::from(token)), flags)
}

pub(crate) struct Serving<S>(pub S);

impl<S: Service> Engine for Serving<S> {
    const SERVES: bool = true;

    fn begin(&mut self, epoll: BorrowedFd<'_>) -> io::Result<()> {
        let epoll = epoll.try_clone_to_owned()?.into();
        self.0.begin(Watch { epoll });
        Ok(())
    }

    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        wait()
    }

    fn submit<O: Observer, T: Transport>(
        &mut self,
        core: &mut Lent<Core<O, T>>,
        key: u64,
        mut client: Client<T>,
        body: Body,
        response: Response,
    ) -> (Client<T>, Option<Answer>) {
        let call = Call {
            key,
            request: client.connection.request(),
            origin: &client.link.origin,
            body,
            streamed: client.link.stream.is_some(),
            now: core.now,
        };
        let response = self.0.call(call, response);
        client.link.transport.carries(client.connection.request());
        let answer = response.map(|response| Answer {
            response,
            part: None,
        });
        (client, answer)
    }

    fn event(&mut self, token: u32, flags: EventFlags, now: Instant) {
        self.0.event(token, Ready::new(flags), now);
    }

    fn turn(&mut self, now: Instant) {
        self.0.turn(now);
    }

    fn deadline(&self) -> Instant {
        self.0.deadline()
    }

    fn output(&mut self) -> Option<(u64, Output)> {
        self.0.output()
    }

    fn waiting(&mut self, key: u64, bytes: usize, now: Instant) {
        self.0.waiting(key, bytes, now);
    }

    fn taking<T: Transport>(&mut self, client: &Client<T>) -> Taking {
        let origin = &client.link.origin;
        self.0.taking(client.connection.request(), origin)
    }

    fn body(&mut self, key: u64, bytes: Vec<u8>, ended: bool, now: Instant) -> bool {
        self.0.body(key, bytes, ended, now)
    }

    fn trailers(&mut self, key: u64, lines: &[u8]) {
        self.0.trailers(key, lines);
    }

    fn left(&mut self, key: u64, now: Instant) -> Option<Response> {
        self.0.left(key, now)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixStream;

    use rustix::event::epoll::CreateFlags;

    use super::*;

    /// What the events say that are there.
    fn events(epoll: &Own) -> Vec<(u64, bool, bool)> {
        let mut events = [const { MaybeUninit::uninit() }; 4];
        let none = rustix::time::Timespec::default();
        let (events, _) = epoll::wait(epoll, &mut events[..], Some(&none)).unwrap();
        let said = events.iter().map(|event| {
            let ready = Ready::new(event.flags);
            ({ event.data }.u64() - SERVICE, ready.read, ready.write)
        });
        said.collect()
    }

    #[test]
    fn a_peer_that_reads_makes_an_event_only_where_one_is_wanted() {
        let epoll = Own::from(epoll::create(CreateFlags::CLOEXEC).unwrap());
        let watched = epoll.as_fd().try_clone_to_owned().unwrap();
        let watch = Watch {
            epoll: watched.into(),
        };
        let (mut socket, mut peer) = UnixStream::pair().unwrap();
        watch.add(&socket, 7, false).unwrap();
        let mut passes = |text: &[u8]| {
            socket.write_all(text).unwrap();
            peer.read_exact(&mut vec![0; text.len()]).unwrap();
        };
        passes(b"one");
        assert_eq!(events(&epoll), []);
        let (fd, mut other) = UnixStream::pair().unwrap();
        watch.add(&fd, 8, false).unwrap();
        watch.change(&fd, 8, true).unwrap();
        assert_eq!(events(&epoll), [(8, false, true)], "there is room already");
        watch.change(&fd, 8, false).unwrap();
        other.write_all(b"two").unwrap();
        assert_eq!(events(&epoll), [(8, true, false)]);
    }
}
