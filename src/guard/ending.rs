//! Ends what a dead master has left: the same promise as a stop.
//!
//! The kernel has told the leaders of sessions already, by the signal that they get when their parent dies. What a leader leaves gets
//! the signal when it has ended, and what is left when the time is over gets SIGKILL.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use preforkd_worker::env;

use super::handing::Handing;
use super::processes;
use super::table::{self, Identity, Record, Table};
use crate::effects::process::{self, Stat};
use crate::sys;

/// The shortest and the longest time between two looks.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(200);

/// The longest time for which a listener is kept that only processes have which are not known.
const MOST_FOR_OTHERS: Duration = Duration::from_secs(60);

/// How long processes may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);

/// A process that is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// The number of its record.
    record: usize,
    /// It was told.
    told: bool,
}

/// What is to end, and since when.
pub(super) struct Ending {
    table: Table,
    handing: Handing,
    master: Pid,
    began: Instant,
    /// With the numbers of their places in the table.
    records: Vec<(u32, Record)>,
    known: BTreeMap<Identity, Known>,
    /// Orphans that are not ours.
    strangers: BTreeSet<Identity>,
    /// Records whose processes were killed, which is said once.
    killed: BTreeSet<usize>,
    /// The process of which it was said last that it has a listener.
    holder: Option<Pid>,
}

impl Ending {
    /// The master has just died.
    pub(super) fn new(table: Table, master: Pid, handing: Handing) -> Self {
        let records = table.records();
        Self {
            table,
            handing,
            master,
            began: Instant::now(),
            records,
            known: BTreeMap::new(),
            strangers: BTreeSet::new(),
            killed: BTreeSet::new(),
            holder: None,
        }
    }

    /// Ends everything.
    pub(super) fn run(mut self) {
        let master = self.master;
        let mut is_first = true;
        self.open();
        loop {
            let now: HashMap<Pid, Stat> = process::all().collect();
            self.look(&now, is_first, getppid(), is_in_app);
            let passed = self.began.elapsed();
            let others = self.others(&now, passed);
            let known = self.known.keys().map(|known| known.pid);
            let holders = known.chain(others.iter().copied());
            self.handing.keep_held_by(holders, passed);
            self.say_left(&now);
            if std::mem::take(&mut is_first) {
                self.say_whose();
            }
            if self.known.is_empty() {
                let Some(holder) = self.handing.holder(&others) else {
                    info!("nothing is left of the preforkd with pid {master}");
                    return;
                };
                self.say_holder(holder, &now, passed);
                self.handing.wait(LONGEST);
                continue;
            }
            if passed >= self.longest() + DEATH {
                let number = processes(self.known.len());
                error!(
                    "{number} of the preforkd with pid {master} did not end after SIGKILL; giving up"
                );
                return;
            }
            self.act(&now, passed);
            let pause = (passed / 16).clamp(SHORTEST, LONGEST);
            self.handing.wait(pause);
        }
    }

    /// Lets the next master ask for the listeners, before it is told that this one has looked.
    fn open(&mut self) {
        let opened = self.handing.open();
        let said = opened.and_then(|name| name.map_or(Ok(()), |name| self.table.say_door(name)));
        if let Err(error) = said {
            warn!(
                "cannot hand the listeners to the next preforkd: {error}; it binds each of them when the last process has closed it"
            );
        }
    }

    /// How long a listener is kept for the next master that only a process has which is not known.
    fn most(&self) -> Duration {
        let times = self.records.iter().map(|(_, record)| record.grace);
        times.max().unwrap_or_default().min(MOST_FOR_OTHERS)
    }

    /// Those that have become orphans together with this one, and nothing shows that they are of an app: they may have left theirs on
    /// purpose, and are not told to end. The next master is started by the same init system.
    fn others(&self, now: &HashMap<Pid, Stat>, passed: Duration) -> Vec<Pid> {
        let parent = getppid();
        let is_one = |(pid, stat): &(&Pid, &Stat)| {
            stat.runs && stat.parent == parent && stat.name != b"preforkd" && **pid != Pid::this()
        };
        match passed < self.most() {
            true => now.iter().filter(is_one).map(|(pid, _)| *pid).collect(),
            false => Vec::new(),
        }
    }

    fn say_holder(&mut self, holder: Pid, now: &HashMap<Pid, Stat>, passed: Duration) {
        if self.holder.replace(holder) == Some(holder) {
            return;
        }
        let name = now.get(&holder).map(|stat| stat.name.as_slice());
        let name = String::from_utf8_lossy(name.unwrap_or_default());
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        let (master, time) = (self.master, self.most().saturating_sub(passed));
        warn!(
            "{name} (pid {holder}) still has a listener of the preforkd with pid {master}, and nothing shows that it belongs to an app (stop it); the next preforkd can take the listener over for {} s",
            time.as_secs()
        );
    }

    /// The longest time that any of them has.
    fn longest(&self) -> Duration {
        let times = self
            .known
            .values()
            .map(|known| self.records[known.record].1.grace);
        times.max().unwrap_or_default()
    }

    /// Finds what is ours among all processes `now`. A process is ours if it is in a session of the table; if its parent is ours; or if it
    /// has become an orphan together with this process, and runs in the environment and as the user of an app. What was ours stays ours.
    fn look(
        &mut self,
        now: &HashMap<Pid, Stat>,
        is_first: bool,
        parent: Pid,
        is_in_app: impl Fn(Pid, &Record) -> bool,
    ) {
        self.known.retain(|identity, _| identity.runs(now));
        let sessions = self.sessions(now, is_first);
        let known = self.known.iter();
        let mut ours: HashMap<Pid, usize> = known
            .map(|(identity, known)| (identity.pid, known.record))
            .collect();
        let this = Pid::this();
        let others = now
            .iter()
            .filter(|(pid, stat)| stat.runs && **pid != this && !ours.contains_key(pid));
        let mut others: Vec<(Pid, &Stat)> = others.map(|(pid, stat)| (*pid, stat)).collect();
        // Each round finds the children of what the last one has found.
        loop {
            let before = others.len();
            others.retain(|(pid, stat)| {
                let mut record = sessions.get(&stat.session).copied();
                record = record.or_else(|| ours.get(&stat.parent).copied());
                let identity = Identity::of(*pid, stat);
                if stat.parent == parent {
                    record = record.or_else(|| self.app_of(identity, &is_in_app));
                }
                let Some(record) = record else { return true };
                ours.insert(*pid, record);
                let told = false;
                self.known.insert(identity, Known { record, told });
                false
            });
            if others.len() == before {
                return;
            }
        }
    }

    /// The sessions that are ours, with the numbers of their records. The number of a session belongs to it as long as one of its
    /// processes runs; at the death of the master all of them did.
    fn sessions(&self, now: &HashMap<Pid, Stat>, is_first: bool) -> HashMap<Pid, usize> {
        let records = self.records.iter().enumerate();
        let sessions = records.filter_map(|(number, (_, record))| {
            let leader = record.leader?;
            let is_in_session = |known: &Identity| {
                now.get(&known.pid)
                    .is_some_and(|stat| stat.session == leader.pid)
            };
            let is_ours = match now.get(&leader.pid) {
                Some(stat) => Identity::of(leader.pid, stat) == leader,
                None => is_first || self.known.keys().any(is_in_session),
            };
            is_ours.then_some((leader.pid, number))
        });
        sessions.collect()
    }

    /// The number of the record of the app that an orphan is of. Each stranger is examined once.
    fn app_of(
        &mut self,
        orphan: Identity,
        is_in_app: impl Fn(Pid, &Record) -> bool,
    ) -> Option<usize> {
        if self.strangers.contains(&orphan) {
            return None;
        }
        let mut records = self.records.iter();
        let app = records.position(|(_, record)| is_in_app(orphan.pid, record));
        if app.is_none() {
            self.strangers.insert(orphan);
        }
        app
    }

    fn say_left(&mut self, now: &HashMap<Pid, Stat>) {
        let mut left = BTreeSet::new();
        for (identity, known) in &self.known {
            left.insert(known.record);
            let stat = now.get(&identity.pid);
            left.extend(stat.and_then(|stat| self.left_session(known.record, stat)));
        }
        let mut said = Ok(());
        for (number, (place, record)) in self.records.iter_mut().enumerate() {
            let gone = !left.contains(&number);
            if record.gone != gone {
                record.gone = gone;
                said = said.and(self.table.say_gone(*place, gone));
            }
        }
        // After all records.
        if let Err(error) = said.and_then(|()| self.table.say_looked()) {
            error!(
                "cannot tell the next preforkd what is left: {error}; it waits until everything has ended"
            );
        }
    }

    /// The record of what has left the sessions of an app, if a process has that counts for a session so far: its parent runs.
    fn left_session(&self, record: usize, stat: &Stat) -> Option<usize> {
        let (_, counts_for) = self.records.get(record)?;
        let leader = counts_for.leader?;
        let mut records = self.records.iter();
        let others = records
            .position(|(_, other)| other.leader.is_none() && other.app() == counts_for.app());
        others.filter(|_| stat.session != leader.pid)
    }

    fn say_whose(&self) {
        let mut apps: BTreeMap<&str, usize> = BTreeMap::new();
        for known in self.known.values() {
            *apps.entry(self.records[known.record].1.app()).or_default() += 1;
        }
        let master = self.master;
        let number = processes(self.known.len());
        let of: Vec<_> = apps
            .iter()
            .map(|(app, number)| format!("{app}: {number}"))
            .collect();
        match of.is_empty() {
            true => warn!("the preforkd with pid {master} was killed or has crashed"),
            false => warn!(
                "the preforkd with pid {master} was killed or has crashed; ending {number} that it had started ({})",
                of.join(", ")
            ),
        }
    }

    /// Tells those that were not told by the kernel, and kills those whose time is over.
    fn act(&mut self, now: &HashMap<Pid, Stat>, passed: Duration) {
        let mut told: BTreeMap<usize, usize> = BTreeMap::new();
        let mut killed: BTreeMap<usize, usize> = BTreeMap::new();
        for (identity, known) in &mut self.known {
            let (_, record) = &self.records[known.record];
            if passed >= record.grace {
                send(*identity, Signal::SIGKILL);
                *killed.entry(known.record).or_default() += 1;
            } else if !known.told && is_due(*identity, record, now) {
                known.told = true;
                if record.leader != Some(*identity) || has_other_user(identity.pid, record) {
                    send(*identity, record.signal);
                    *told.entry(known.record).or_default() += 1;
                }
            }
        }
        for (record, number) in told {
            let (_, Record { tag, signal, .. }) = &self.records[record];
            info!("{tag}: sending {signal} to {}", processes(number));
        }
        for (record, number) in killed {
            if self.killed.insert(record) {
                let (_, Record { tag, .. }) = &self.records[record];
                warn!(
                    "{tag}: sending SIGKILL to {} (still running after graceful_timeout)",
                    processes(number)
                );
            }
        }
    }
}

/// Whether it is time to tell a process to end: a leader now, those of its process group too if that is configured, and others when the
/// leader has ended.
fn is_due(identity: Identity, record: &Record, now: &HashMap<Pid, Stat>) -> bool {
    let Some(leader) = record.leader else {
        return true;
    };
    let in_group = || {
        let stat = now.get(&identity.pid);
        record.group && stat.is_some_and(|stat| stat.group == leader.pid)
    };
    !leader.runs(now) || identity == leader || in_group()
}

/// Whether a leader runs as another user than the one that it was started as. Then it gets no signal when its parent dies:
/// PR_SET_PDEATHSIG(2const).
fn has_other_user(pid: Pid, record: &Record) -> bool {
    !process::is_of(pid, record.uid)
}

/// Whether an orphan runs in the environment of an app, and as its user. A process that lies about the first is of the second.
pub(super) fn is_in_app(pid: Pid, record: &Record) -> bool {
    if record.leader.is_some() || record.address.is_empty() || !process::is_of(pid, record.uid) {
        return false;
    }
    match process::variable(pid, env::NOTIFY_SOCKET) {
        Some(address) => address == record.address.as_bytes(),
        // A WSGI application does not see the socket. The name of the app is no secret: others might have root start something with it.
        None => {
            let app = process::variable(pid, env::APP);
            record.uid != 0 && app.is_some_and(|app| is_named(&app, record))
        }
    }
}

/// Whether a record is about the app with this name.
fn is_named(app: &[u8], record: &Record) -> bool {
    let tag = format!("app={}", String::from_utf8_lossy(app));
    table::cut(&tag, table::MAX_TAG) == record.tag
}

/// Signals a process, and no other that has got its number.
fn send(identity: Identity, signal: Signal) {
    let pid = identity.pid;
    let process = sys::watch_process(pid);
    if Stat::of(pid).is_none_or(|stat| Identity::of(pid, &stat) != identity) {
        return;
    }
    let sent = match process {
        Ok(process) => sys::signal_process(process.as_fd(), signal),
        Err(_) => kill(pid, signal),
    };
    // A process that ends meanwhile is not missed.
    if let Err(error) = sent
        && error != Errno::ESRCH
    {
        warn!("cannot send {signal} to pid={pid}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: i32 = 100;
    const INIT: i32 = 1;

    fn record(leader: i32, tag: &str) -> Record {
        Record {
            leader: (leader > 0).then_some(Identity {
                pid: Pid::from_raw(leader),
                started: 10,
            }),
            uid: 33,
            signal: Signal::SIGTERM,
            group: false,
            grace: Duration::from_secs(1),
            overlaps: false,
            gone: false,
            tag: tag.into(),
            address: String::new(),
        }
    }

    fn ending(records: Vec<Record>) -> Ending {
        let table = Table::new(&Default::default()).expect("a descriptor");
        for (place, record) in (0..).zip(&records) {
            table.write(place, record).expect("room");
        }
        Ending::new(table, Pid::from_raw(MASTER), Handing::default())
    }

    /// Processes: pid, parent, session, start.
    fn all(processes: &[(i32, i32, i32, u64)]) -> HashMap<Pid, Stat> {
        let stat = |&(pid, parent, session, started): &(i32, i32, i32, u64)| {
            let stat = Stat {
                name: b"x".to_vec(),
                runs: true,
                exits: false,
                parent: Pid::from_raw(parent),
                group: Pid::from_raw(session),
                session: Pid::from_raw(session),
                started,
            };
            (Pid::from_raw(pid), stat)
        };
        processes.iter().map(stat).collect()
    }

    fn look(ending: &mut Ending, is_first: bool, now: &[(i32, i32, i32, u64)]) -> Vec<i32> {
        let in_app = |pid: Pid, record: &Record| record.leader.is_none() && pid.as_raw() >= 900;
        ending.look(&all(now), is_first, Pid::from_raw(INIT), in_app);
        ending
            .known
            .keys()
            .map(|known| known.pid.as_raw())
            .collect()
    }

    fn say(ending: &mut Ending, now: &[(i32, i32, i32, u64)]) {
        ending.say_left(&all(now));
    }

    #[test]
    fn a_session_is_ours_with_all_its_children_and_no_other() {
        let mut ending = ending(vec![record(200, "app=a"), record(300, "app=b")]);
        let found = look(
            &mut ending,
            true,
            &[
                (1, 0, 1, 1),
                (200, INIT, 200, 10),
                (201, 200, 200, 12),
                // In a session of its own, below one of ours.
                (202, 201, 202, 13),
                (203, 202, 202, 14),
                // What a leader has left that has ended.
                (301, INIT, 300, 15),
                // Strangers.
                (400, INIT, 400, 9),
                (401, 400, 400, 16),
            ],
        );
        assert_eq!(found, [200, 201, 202, 203, 301]);
        let records: Vec<_> = ending.known.values().map(|known| known.record).collect();
        assert_eq!(records, [0, 0, 0, 0, 1]);
        // It stays ours when its parent has ended.
        assert_eq!(look(&mut ending, false, &[(203, INIT, 202, 14)]), [203]);
    }

    #[test]
    fn each_record_says_whether_something_is_left_of_it() {
        let mut ending = ending(vec![record(200, "app=a"), record(300, "app=b")]);
        let gone = |ending: &Ending| {
            let records = ending.table.records().into_iter();
            records.map(|(_, record)| record.gone).collect::<Vec<_>>()
        };
        look(&mut ending, true, &[(201, INIT, 200, 12)]);
        assert!(!ending.table.was_looked_at());
        assert_eq!(gone(&ending), [false, false], "nothing was said yet");
        say(&mut ending, &[(201, INIT, 200, 12)]);
        assert!(ending.table.was_looked_at());
        assert_eq!(gone(&ending), [false, true]);
        look(&mut ending, false, &[]);
        say(&mut ending, &[]);
        assert_eq!(gone(&ending), [true, true]);
    }

    #[test]
    fn what_has_left_its_session_counts_for_its_app_also_while_its_parent_runs() {
        let session = Record {
            overlaps: true,
            ..record(200, "app=a worker=0 gen=1")
        };
        let background = |app: &str| Record {
            leader: None,
            ..record(200, app)
        };
        let mut ending = ending(vec![session, background("app=ab"), background("app=a")]);
        let mut gone = |now: &[(i32, i32, i32, u64)]| {
            look(&mut ending, true, now);
            say(&mut ending, now);
            let records = ending.table.records().into_iter();
            records.map(|(_, record)| record.gone).collect::<Vec<_>>()
        };
        let leader = (200, INIT, 200, 10);
        assert_eq!(gone(&[leader, (201, 200, 200, 12)]), [false, true, true]);
        assert_eq!(gone(&[leader, (201, 200, 201, 12)]), [false, true, false]);
        assert_eq!(gone(&[(201, INIT, 201, 12)]), [false, true, false]);
        assert_eq!(gone(&[]), [true, true, true]);
    }

    #[test]
    fn a_number_that_was_given_again_is_not_ours() {
        let mut ending = ending(vec![record(200, "app=a"), record(300, "app=b")]);
        let stranger = (200, INIT, 200, 11);
        let found = look(&mut ending, true, &[stranger, (201, 200, 200, 12)]);
        assert!(found.is_empty(), "{found:?}");
        // Nothing of the session was left at an earlier look.
        let found = look(&mut ending, false, &[(302, INIT, 300, 20)]);
        assert!(found.is_empty(), "{found:?}");
        let later = (302, INIT, 300, 20);
        assert_eq!(look(&mut ending, true, &[(301, INIT, 300, 15)]), [301]);
        let found = look(&mut ending, false, &[(301, INIT, 300, 15), later]);
        assert_eq!(found, [301, 302]);
        // The same number, and another process.
        assert!(look(&mut ending, false, &[(301, INIT, 301, 21)]).is_empty());
    }

    #[test]
    fn an_orphan_is_ours_if_it_is_of_an_app_and_an_orphan_like_the_guard() {
        let mut ending = ending(vec![record(0, "app=a")]);
        let found = look(
            &mut ending,
            true,
            &[
                (900, INIT, 900, 5),
                (901, 900, 900, 6),
                // Somebody else has started it: at(1), or a user's shell.
                (902, 500, 902, 7),
                (500, INIT, 500, 8),
            ],
        );
        assert_eq!(found, [900, 901]);
    }

    #[test]
    fn an_app_is_known_by_its_name_however_long_that_is() {
        for name in ["a", &"x".repeat(1000)] {
            let ending = ending(vec![record(0, &format!("app={name}"))]);
            assert!(is_named(name.as_bytes(), &ending.records[0].1));
            assert!(!is_named(b"ax", &ending.records[0].1));
        }
    }

    #[test]
    fn a_leader_has_heard_it_from_the_kernel_and_the_others_are_told_when_it_has_ended() {
        let id = |pid| Identity {
            pid: Pid::from_raw(pid),
            started: 10,
        };
        let (lone, group) = (
            record(200, "app=a"),
            Record {
                group: true,
                ..record(200, "app=a")
            },
        );
        let with = all(&[(200, 1, 200, 10), (201, 200, 200, 10)]);
        let without = all(&[(201, 1, 200, 10)]);
        assert!(is_due(id(200), &lone, &with));
        assert!(!is_due(id(201), &lone, &with));
        assert!(is_due(id(201), &group, &with));
        assert!(is_due(id(201), &lone, &without));
        assert!(is_due(id(900), &record(0, "app=a"), &with));
    }
}
