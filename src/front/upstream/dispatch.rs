//! Which address gets a request, and which request waits: facts in, decisions out, without sockets and clock.
//!
//! A request goes to the address with the fewest running, those included that other workers of the front have sent. Where all have as many as they may, it waits, in the order of arrival, and
//! for a limited time. A request that is sent again goes before those that have not been sent at all.
//!
//! Where what was not begun can be taken back, requests are sent ahead to addresses that are busy and quick (`line`).

use std::collections::VecDeque;
use std::time::Duration;

use self::line::{Line, PATIENCE};
use super::health::{Health, Policy};
use super::{Instant, NEVER, after};
use preforkd_worker::running::{Claim, Place as Shared, Queue, Switched};

use self::common::Common;

mod common;
mod line;

/// How long an address gets nothing that is busy with what others have sent it, in nanoseconds.
const OCCUPIED: Instant = 5 * PATIENCE;
/// How long a request may be served at the only address there is before those behind it are taken back, in nanoseconds. What is taken back then waits in the queue, so that it does not wait for longer than
/// requests may.
const PATIENCE_ALONE: Instant = 25 * PATIENCE;

/// A request, by the number that it has in the server.
pub type Ticket = u64;

/// An address, by a number that is never used again.
pub type Place = u64;

/// The limits of one upstream.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that run at an address at a time.
    pub most_running: usize,
    /// Requests that wait.
    pub queue_length: usize,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// When an address is left alone.
    pub health: Policy,
    /// An address where one request runs at a time begins them one after the other, and those that it has not begun can be taken back.
    pub ahead: bool,
}

/// What is to be known of a request before it is given an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub ticket: Ticket,
    /// It may be sent to an address that is busy: it is written at once, and may be repeated.
    pub ahead: bool,
}

/// What becomes of a request that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It runs there.
    Run(Place),
    /// It waits; [`Dispatch::next`] or [`Dispatch::expired`] tells of it.
    Wait,
    /// Too many wait.
    Full,
    /// There is no address, and none is to come soon.
    Refused,
}

/// How a request that ran at an address has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Good,
    /// The address has failed.
    Bad,
    /// It says nothing of the address.
    Unknown,
}

/// What the address turned out to be by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// As it was.
    Same,
    /// It is left alone for a while.
    Away,
    /// It is no longer left alone.
    Back,
}

#[derive(Debug)]
struct Seats {
    place: Place,
    /// Requests that may run there at a time.
    most: usize,
    running: usize,
    /// Those of which it begins one after the other.
    line: Line,
    health: Health,
    /// It gets nothing before; 0 if it may get something.
    closed_until: Instant,
    /// When it was last chosen, in the order of choices.
    chosen: u64,
    /// Not among the addresses any more; it is here for those that still run.
    removed: bool,
    /// Where all workers of the front count what runs there.
    shared: Option<Shared>,
}

impl Seats {
    /// Requests that may run there at a time.
    fn most(&self, limits: Limits) -> usize {
        self.most.min(limits.most_running)
    }

    /// Whether it begins requests one after the other, as [`Limits::ahead`] has it.
    fn has_line(&self, limits: Limits) -> bool {
        limits.ahead && self.most(limits) == 1
    }

    /// Requests that run there, also those of other workers of the front.
    fn all(&self) -> usize {
        let others = self.shared.map_or(0, |shared| shared.others());
        self.running.saturating_add(others)
    }

    /// One more runs there, though as many may run already.
    fn enter(&mut self) {
        self.running += 1;
        if let Some(shared) = &self.shared {
            shared.begin();
        }
    }

    /// One more runs there, if there is room among those of all workers of the front.
    fn claim(&mut self, limits: Limits) -> Claim {
        let most = self.most(limits);
        let claim = match &self.shared {
            Some(shared) if most != usize::MAX => shared.take(most as u64),
            Some(shared) => {
                shared.begin();
                Claim::Taken
            }
            None => Claim::Taken,
        };
        self.running += usize::from(claim == Claim::Taken);
        claim
    }

    fn leave(&mut self) {
        if self.running > 0 {
            self.running -= 1;
            if let Some(shared) = &self.shared {
                shared.end();
            }
        }
    }

    /// Requests that run there, and not those that were sent ahead.
    fn begun(&self) -> usize {
        self.running - self.line.ahead().min(self.running)
    }
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    ahead: bool,
    since: Instant,
    until: Instant,
    /// Where it has failed.
    not: Option<Place>,
}

/// The addresses of one upstream, and the requests that wait for one.
#[derive(Debug)]
pub struct Dispatch {
    limits: Limits,
    seats: Vec<Seats>,
    choices: u64,
    /// Those that are sent again, then those that are new; each in the order of their times.
    again: VecDeque<Waiting>,
    queue: VecDeque<Waiting>,
    /// Nothing waits while there is no address.
    refuses: bool,
    /// What all workers of the front know of each other's queues.
    common: Option<Common>,
}

impl Dispatch {
    /// One without an address: all requests wait.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            seats: Vec::new(),
            choices: 0,
            again: VecDeque::new(),
            queue: VecDeque::new(),
            refuses: false,
            common: None,
        }
    }

    /// What waits is counted there together with what waits at other workers of the front. Ask [`Dispatch::next`] then.
    pub fn share_queue(&mut self, queue: Queue) {
        self.common = Some(Common::new(queue));
        self.tell();
    }

    /// Whether that is so.
    pub fn shares_queue(&self) -> bool {
        self.common.is_some()
    }

    /// These are the addresses from now on, each with the number of requests that may run there at a time. What is known of those that stay is kept.
    pub fn set(&mut self, places: &[(Place, usize)]) {
        for seats in &mut self.seats {
            let listed = places.iter().find(|(place, _)| *place == seats.place);
            seats.removed = listed.is_none();
            seats.most = listed.map_or(seats.most, |(_, most)| *most);
        }
        self.seats
            .retain(|seats| !seats.removed || seats.running > 0);
        for &(place, most) in places {
            if !self.seats.iter().any(|seats| seats.place == place) {
                self.seats.push(Seats {
                    place,
                    most,
                    running: 0,
                    line: Line::default(),
                    health: Health::default(),
                    closed_until: 0,
                    chosen: 0,
                    removed: false,
                    shared: None,
                });
            }
        }
    }

    /// Whether requests are refused, instead of left waiting, while there is no address.
    pub fn refuse(&mut self, refuses: bool) {
        self.refuses = refuses;
    }

    /// Whether they are now. [`Dispatch::expired`] at [`NEVER`] gives those that wait.
    pub fn is_refusing(&self) -> bool {
        self.refuses && self.seats.iter().all(|seats| seats.removed)
    }

    /// What runs at an address is counted there together with other workers of the front. Nothing runs there yet.
    pub fn share(&mut self, place: Place, shared: Shared) {
        let mut seats = self.seats.iter_mut();
        if let Some(seats) = seats.find(|seats| seats.place == place && seats.running == 0) {
            seats.shared = Some(shared);
        }
    }

    /// A request that runs there has changed to another protocol, as long as what is returned exists.
    pub fn switches(&self, place: Place) -> Option<Switched> {
        let mut seats = self.seats.iter();
        let seats = seats.find(|seats| seats.place == place)?;
        Some(seats.shared.as_ref()?.switches())
    }

    /// Whether the address begins requests one after the other, and those that it has not begun can be taken back.
    pub fn has_line(&self, place: Place) -> bool {
        let mut seats = self.seats.iter();
        seats.any(|seats| seats.place == place && seats.has_line(self.limits))
    }

    /// Whether the address is one of those that get requests.
    pub fn has(&self, place: Place) -> bool {
        let mut seats = self.seats.iter();
        seats.any(|seats| seats.place == place && !seats.removed)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.again.len() + self.queue.len()
    }

    /// Requests that run.
    pub fn running(&self) -> usize {
        self.seats.iter().map(Seats::begun).sum()
    }

    /// Requests that were sent to an address and have not begun there.
    pub fn ahead(&self) -> usize {
        self.seats.iter().map(|seats| seats.line.ahead()).sum()
    }

    /// How many addresses there are, and how many of them are not left alone.
    pub fn addresses(&self) -> (usize, usize) {
        let listed = || self.seats.iter().filter(|seats| !seats.removed);
        let available = listed().filter(|seats| seats.health.is_up() && seats.closed_until == 0);
        (listed().count(), available.count())
    }

    /// A request has arrived.
    pub fn arrive(&mut self, facts: Facts, now: Instant) -> Arrival {
        let Facts { ticket, ahead } = facts;
        let request = Waiting {
            ticket,
            ahead,
            since: now,
            until: after(now, self.limits.queue_timeout),
            not: None,
        };
        if self.waiting() == 0
            && let Some(place) = self.choose(&request, now)
        {
            self.enter(place, request, now);
            return Arrival::Run(place);
        }
        if self.is_refusing() {
            return Arrival::Refused;
        }
        let others = self.common.as_ref().map_or(0, Common::others);
        if self.queue.len().saturating_add(others) >= self.limits.queue_length {
            return Arrival::Full;
        }
        self.queue.push_back(request);
        self.begins_to_wait(now)
    }

    /// A request waits. Where it is the only one, there is another look for room now that others know of it.
    fn begins_to_wait(&mut self, now: Instant) -> Arrival {
        self.tell();
        match self.common.is_some() && self.waiting() == 1 {
            true => self
                .next(now)
                .map_or(Arrival::Wait, |(_, place)| Arrival::Run(place)),
            false => Arrival::Wait,
        }
    }

    /// Tells other workers of the front what waits.
    fn tell(&mut self) {
        let number = self.waiting();
        if let Some(common) = &mut self.common {
            let first =
                |queue: &VecDeque<Waiting>| queue.front().map_or(NEVER, |first| first.since);
            common.tell(number, first(&self.again).min(first(&self.queue)));
        }
    }

    /// A request that has failed at an address is sent again: to another one, if there is one.
    pub fn again(&mut self, ticket: Ticket, not: Place, now: Instant) -> Arrival {
        let request = Waiting {
            ticket,
            ahead: false,
            since: now,
            until: after(now, self.limits.queue_timeout),
            not: Some(not),
        };
        if self.again.is_empty()
            && let Some(place) = self.choose(&request, now)
        {
            self.enter(place, request, now);
            return Arrival::Run(place);
        }
        if self.is_refusing() {
            return Arrival::Refused;
        }
        self.again.push_back(request);
        self.begins_to_wait(now)
    }

    /// A request that ran there is over, or is sent again. Ask [`Dispatch::next`] then.
    pub fn ended(
        &mut self,
        ticket: Ticket,
        place: Place,
        outcome: Outcome,
        now: Instant,
    ) -> Change {
        let policy = &self.limits.health;
        let Some(at) = self.seats.iter().position(|seats| seats.place == place) else {
            return Change::Same;
        };
        let seats = &mut self.seats[at];
        seats.leave();
        self.common.iter_mut().for_each(Common::gave_back);
        let served = outcome == Outcome::Good;
        seats.line.ended(ticket, served, now);
        let change = match outcome {
            Outcome::Good if seats.health.good() => Change::Back,
            Outcome::Bad if seats.health.bad(policy, now) => Change::Away,
            Outcome::Unknown => {
                seats.health.unknown();
                Change::Same
            }
            _ => Change::Same,
        };
        match seats.removed {
            true => {
                if seats.running == 0 {
                    self.seats.swap_remove(at);
                }
                Change::Same
            }
            false => change,
        }
    }

    /// Nobody listens at an address of which the master tells when it is there no more. It gets nothing until then, whether another one
    /// is there or not.
    pub fn closed(&mut self, place: Place, until: Instant) {
        let seats = self.seats.iter_mut().find(|seats| seats.place == place);
        if let Some(seats) = seats {
            seats.closed_until = until;
        }
    }

    /// The address is not one of those that get requests any more.
    pub fn remove(&mut self, place: Place) {
        let seats = self.seats.iter_mut().find(|seats| seats.place == place);
        if let Some(seats) = seats {
            seats.removed = true;
        }
        self.seats
            .retain(|seats| !seats.removed || seats.running > 0);
    }

    /// Whether an address may be tried again that was closed, or one may have room of which nobody has told. Ask [`Dispatch::next`] then.
    pub fn opened(&mut self, now: Instant) -> bool {
        let looks = |common: &mut Common| common.looks(now);
        let mut opened = self.common.as_mut().is_some_and(looks);
        for seats in &mut self.seats {
            if seats.closed_until > 0 && seats.closed_until <= now {
                seats.closed_until = 0;
                opened = true;
            }
        }
        opened
    }

    /// The request that goes on next, and where, if one can.
    pub fn next(&mut self, now: Instant) -> Option<(Ticket, Place)> {
        let queue = match self.again.is_empty() {
            true => &self.queue,
            false => &self.again,
        };
        let first = *queue.front()?;
        let Some(place) = self.choose(&first, now) else {
            self.common
                .iter_mut()
                .for_each(|common| common.found_none(now));
            return None;
        };
        let first = self.again.pop_front().or_else(|| self.queue.pop_front())?;
        self.tell();
        // Others may have left more room to it than it takes.
        self.common.iter_mut().for_each(Common::gave_back);
        let ticket = first.ticket;
        self.enter(place, first, now);
        Some((ticket, place))
    }

    /// Whether it may be that other workers of the front are to be woken. Ask [`Dispatch::next`] and then [`Dispatch::wakes_others`].
    pub fn is_free(&self) -> bool {
        self.common.as_ref().is_some_and(Common::is_free)
    }

    /// Whether other workers of the front wait, and an address has room that none of the own requests wants.
    pub fn wakes_others(&mut self) -> bool {
        let is_told = self.common.as_mut().is_some_and(Common::takes_notice);
        let limits = self.limits;
        let has_room = |seats: &Seats| !seats.removed && seats.all() < seats.most(limits);
        is_told && self.seats.iter().any(has_room)
    }

    /// A request that has waited for too long, and waits no more.
    pub fn expired(&mut self, now: Instant) -> Option<Ticket> {
        let is_over = |queue: &VecDeque<Waiting>| {
            let first = queue.front();
            first.is_some_and(|first| first.until <= now)
        };
        let first = match is_over(&self.again) {
            true => self.again.pop_front(),
            false if is_over(&self.queue) => self.queue.pop_front(),
            false => None,
        }?;
        self.tell();
        Some(first.ticket)
    }

    /// When the next one has waited for too long, or may go on.
    pub fn deadline(&self) -> Instant {
        let stuck = self.seats.iter().map(|seats| self.look(seats)).min();
        let stuck = stuck.unwrap_or(NEVER);
        if self.waiting() == 0 {
            return stuck;
        }
        let first = |queue: &VecDeque<Waiting>| queue.front().map_or(NEVER, |first| first.until);
        let closed = self.seats.iter().map(|seats| seats.closed_until);
        let closed = closed.filter(|until| *until > 0).min();
        let open = closed.unwrap_or(NEVER);
        let look = self.common.as_ref().map_or(NEVER, Common::look);
        first(&self.again)
            .min(first(&self.queue))
            .min(open)
            .min(stuck)
            .min(look)
    }

    /// When to look whether the requests at an address are stuck. Without another address they have nowhere else to go, and a new connection for
    /// each would only cost time.
    fn look(&self, seats: &Seats) -> Instant {
        let look = seats.line.deadline();
        match self.seats.len() {
            1 if seats.line.ahead() == 0 => NEVER,
            1 => look.saturating_add(PATIENCE_ALONE - PATIENCE),
            _ => look,
        }
    }

    /// An address whose first request takes long, and all requests there. Tell [`Dispatch::unread`] which of them it has not begun.
    pub fn stuck(&mut self, now: Instant) -> Option<(Place, Vec<Ticket>)> {
        let mut seats = self.seats.iter();
        let seats = seats.find(|seats| self.look(seats) <= now)?;
        Some((seats.place, seats.line.tickets()))
    }

    /// Which requests should be taken back from an address that has not begun these, of all that are there: all that wait behind another. If
    /// it has begun none, it serves somebody else's: then the first as well, if another address would serve it now.
    pub fn unread(&mut self, place: Place, unread: &[Ticket], now: Instant) -> Vec<Ticket> {
        let another = self.is_idle(place, now);
        let seats = self.seats.iter_mut().find(|seats| seats.place == place);
        let Some(seats) = seats else {
            return Vec::new();
        };
        let all = seats.line.tickets().len();
        let is_occupied = unread.len() == all;
        // One that it has begun stays; the first of those behind it will begin anew.
        let look = match is_occupied {
            true => now + PATIENCE,
            false => NEVER,
        };
        seats.line.look_at(look);
        match is_occupied {
            true if another => {
                seats.closed_until = now + OCCUPIED;
                unread.to_vec()
            }
            true => unread.get(1..).unwrap_or_default().to_vec(),
            false => unread.to_vec(),
        }
    }

    /// A request was taken back before it had begun there; it waits, before all that have come after it. Ask [`Dispatch::next`] then. Take
    /// those of one address back in the reverse order.
    pub fn taken_back(&mut self, ticket: Ticket, place: Place) {
        let mut seats = self.seats.iter_mut();
        let Some(at) = seats.position(|seats| seats.place == place) else {
            return;
        };
        let seats = &mut self.seats[at];
        let Some(request) = seats.line.take(ticket) else {
            return;
        };
        seats.leave();
        seats.health.unknown();
        if seats.removed && seats.running == 0 {
            self.seats.swap_remove(at);
        }
        self.queue.push_front(request);
        self.common.iter_mut().for_each(Common::gave_back);
        self.tell();
    }

    /// Whether another address than this one would begin a request now.
    fn is_idle(&self, other_than: Place, now: Instant) -> bool {
        self.seats.iter().any(|seats| {
            seats.place != other_than
                && !seats.removed
                && seats.health.is_available(now)
                && seats.closed_until <= now
                && seats.all() < seats.most(self.limits)
        })
    }

    /// A request is sent there.
    fn enter(&mut self, place: Place, request: Waiting, now: Instant) {
        let mut seats = self.seats.iter_mut();
        let limits = self.limits;
        if let Some(seats) = seats.find(|seats| seats.place == place && seats.has_line(limits)) {
            seats.line.push(request, now);
        }
    }

    /// A client does not want its answer any more; whether its request waited.
    pub fn left(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting();
        self.again.retain(|waiting| waiting.ticket != ticket);
        self.queue.retain(|waiting| waiting.ticket != ticket);
        self.tell();
        self.waiting() < before
    }

    /// Takes the address with the fewest running, for all workers of the front together, and of those the one that was chosen longest ago.
    /// One that is left alone gets nothing as long as another is not: where all are, they are tried all the same, as none is better than
    /// another. One that may be sent ahead gets an address that is busy, if none is idle.
    fn choose(&mut self, request: &Waiting, now: Instant) -> Option<Place> {
        let Waiting {
            since, ahead, not, ..
        } = *request;
        let is_anothers = |common: &mut Common| common.is_anothers_turn(since, ahead, now);
        if self.common.as_mut().is_some_and(is_anothers) {
            return None;
        }
        // What another worker of the front takes meanwhile is not idle any more.
        for _ in 0..=self.seats.len() {
            let (at, is_idle) = self.best(not, ahead, now)?;
            let seats = &mut self.seats[at];
            let claim = match is_idle {
                true => seats.claim(self.limits),
                false => {
                    seats.enter();
                    Claim::Taken
                }
            };
            if claim == Claim::Contended {
                // Another one may have seen no room because of that.
                self.common.iter_mut().for_each(Common::gave_back);
            }
            if claim == Claim::Taken {
                self.choices += 1;
                let seats = &mut self.seats[at];
                seats.chosen = self.choices;
                seats.health.begin(now);
                return Some(seats.place);
            }
        }
        None
    }

    /// The number of that address among the seats, and whether it is idle.
    fn best(&self, not: Option<Place>, ahead: bool, now: Instant) -> Option<(usize, bool)> {
        let listed = || self.seats.iter().filter(|seats| !seats.removed);
        let others = listed().any(|seats| Some(seats.place) != not);
        let not = not.filter(|_| others);
        let some_available =
            listed().any(|seats| Some(seats.place) != not && seats.health.is_available(now));
        let limits = self.limits;
        let candidates = self
            .seats
            .iter()
            .enumerate()
            .filter(|(_, seats)| !seats.removed && Some(seats.place) != not)
            .filter(|(_, seats)| !some_available || seats.health.is_available(now))
            .filter(|(_, seats)| seats.closed_until <= now);
        // What was sent ahead counts, so that an idle one comes first.
        let with_room = candidates.filter_map(|(at, seats)| {
            let all = seats.all();
            let is_idle = all < seats.most(limits);
            let may_wait = ahead && seats.has_line(limits);
            let has_room = is_idle || may_wait && seats.line.has_room(now);
            has_room.then_some(((all, seats.chosen), (at, is_idle)))
        });
        let first = with_room.min_by_key(|(order, _)| *order);
        first.map(|(_, found)| found)
    }
}

#[cfg(test)]
mod tests;
