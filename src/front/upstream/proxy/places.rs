//! Things by numbers.

use super::super::connection::Connection;
use super::super::dispatch::Ticket;

/// Things by the tickets of the server, whose lower halves are small numbers that no two have at a time.
#[derive(Debug)]
pub(super) struct Places<T>(Vec<Option<(Ticket, T)>>);

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Places<T> {
    pub fn insert(&mut self, ticket: Ticket, value: T) {
        let at = ticket as u32 as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some((ticket, value));
    }

    pub fn get(&mut self, ticket: Ticket) -> Option<&mut T> {
        match self.0.get_mut(ticket as u32 as usize) {
            Some(Some((other, value))) if *other == ticket => Some(value),
            _ => None,
        }
    }

    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.get(ticket)?;
        let place = self.0.get_mut(ticket as u32 as usize)?;
        place.take().map(|(_, value)| value)
    }
}

/// Connections by the numbers under which they are watched. One that has ended leaves its number only in the next turn, when all events
/// that were meant for it have been seen.
#[derive(Debug, Default)]
pub(super) struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<u32>,
    left: Vec<u32>,
}

impl Connections {
    pub fn insert(&mut self, connection: Connection) -> u32 {
        let token = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        self.places[token as usize] = Some(connection);
        token
    }

    pub fn get(&mut self, token: u32) -> Option<&mut Connection> {
        self.places.get_mut(token as usize)?.as_mut()
    }

    /// Closes it, when what is given back is dropped.
    pub fn remove(&mut self, token: u32) -> Option<Connection> {
        let connection = self.places.get_mut(token as usize)?.take()?;
        self.left.push(token);
        Some(connection)
    }

    /// A turn is over.
    pub fn free(&mut self) {
        self.free.append(&mut self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_finds_only_its_own() {
        let mut places = Places::default();
        let (old, new) = (7, 1 << 32 | 7);
        places.insert(old, 'a');
        assert_eq!(places.get(new), None);
        assert_eq!(places.remove(new), None);
        assert_eq!(places.remove(old), Some('a'));
        places.insert(new, 'b');
        assert_eq!(places.get(old), None);
        assert_eq!(places.get(new), Some(&mut 'b'));
    }
}
