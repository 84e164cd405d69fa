//! Lanes of the front, as a worker serves them (see [`crate::net::lane`]).

use super::NOT_BEGUN;
use super::core::Core;
use super::drive::Turn;
use crate::net::transport::Transport;
use crate::serve::client::{Client, Task};
use crate::serve::handler::Observer;

impl<T: Transport> Client<T> {
    /// Whether what is to be written on a lane is all there is to say, and the next request is here already.
    pub fn can_wait_in_lane(&self) -> bool {
        self.link.is_front
            && matches!(self.link.task, Task::Ended(_))
            && self.link.transport.has_lane()
            && self.link.backlog.is_none()
            && self.connection.has_input()
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// Begins a request of the front. None if that has taken it back: the connection is closed.
    #[inline(never)]
    pub(super) fn begin_for_front(&mut self, key: u64, mut client: Client<T>) -> Option<Client<T>> {
        let transport = &mut client.link.transport;
        if transport.begins() {
            return Some(client);
        }
        if !transport.has_lane() {
            // If the front has not seen that it was unread, this tells it.
            let _ = transport.write(&[NOT_BEGUN], false);
        }
        self.close(key, client);
        None
    }

    /// Reads what the front sends first.
    pub(super) fn read_offer(&mut self, key: u64, client: &mut Client<T>) -> Option<Turn> {
        let link = &mut client.link;
        if !link.readable {
            return match link.eof {
                true => Some(Turn::Close),
                false => Some(self.wait_to_read(key, link)),
            };
        }
        self.take_offer(client);
        client.link.broken.then_some(Turn::Close)
    }

    /// Reads what is there of that; whether it was anything.
    pub(super) fn take_offer(&mut self, client: &mut Client<T>) -> bool {
        let link = &mut client.link;
        match link.read_offer(&mut self.buffer) {
            Ok(0) => false,
            Ok(n) => {
                link.preamble = None;
                client.receive(&self.buffer[..n], self.now, self.now);
                true
            }
            Err(_) => {
                link.broken = true;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read as _, Write as _};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::net::UnixStream;

    use preforkd_worker::lane::Claims;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::super::accepting::tests::{Idle, waiting};

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const ANSWER: &str = "HTTP/1.1 204";

    /// A server with a lane, which is not read yet, and the front's end of that.
    struct Lane {
        server: Idle,
        key: u64,
        front: UnixStream,
        claims: Claims,
        bell: OwnedFd,
    }

    impl Lane {
        /// With these requests in the socket.
        fn new(sent: &str) -> Self {
            let (mut server, clients) = waiting(1, b"");
            server.core.front.all = vec![0];
            let [front] = <[UnixStream; 1]>::try_from(clients).unwrap();
            let (claims, memory) = Claims::create().unwrap();
            let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
            let passed = [memory.as_fd(), bell.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
            let bytes = [IoSlice::new(sent.as_bytes())];
            sendmsg(&front, &bytes, &mut control, SendFlags::empty()).unwrap();
            front.set_nonblocking(true).unwrap();
            server.accept(0, 1);
            let key = server.core.clients.keys().first().copied().unwrap_or(0);
            Self {
                server,
                key,
                front,
                claims,
                bell,
            }
        }

        /// The responses that have come.
        fn answers(&mut self) -> usize {
            let mut bytes = [0; 65536];
            let n = self.front.read(&mut bytes).unwrap_or(0);
            str::from_utf8(&bytes[..n]).unwrap().matches(ANSWER).count()
        }

        /// How often the bell was rung since it was asked last.
        fn rings(&self) -> u64 {
            let mut count = [0; 8];
            match rustix::io::read(&self.bell, &mut count) {
                Ok(_) => u64::from_ne_bytes(count),
                Err(_) => 0,
            }
        }

        fn go_on(&mut self) {
            self.server
                .event(self.key, rustix::event::epoll::EventFlags::IN);
        }

        /// Calls count as short, whatever the machine does.
        fn calm(&mut self) {
            (0..1000).for_each(|_| self.server.core.cork.called(0));
        }
    }

    #[test]
    fn requests_that_are_read_together_are_claimed_one_by_one_and_the_bell_rings_once() {
        let mut lane = Lane::new(GET);
        assert!(lane.claims.is_taken());
        assert_eq!((lane.claims.begun(), lane.answers()), (1, 1));
        assert_eq!(lane.rings(), 1);
        lane.calm();
        lane.front.write_all(GET.repeat(20).as_bytes()).unwrap();
        lane.go_on();
        assert_eq!((lane.claims.begun(), lane.answers()), (21, 20));
        assert!((1..20).contains(&lane.rings()));
    }

    #[test]
    fn each_response_is_told_where_calls_have_been_long() {
        let mut lane = Lane::new(GET);
        assert_eq!((lane.answers(), lane.rings()), (1, 1));
        lane.front.write_all(GET.repeat(3).as_bytes()).unwrap();
        lane.go_on();
        assert_eq!((lane.answers(), lane.rings()), (3, 3));
    }

    #[test]
    fn what_the_front_takes_back_is_not_begun_and_ends_the_lane() {
        let mut lane = Lane::new(GET);
        assert_eq!(lane.answers(), 1);
        assert_eq!(lane.claims.take_back(2), 2);
        lane.front.write_all(GET.repeat(3).as_bytes()).unwrap();
        lane.go_on();
        assert_eq!(lane.answers(), 1);
        assert_eq!(lane.server.core.clients.len(), 0);
        assert_eq!(lane.claims.begun(), 2);
    }

    #[test]
    fn a_lane_is_drained_after_what_was_sent_on_it() {
        let mut lane = Lane::new(GET);
        lane.answers();
        lane.server.core.draining = true;
        lane.front.write_all(GET.repeat(3).as_bytes()).unwrap();
        lane.go_on();
        let mut bytes = [0; 65536];
        let n = lane.front.read(&mut bytes).unwrap();
        let text = str::from_utf8(&bytes[..n]).unwrap();
        assert_eq!(text.matches(ANSWER).count(), 3);
        let closing = text.match_indices("Connection: close").map(|(at, _)| at);
        let closing: Vec<_> = closing.collect();
        assert!(closing.len() == 1 && Some(closing[0]) > text.rfind(ANSWER));
    }

    #[test]
    fn an_offer_that_came_just_before_the_deadline_is_taken() {
        let (mut server, mut clients) = waiting(1, b"");
        server.core.front.all = vec![0];
        server.accept(0, 1);
        let key = server.core.clients.keys()[0];
        clients[0].write_all(GET.as_bytes()).unwrap();
        server.core.now = server.core.clients.get(key).unwrap().link.deadline;
        let client = server.core.timeout(key).expect("it goes on");
        assert!(client.link.preamble.is_none() && client.connection.has_input());
    }

    #[test]
    fn a_connection_that_offers_none_is_as_any_other() {
        let (mut server, mut clients) = waiting(1, GET.as_bytes());
        server.core.front.all = vec![0];
        server.accept(0, 1);
        let mut bytes = [0; 4096];
        let n = clients[0].read(&mut bytes).unwrap();
        assert!(bytes[..n].starts_with(ANSWER.as_bytes()));
    }
}
