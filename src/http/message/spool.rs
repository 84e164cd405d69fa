//! Holds the part of a response that the client has not accepted yet: in memory up to one limit, then in a file up to
//! another. A third limit is for all responses of the worker. Bytes come out in the order in which they went in.

use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::limits::Limits;
use crate::message::budget::{Budget, Share};
use crate::message::temporary;
use crate::net::descriptors::Own;

/// Where the next bytes can be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Memory,
    File,
    /// Nowhere, until the client has taken some.
    None,
}

/// What comes out next.
pub(crate) enum Next {
    /// The bytes were moved to where the caller said.
    Memory,
    /// These bytes of the file; to be followed by [`Spool::taken`].
    File(Arc<Own<File>>, u64, u64),
    Nothing,
}

/// A reserved place in the file.
pub(crate) struct Place {
    file: Arc<Own<File>>,
    capacity: u64,
    at: u64,
}

impl Place {
    /// Writes `data`; may block.
    pub fn write(&self, data: &[u8]) -> io::Result<()> {
        let to_end = usize::try_from(self.capacity - self.at).unwrap_or(usize::MAX);
        let (first, second) = data.split_at(to_end.min(data.len()));
        self.file.write_all_at(first, self.at)?;
        self.file.write_all_at(second, 0)
    }
}

/// Bytes of one response that wait for its client.
#[derive(Debug)]
pub(crate) struct Spool {
    in_memory: usize,
    in_file: u64,
    budget: Arc<Budget>,
    memory: Vec<u8>,
    /// Bytes that were taken out and are not written to the client.
    outside: usize,
    /// A ring of `in_file` bytes.
    file: Option<Arc<Own<File>>>,
    /// Bytes that went through the file, in and out.
    put: u64,
    taken: u64,
    /// Up to where the file was used, and so what it takes of the disk.
    extent: u64,
    /// The reserved place in the file is being written.
    writing: bool,
    /// Why the file could not be written. As soon as it is empty, one in memory takes its place.
    spoilt: Option<io::Error>,
    /// It has taken its place.
    in_memory_now: bool,
    /// Not even that one can be used.
    no_file: bool,
    /// The end of the response, which follows everything else and needs no room.
    last: Vec<u8>,
    share: Share,
}

impl Spool {
    pub fn new(limits: &Limits, budget: Arc<Budget>) -> Self {
        Self {
            in_memory: limits.response_in_memory,
            in_file: limits.response_in_file,
            budget,
            memory: Vec::new(),
            outside: 0,
            file: None,
            put: 0,
            taken: 0,
            extent: 0,
            writing: false,
            spoilt: None,
            in_memory_now: false,
            no_file: false,
            last: Vec::new(),
            share: Share::default(),
        }
    }

    /// Where `length` more bytes can be put. If nothing is held, there is always room in memory, so that a response makes progress
    /// however much is held for others.
    pub fn room(&self, length: usize) -> Room {
        let length_64 = length as u64;
        let file_empty = self.put == self.taken && !self.writing;
        if !self.last.is_empty() {
            return Room::None;
        }
        if length == 0 || (file_empty && self.memory.is_empty() && self.outside == 0) {
            return Room::Memory;
        }
        if !self.budget.allows(length_64) {
            return Room::None;
        }
        if file_empty && self.memory.len() + self.outside + length <= self.in_memory {
            return Room::Memory;
        }
        let is_usable = !self.no_file && !self.writing && (self.spoilt.is_none() || file_empty);
        match is_usable && self.put - self.taken + length_64 <= self.in_file {
            true => Room::File,
            false => Room::None,
        }
    }

    /// Puts `data` into memory, and leaves an empty buffer in its place.
    pub fn remember(&mut self, data: &mut Vec<u8>) {
        if self.memory.is_empty() {
            mem::swap(&mut self.memory, data);
        } else {
            self.memory.extend_from_slice(data);
        }
        data.clear();
        self.charge();
    }

    /// Reserves a place in the file; [`Spool::written`] must follow. None if no file can be created, not even in memory,
    /// which is not tried again.
    pub fn place(&mut self) -> Option<Place> {
        let file = match (&self.file, self.spoilt.take()) {
            (Some(file), None) => file.clone(),
            (_, spoilt) => {
                let created = match &spoilt {
                    Some(reason) => temporary::in_memory(&self.budget, reason),
                    None => temporary::create(&self.budget),
                };
                self.in_memory_now = spoilt.is_some();
                self.no_file = created.is_err();
                let file = Arc::new(created.ok()?.into());
                self.file.insert(file).clone()
            }
        };
        self.writing = true;
        Some(Place {
            file,
            capacity: self.in_file,
            at: self.put % self.in_file,
        })
    }

    /// Takes the result of writing `length` bytes to the reserved place; returns whether they are held now.
    pub fn written(&mut self, length: usize, result: io::Result<()>) -> bool {
        self.writing = false;
        if let Err(error) = result {
            self.no_file = self.in_memory_now;
            self.spoilt = Some(error);
            return false;
        }
        self.put += length as u64;
        self.extent = self.extent.max(self.put.min(self.in_file));
        self.charge();
        true
    }

    /// Takes what comes after everything else, whether there is room for it or not.
    pub fn finish(&mut self, last: Vec<u8>) {
        match self.last.is_empty() {
            true => self.last = last,
            false => self.last.extend_from_slice(&last),
        }
    }

    /// Bytes that wait.
    pub fn held(&self) -> usize {
        let in_file = usize::try_from(self.put - self.taken).unwrap_or(usize::MAX);
        in_file.saturating_add(self.memory.len() + self.outside + self.last.len())
    }

    /// Takes out what comes next; bytes from memory go to `out`, which is empty.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Next {
        if !self.memory.is_empty() {
            mem::swap(&mut self.memory, out);
            self.memory.clear();
            self.outside = out.len();
            return Next::Memory;
        }
        if self.put > self.taken
            && let Some(file) = &self.file
        {
            let at = self.taken % self.in_file;
            let length = (self.put - self.taken).min(self.in_file - at);
            return Next::File(file.clone(), at, length);
        }
        if self.last.is_empty() || self.writing {
            return Next::Nothing;
        }
        mem::swap(&mut self.last, out);
        Next::Memory
    }

    /// So many bytes of the file were written to the client.
    pub fn taken(&mut self, length: u64) {
        self.taken += length;
        if self.taken == self.put && !self.writing {
            (self.put, self.taken, self.extent) = (0, 0, 0);
            // The disk is given back. Should that fail, the space is used again.
            if let Some(file) = &self.file {
                let _ = file.set_len(0);
            }
        }
        self.charge();
    }

    /// So many bytes that were taken out of memory are not written to the client yet.
    pub fn outside(&mut self, length: usize) {
        self.outside = length;
        self.charge();
    }

    pub fn has_data(&self) -> bool {
        !self.memory.is_empty() || self.put > self.taken || !self.last.is_empty()
    }

    fn charge(&mut self) {
        let charge = (self.memory.len() + self.outside) as u64 + self.extent;
        self.share.set(&self.budget, charge);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn spool(in_memory: usize, in_file: u64, most: u64) -> (Spool, Arc<Budget>) {
        let budget = Arc::new(Budget::new(most));
        let limits = Limits {
            response_in_memory: in_memory,
            response_in_file: in_file,
            ..Limits::default()
        };
        (Spool::new(&limits, budget.clone()), budget)
    }

    /// Puts `data` where there is room.
    fn put(spool: &mut Spool, data: &[u8]) -> Room {
        let room = spool.room(data.len());
        match room {
            Room::Memory => spool.remember(&mut data.to_vec()),
            Room::File => {
                let place = spool.place().unwrap();
                let result = place.write(data);
                assert!(spool.written(data.len(), result));
            }
            Room::None => {}
        }
        room
    }

    /// Takes up to `most` bytes out.
    fn take(spool: &mut Spool, most: usize, seen: &mut VecDeque<u8>) {
        let mut out = Vec::new();
        match spool.next(&mut out) {
            Next::Memory => {
                seen.extend(&out);
                spool.outside(0);
            }
            Next::File(file, at, length) => {
                let mut data = vec![0; most.min(usize::try_from(length).unwrap())];
                file.read_exact_at(&mut data, at).unwrap();
                seen.extend(&data);
                spool.taken(data.len() as u64);
            }
            Next::Nothing => {}
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in_wherever_they_were() {
        let mut random = 12345u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        let (mut spool, budget) = spool(50, 100, 10_000);
        let (mut sent, mut seen) = (VecDeque::<u8>::new(), VecDeque::<u8>::new());
        let mut rooms = [0; 3];
        for round in 0..20_000u32 {
            if next(3) > 0 {
                let data: Vec<u8> = (0..=next(30)).map(|i| (round + i) as u8).collect();
                let room = put(&mut spool, &data);
                rooms[room as usize] += 1;
                if room != Room::None {
                    sent.extend(&data);
                }
            } else {
                take(&mut spool, 1 + next(60) as usize, &mut seen);
            }
            while let (Some(a), Some(b)) = (sent.front(), seen.front()) {
                assert_eq!(a, b, "round {round}");
                sent.pop_front();
                seen.pop_front();
            }
            assert!(sent.len() <= 150);
        }
        assert!(rooms.iter().all(|&n| n > 100), "{rooms:?}");
        while spool.has_data() {
            take(&mut spool, 60, &mut seen);
        }
        assert!(sent.iter().eq(seen.iter()));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn all_responses_together_have_a_limit_and_each_can_go_on() {
        let (mut one, budget) = spool(100, 1000, 150);
        let limits = Limits {
            response_in_memory: 100,
            response_in_file: 1000,
            ..Limits::default()
        };
        let mut other = Spool::new(&limits, budget);
        assert_eq!(put(&mut one, &[1; 100]), Room::Memory);
        assert_eq!(put(&mut other, &[2; 50]), Room::Memory);
        assert_eq!(put(&mut other, &[2; 1]), Room::None);
        take(&mut other, 50, &mut VecDeque::new());
        assert_eq!(put(&mut other, &[2; 70]), Room::Memory, "nothing is held");
        assert_eq!(put(&mut other, &[2; 1]), Room::None);
        drop(one);
        assert_eq!(put(&mut other, &[2; 10]), Room::Memory);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_replaced_by_one_in_memory_when_it_is_empty() {
        let (mut spool, budget) = spool(10, 1000, 10_000);
        let mut seen = VecDeque::new();
        assert_eq!(put(&mut spool, &[1; 10]), Room::Memory);
        assert_eq!(put(&mut spool, &[2; 5]), Room::File);
        let fail = |spool: &mut Spool| {
            assert_eq!(spool.room(10), Room::File);
            assert!(spool.place().is_some());
            assert!(!spool.written(10, Err(io::ErrorKind::StorageFull.into())));
        };
        fail(&mut spool);
        assert_eq!(spool.room(10), Room::None, "the file is not tried again");
        take(&mut spool, 10, &mut seen);
        assert_eq!(spool.room(10), Room::None, "it still holds something");
        take(&mut spool, 5, &mut seen);
        assert_eq!(put(&mut spool, &[3; 10]), Room::Memory);
        assert!(!budget.has_warned());
        for _ in 0..2 {
            assert_eq!(put(&mut spool, &[4; 10]), Room::File);
        }
        assert!(budget.has_warned());
        fail(&mut spool);
        while spool.has_data() {
            take(&mut spool, 10, &mut seen);
        }
        assert_eq!(put(&mut spool, &[5; 10]), Room::Memory);
        assert_eq!(spool.room(10), Room::None, "there is no other one");
        take(&mut spool, 10, &mut seen);
        let expected = [&[1; 10][..], &[2; 5], &[3; 10], &[4; 20], &[5; 10]].concat();
        assert_eq!(seen, expected);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_finds_no_room_and_must_be_held_follows_everything() {
        let (mut spool, _) = spool(4, 4, 10_000);
        for data in [b"abcd", b"efgh"] {
            put(&mut spool, data);
        }
        spool.finish(b"ij".to_vec());
        spool.finish(b"kl".to_vec());
        assert_eq!(spool.held(), 12);
        let mut seen = VecDeque::new();
        take(&mut spool, 4, &mut seen);
        take(&mut spool, 4, &mut seen);
        assert_eq!(
            spool.room(1),
            Room::None,
            "it would come before what is held"
        );
        while spool.has_data() {
            take(&mut spool, 4, &mut seen);
        }
        assert_eq!(seen, b"abcdefghijkl");
        assert_eq!(put(&mut spool, b"mnop"), Room::Memory);
    }

    #[test]
    fn the_end_follows_everything_whether_there_is_room_or_not() {
        let (mut spool, _) = spool(4, 4, 10_000);
        for data in [b"abcd", b"efgh"] {
            put(&mut spool, data);
        }
        assert_eq!(spool.room(1), Room::None);
        spool.finish(b"end".to_vec());
        let mut seen = VecDeque::new();
        while spool.has_data() {
            take(&mut spool, 3, &mut seen);
        }
        assert_eq!(seen, b"abcdefghend");
    }
}
