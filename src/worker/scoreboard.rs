//! The scoreboard: shared memory in which each worker notes what it does.
//!
//! Each app has a memfd of its own, of a sealed size, with one record of [`RECORD_BYTES`] per worker. A worker writes only its own
//! record, with plain stores, as its only writer. The master reads records with pread(2): it needs no mapping, and a torn value
//! is at worst one request old. It does not trust what it reads: [`Snapshot::decode`].
//!
//! | words | contents |
//! |---|---|
//! | 0 | process id |
//! | 1 | state, see [`State`] |
//! | 2 | requests answered |
//! | 3 | responses with status 500 to 599 among them |
//! | 4 | bytes written to clients |
//! | 5 | open connections |
//! | 6 | start of the oldest running request, CLOCK_MONOTONIC in nanoseconds; 0 if none runs |
//! | 7 | threads that run a request |
//! | 8 | length of the request line in bytes |
//! | 9..29 | method and path of the oldest running request, truncated, 8 bytes a word in memory order |
//! | 29..53 | latency: requests that took less than 2^i microseconds (and not less than 2^(i-1)) |
//! | 53 | the master's mark: a worker that begins a request and finds a value other than 0 sets it to 0 and sends `BUSY=1` |
//! | 54 | set by the master before it stops the worker: not 0 if others take the connections in the accept queues |
//! | 55..61 | answered requests by the class of their status, see [`CLASSES`] |
//! | 61 | the time that all answered requests took together, in microseconds |
//! | 62..64 | reserved, 0 |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::counters::CLASSES;
use crate::settings::{MAX_CONNECTIONS, MAX_THREADS};
use crate::{connections, counters, purges, running};

/// Size of a record in bytes; a multiple of the cache line, so that workers do not share lines.
pub const RECORD_BYTES: usize = 512;
/// Records per app: enough for 10,000 workers, the number up to which the master is measured, and those of the previous
/// generation that still drain. The memory is sparse, so unused records take no memory; the total size is 19 MiB.
pub const RECORDS: u32 = 16_384;
/// Bytes behind the records that the workers of an app share as they like; the master neither reads nor writes them.
pub const SHARED_BYTES: usize = 1 << 20;
/// Where the counters begin that the front keeps, behind the shared bytes.
pub const COUNTERS: u64 = RECORDS as u64 * RECORD_BYTES as u64 + SHARED_BYTES as u64;
/// Where the open connections of clients are counted, behind the counters.
pub const CONNECTIONS_BY_CLIENT: u64 = COUNTERS + counters::BYTES as u64;
/// Where the numbers begin of what was purged from the cache of the front.
pub const PURGES: u64 = CONNECTIONS_BY_CLIENT + connections::WORDS as u64 * 8;
/// Where running requests are counted, behind that.
pub const RUNNING: u64 = PURGES + purges::BYTES as u64;
/// The size of the memory.
pub const MEMORY_BYTES: u64 = RUNNING + running::WORDS as u64 * 8;
/// Size of a record in words.
pub const RECORD_WORDS: usize = RECORD_BYTES / 8;
/// Space for method and path in a record, in bytes.
pub const LINE_BYTES: usize = 160;
/// Number of latency buckets. The last one counts everything longer (4.2 s and more).
pub const LATENCY_BUCKETS: usize = 24;

/// Offset of the process id in words.
pub const PID: usize = 0;
/// Offset of the state in words.
pub const STATE: usize = 1;
/// Offset of the number of requests in words.
pub const REQUESTS: usize = 2;
/// Offset of the number of errors in words.
pub const ERRORS: usize = 3;
/// Offset of the number of bytes sent in words.
pub const BYTES_OUT: usize = 4;
/// Offset of the number of open connections in words.
pub const CONNECTIONS: usize = 5;
/// Offset of the start of the oldest running request in words.
pub const BUSY_SINCE: usize = 6;
/// Offset of the number of busy threads in words.
pub const THREADS_BUSY: usize = 7;
/// Offset of the request line's length in words.
pub const LINE_LENGTH: usize = 8;
/// Offset of the request line in words.
pub const LINE: usize = 9;
/// Offset of the latency buckets in words.
pub const LATENCY: usize = LINE + LINE_BYTES / 8;

/// Offset of the master's mark in words.
pub const MARK: usize = LATENCY + LATENCY_BUCKETS;

/// Offset of the succession word. The master writes only this and [`MARK`].
pub const SUCCEEDED: usize = MARK + 1;

/// Offset of the answered requests by class in words.
pub const RESPONSES: usize = SUCCEEDED + 1;
/// Offset of the time that they took in words.
pub const TIME: usize = RESPONSES + CLASSES;

const _: () = assert!(TIME < RECORD_WORDS);

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// An unused record.
    Free = 0,
    /// Loading the application.
    Starting = 1,
    /// Waiting for requests.
    Idle = 2,
    /// Running at least one request.
    Busy = 3,
    /// Accepting no more, finishing.
    Draining = 4,
}

impl State {
    fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Starting,
            2 => Self::Idle,
            3 => Self::Busy,
            4 => Self::Draining,
            _ => Self::Free,
        }
    }
}

/// A worker's own record, for writing. There must be only one writer.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    words: &'static [AtomicU64],
}

impl Record {
    /// A writer for the shared words of one record.
    ///
    /// # Panics
    /// If `words` is not [`RECORD_WORDS`] long.
    pub fn new(words: &'static [AtomicU64]) -> Self {
        assert_eq!(
            words.len(),
            RECORD_WORDS,
            "a scoreboard record has a fixed size"
        );
        Self { words }
    }

    /// Begins the record for process `pid`: all zero, state [`State::Starting`].
    pub fn begin(self, pid: u32) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
        self.store(PID, u64::from(pid));
        self.state(State::Starting);
    }

    /// Notes the state of the worker.
    pub fn state(self, state: State) {
        self.words[STATE].store(state as u64, Ordering::Release);
    }

    /// Notes the number of open connections.
    pub fn connections(self, number: usize) {
        self.store(CONNECTIONS, number as u64);
    }

    /// Adds bytes written to a client.
    pub fn sent(self, bytes: usize) {
        self.add(BYTES_OUT, bytes as u64);
    }

    /// Notes the oldest running request (`since` in CLOCK_MONOTONIC nanoseconds, never 0) and the number of threads that run one.
    pub fn busy(self, since: u64, threads: usize, method: &[u8], path: &[u8]) {
        self.line(method, path);
        self.store(THREADS_BUSY, threads as u64);
        self.words[BUSY_SINCE].store(since, Ordering::Release);
    }

    /// Whether the master wants to know that a request begins; clears the mark. Call it after [`Record::busy`]: the master
    /// sets its mark and then reads whether the worker is busy.
    pub fn is_marked(self) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        let marked = self.words[MARK].load(Ordering::Relaxed) != 0;
        if marked {
            self.store(MARK, 0);
        }
        marked
    }

    /// Sets the mark again, if the master could not be notified.
    pub fn keep_mark(self) {
        self.store(MARK, 1);
    }

    /// Whether others take the connections in the accept queues, now that this worker is to end.
    pub fn is_succeeded(self) -> bool {
        self.words[SUCCEEDED].load(Ordering::Acquire) != 0
    }

    /// Notes that the oldest running request counts as if it had begun at `since`.
    pub fn goes_on(self, since: u64) {
        self.words[BUSY_SINCE].store(since, Ordering::Release);
    }

    /// Notes the number of threads that run a request. The oldest request is the same as before.
    pub fn threads(self, number: usize) {
        self.store(THREADS_BUSY, number as u64);
    }

    /// Notes that no request runs.
    pub fn idle(self) {
        self.store(THREADS_BUSY, 0);
        self.words[BUSY_SINCE].store(0, Ordering::Release);
    }

    /// Counts an answered request.
    pub fn answered(self, status: u16, microseconds: u64) {
        self.add(REQUESTS, 1);
        if status >= 500 {
            self.add(ERRORS, 1);
        }
        self.add(LATENCY + bucket(microseconds), 1);
        self.add(RESPONSES + counters::class(status), 1);
        self.add(TIME, microseconds);
    }

    fn line(self, method: &[u8], path: &[u8]) {
        // Length 0 while the words change, so that a reader sees no line rather than a mixed one.
        self.store(LINE_LENGTH, 0);
        let mut bytes = [0; LINE_BYTES];
        let mut length = 0;
        for part in [method, b" ", path] {
            let n = part.len().min(LINE_BYTES - length);
            bytes[length..length + n].copy_from_slice(&part[..n]);
            length += n;
        }
        let (words, _) = bytes.as_chunks::<8>();
        for (i, word) in words.iter().take(length.div_ceil(8)).enumerate() {
            self.store(LINE + i, u64::from_ne_bytes(*word));
        }
        self.words[LINE_LENGTH].store(length as u64, Ordering::Release);
    }

    fn store(self, offset: usize, value: u64) {
        self.words[offset].store(value, Ordering::Relaxed);
    }

    // Load and store, not fetch_add: the only writer needs no atomic read-modify-write.
    fn add(self, offset: usize, value: u64) {
        let word = &self.words[offset];
        word.store(
            word.load(Ordering::Relaxed).wrapping_add(value),
            Ordering::Relaxed,
        );
    }
}

/// The latency bucket of a duration: bucket `i` holds durations below 2^i microseconds.
pub fn bucket(microseconds: u64) -> usize {
    ((u64::BITS - microseconds.leading_zeros()) as usize).min(LATENCY_BUCKETS - 1)
}

/// The maximum value of a counter, 281 trillion: the sum over all workers of an app cannot overflow.
pub const MAX_COUNT: u64 = 1 << 48;

/// A record as the master reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Process id of the worker, as it claims; 0 before it has begun.
    pub pid: u32,
    /// Its state.
    pub state: State,
    /// Requests answered.
    pub requests: u64,
    /// Responses with status 500 to 599 among them.
    pub errors: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
    /// Open connections.
    pub connections: u64,
    /// How long the oldest running request has been running.
    pub busy: Option<Duration>,
    /// Threads that run a request.
    pub threads_busy: u64,
    /// Method and path of the oldest running request (of the last one if idle), truncated at [`LINE_BYTES`].
    pub line: String,
    /// Requests by latency, see [`bucket`].
    pub latency: [u64; LATENCY_BUCKETS],
    /// Requests by the class of their status, see [`CLASSES`].
    pub responses: [u64; CLASSES],
    /// The time that all of them took together, in microseconds.
    pub time: u64,
}

impl Snapshot {
    /// Decodes a record, read at the time `now` of CLOCK_MONOTONIC, of a worker that was started `age` before. `None` if there are
    /// fewer than [`RECORD_BYTES`] bytes.
    ///
    /// The worker's user can write anything to the record, so any bytes decode to possible values:
    /// - a request began neither in the future nor before its worker;
    /// - threads and connections are at most [`MAX_THREADS`] and [`MAX_CONNECTIONS`];
    /// - counters are at most [`MAX_COUNT`];
    /// - the line has at most [`LINE_BYTES`] characters, all printable ASCII, because tables and log lines show it;
    /// - an unknown state is [`State::Free`].
    ///
    /// A worker can still lie about itself and about other workers of its app, and be taken for idle, busy or hanging. The process
    /// id is a claim too; use it only to see that there is one.
    pub fn decode(bytes: &[u8], now: Duration, age: Duration) -> Option<Self> {
        let (words, _) = bytes.get(..RECORD_BYTES)?.as_chunks::<8>();
        let word = |i: usize| u64::from_ne_bytes(words[i]);
        let counter = |i: usize| word(i).min(MAX_COUNT);
        let length = usize::try_from(word(LINE_LENGTH))
            .unwrap_or(usize::MAX)
            .min(LINE_BYTES);
        let line = &bytes[LINE * 8..LINE * 8 + length];
        let since = Some(word(BUSY_SINCE)).filter(|&since| since != 0);
        Some(Self {
            pid: u32::try_from(word(PID)).unwrap_or(0),
            state: State::from_word(word(STATE)),
            requests: counter(REQUESTS),
            errors: counter(ERRORS),
            bytes_out: counter(BYTES_OUT),
            connections: word(CONNECTIONS).min(MAX_CONNECTIONS.into()),
            busy: since.map(|since| now.saturating_sub(Duration::from_nanos(since)).min(age)),
            threads_busy: word(THREADS_BUSY).min(MAX_THREADS.into()),
            line: line
                .iter()
                .map(|&b| match b {
                    b' '..=b'~' => char::from(b),
                    _ => '?',
                })
                .collect(),
            latency: std::array::from_fn(|i| counter(LATENCY + i)),
            responses: std::array::from_fn(|i| counter(RESPONSES + i)),
            time: counter(TIME),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new(Box::leak(
            (0..RECORD_WORDS).map(|_| AtomicU64::new(7)).collect(),
        ))
    }

    fn snapshot(record: Record) -> Snapshot {
        let bytes: Vec<u8> = record
            .words
            .iter()
            .flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        Snapshot::decode(&bytes, Duration::from_nanos(100), Duration::from_nanos(50)).unwrap()
    }

    #[test]
    fn a_record_is_read_as_written() {
        let record = record();
        record.begin(4711);
        assert_eq!(
            (snapshot(record).pid, snapshot(record).state),
            (4711, State::Starting)
        );
        record.state(State::Busy);
        record.connections(3);
        record.sent(100);
        record.sent(1);
        record.busy(75, 2, b"GET", b"/admin/");
        record.answered(200, 3);
        record.answered(503, 100);
        let s = snapshot(record);
        assert_eq!(
            (s.state, s.connections, s.bytes_out, s.threads_busy),
            (State::Busy, 3, 101, 2)
        );
        assert_eq!(
            (s.busy, s.line.as_str()),
            (Some(Duration::from_nanos(25)), "GET /admin/")
        );
        assert_eq!(
            (s.requests, s.errors, s.latency[2], s.latency[7]),
            (2, 1, 1, 1)
        );
        record.idle();
        assert_eq!(snapshot(record).busy, None);
    }

    #[test]
    fn a_long_line_is_truncated_and_a_shorter_one_replaces_it_completely() {
        let record = record();
        record.busy(1, 1, b"GET", &[b'a'; 500]);
        assert_eq!(snapshot(record).line.len(), LINE_BYTES);
        record.busy(1, 1, b"GET", b"/\xffb");
        assert_eq!(snapshot(record).line, "GET /?b");
    }

    #[test]
    fn any_bytes_decode_to_possible_values() {
        let (now, age) = (Duration::from_secs(1000), Duration::from_secs(10));
        for byte in 0..=u8::MAX {
            let s = Snapshot::decode(&[byte; RECORD_BYTES], now, age).expect("a whole record");
            let ascii = s.line.chars().all(|c| (' '..='~').contains(&c));
            assert!(ascii && s.line.len() <= LINE_BYTES, "{}", s.line);
            assert!(s.busy.is_none_or(|busy| busy <= age));
            assert!(s.threads_busy <= MAX_THREADS.into());
            assert!(s.connections <= MAX_CONNECTIONS.into());
            let counters = [s.requests, s.errors, s.bytes_out];
            let counters = counters.iter().chain(&s.latency).chain(&s.responses);
            assert!(counters.chain([&s.time]).all(|&n| n <= MAX_COUNT));
        }
        assert!(Snapshot::decode(&[0xff; RECORD_BYTES - 1], now, age).is_none());
    }

    #[test]
    fn a_request_began_neither_in_the_future_nor_before_its_worker() {
        let (now, age) = (Duration::from_secs(1000), Duration::from_secs(10));
        for (since, busy) in [
            (995, 5),
            (990, 10),
            (989, 10),
            (1000, 0),
            (1001, 0),
            (1 << 32, 0),
        ] {
            let mut bytes = [0; RECORD_BYTES];
            let word = (since * 1_000_000_000_u64).to_ne_bytes();
            bytes[BUSY_SINCE * 8..][..8].copy_from_slice(&word);
            let s = Snapshot::decode(&bytes, now, age).expect("a whole record");
            assert_eq!(s.busy, Some(Duration::from_secs(busy)), "{since}");
        }
    }

    #[test]
    fn buckets_are_powers_of_two() {
        assert_eq!(
            [0, 1, 2, 3, 4, u64::MAX].map(bucket),
            [0, 1, 2, 2, 3, LATENCY_BUCKETS - 1]
        );
    }
}
