//! Reads the census and the scoreboards, and adds them up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use preforkd_worker::census::{self, Census, Phase, Stage};
use preforkd_worker::counters::{self, offset};
use preforkd_worker::gauges::WORKER_WORDS;
use preforkd_worker::metrics::orders::{self, Orders};
use preforkd_worker::metrics::processes;
use preforkd_worker::metrics::sites::{Front, Memory, Worker};
use preforkd_worker::metrics::{App, Metrics, Sums};
use preforkd_worker::scoreboard::{COUNTERS, RECORD_BYTES, Snapshot};
use rustix::time::{ClockId, clock_gettime};

use super::queues;

/// For how long the reading is repeated while workers come and go. What is read then may lack the last moments of a worker, and is
/// corrected by what was shown before.
const MOST: Duration = Duration::from_millis(500);
/// Until the master has made its change.
const PAUSE: Duration = Duration::from_millis(1);
/// No request has begun before this.
const AGE: Duration = Duration::from_secs(366 * 24 * 3600);

/// What reads.
pub(super) struct Gatherer {
    orders: Orders,
    census: Census,
    boards: Vec<File>,
    /// The sums of each app as they were shown last.
    shown: Vec<Sums>,
}

/// Whether requests should be sent to this machine.
pub(super) enum Verdict {
    Ready,
    /// Why not.
    Not(String),
}

impl Gatherer {
    pub(super) fn new(orders: Orders, census: File, boards: Vec<File>) -> Self {
        let shown = vec![Sums::default(); orders.apps.len()];
        Self {
            orders,
            census: Census::new(census),
            boards,
            shown,
        }
    }

    /// Whether the master can run.
    pub(super) fn lives(&self) -> bool {
        // A master that has ended has told this process to end.
        let state = processes::state(self.orders.master);
        !matches!(state, Some('T' | 't' | 'Z'))
    }

    /// By the phase of the master, and the apps that are required.
    pub(super) fn verdict(&self) -> io::Result<Verdict> {
        let head = self.census.head()?;
        if !matches!(head.phase, Phase::Ready | Phase::Reloading) {
            return Ok(Verdict::Not(head.phase.name().into()));
        }
        let mut lacking = Vec::new();
        for app in &self.orders.apps {
            if self.census.app(app.number)?.is_lacking {
                lacking.push(&*app.name);
            }
        }
        Ok(match lacking.is_empty() {
            true => Verdict::Ready,
            false => Verdict::Not(format!("no worker serves: {}", lacking.join(", "))),
        })
    }

    /// Everything.
    pub(super) fn metrics(&mut self) -> io::Result<Metrics> {
        let until = Instant::now() + MOST;
        let mut metrics = loop {
            let before = self.census.version()?;
            if before % 2 == 0 {
                let (metrics, whole) = self.read()?;
                let same = self.census.version()? == before;
                if whole && same || Instant::now() >= until {
                    break metrics;
                }
            }
            std::thread::sleep(PAUSE);
        };
        for (app, shown) in metrics.apps.iter_mut().zip(&mut self.shown) {
            app.sums.keep_up_with(shown);
            shown.clone_from(&app.sums);
        }
        let waiting = queues::waiting();
        for (app, ordered) in metrics.apps.iter_mut().zip(&self.orders.apps) {
            let queues = ordered
                .listeners
                .iter()
                .filter_map(|address| waiting.get(address));
            app.queue = queues.copied().reduce(u64::saturating_add);
        }
        metrics.is_ready = matches!(self.verdict()?, Verdict::Ready);
        Ok(metrics)
    }

    /// What is there now, and whether no process of it was missing.
    fn read(&self) -> io::Result<(Metrics, bool)> {
        let mut metrics = Metrics::new(&self.orders.version, self.census.head()?);
        let mut whole = true;
        for (ordered, board) in self.orders.apps.iter().zip(&self.boards) {
            let (app, front, of_processes) = self.app(ordered, board)?;
            whole &= of_processes;
            metrics.apps.push(app);
            metrics.front = metrics.front.or(front);
        }
        Ok((metrics, whole))
    }

    fn app(&self, ordered: &orders::App, board: &File) -> io::Result<(App, Option<Front>, bool)> {
        let known = self.census.app(ordered.number)?;
        let mut app = App {
            name: ordered.name.clone(),
            generation: known.generation,
            wanted: known.wanted,
            sums: known.past,
            ..App::default()
        };
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
        let mut workers = Vec::new();
        for (record, worker) in self.census.workers(ordered.number, known.unused)? {
            let mut bytes = [0; RECORD_BYTES];
            board.read_exact_at(&mut bytes, u64::from(record) * RECORD_BYTES as u64)?;
            let seen = Snapshot::decode(&bytes, now, AGE).filter(|seen| seen.pid != 0);
            app.add(worker.pid, worker.stage, seen.as_ref());
            workers.push(Worker {
                pid: worker.pid,
                record,
                leaves: worker.stage == Stage::Leaving,
            });
        }
        let whole = app.add_processes();
        let front = (!ordered.sites.is_empty())
            .then(|| Front::read(&Board(board), &ordered.sites, &workers, app.connections));
        Ok((app, front, whole))
    }
}

/// The scoreboard of the front.
struct Board<'a>(&'a File);

impl Memory for Board<'_> {
    fn counters(&self, keys: &[u64]) -> Vec<Vec<u64>> {
        let words = |start: u64, number: usize| {
            census::read(self.0, COUNTERS + start, number).unwrap_or_default()
        };
        let table = words(0, counters::BLOCKS);
        let block = |key: &u64| {
            let number = counters::find(&table, *key)?;
            Some(words(offset::block(number), counters::BLOCK_WORDS))
        };
        keys.iter()
            .map(|key| block(key).unwrap_or_default())
            .collect()
    }

    fn gauges(&self, record: u32) -> Vec<u64> {
        let words = offset::gauges(record)
            .and_then(|start| census::read(self.0, COUNTERS + start, WORKER_WORDS).ok());
        words.unwrap_or_default()
    }
}
