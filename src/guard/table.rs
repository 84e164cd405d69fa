//! The table of a guard: a memory file in which a master notes what it has started, and its guard what is left of that.
//!
//! Each note is one write within a page, so it is whole whenever the master is killed. The guard has the file, and the next master finds
//! it in the list of the guard's descriptors, which only its user and root may read.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::client::find;
use crate::effects::process::Stat;
use crate::plan::Plan;

/// The name of the memory file, and what it looks like in /proc: memfd_create(2).
const NAME: &std::ffi::CStr = c"preforkd guard";
const SHOWN: &str = "/memfd:preforkd guard (deleted)";

/// What the file begins with; the last byte is the version of its form.
const MAGIC: [u8; 8] = *b"guarded\x03";

/// Where the master's number is.
const MASTER: u64 = 8;
/// Where it is said that the master has stopped in good order.
const STOPPED: u64 = 12;
/// Where the guard says that it has looked.
const LOOKED: u64 = 16;
/// Where the guard says at which abstract address it hands over the listeners, and the longest name.
const DOOR: u64 = 24;
const MAX_DOOR: usize = 64;
/// Where the paths are, each with its length before it, and the room of one.
const PATHS: u64 = 4096;
const PATH_ROOM: u64 = 8192;
/// The longest path: limits.h(0p).
const MAX_PATH: usize = 4096;
/// Where the records begin.
const RECORDS: u64 = PATHS + 3 * PATH_ROOM;
/// The size of a record. None crosses the border of a page.
const SIZE: usize = 256;
/// Where a record says that nothing of it is left.
const GONE: u64 = 3;

/// The longest tag of a record, whose end is cut off if it is longer.
pub(super) const MAX_TAG: usize = 100;
/// More than an address of a socket has: unix(7).
const MAX_ADDRESS: usize = 112;

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Its number.
    pub pid: Pid,
    /// When it was started, in ticks of the clock.
    pub started: u64,
}

impl Identity {
    /// Of the process with this number.
    pub fn of(pid: Pid, stat: &Stat) -> Self {
        let started = stat.started;
        Self { pid, started }
    }

    /// Whether it is among these and has not ended.
    pub fn runs(self, all: &HashMap<Pid, Stat>) -> bool {
        let found = all.get(&self.pid);
        found.is_some_and(|stat| stat.runs && Self::of(self.pid, stat) == self)
    }
}

/// The beginning of a text that is no longer than this many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let ends = (0..=most).rev().find(|&at| text.is_char_boundary(at));
    &text[..ends.unwrap_or(0)]
}

/// How to end what the master has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The leader of a session; `None` if this is about the processes of an app that have left their sessions.
    pub leader: Option<Identity>,
    /// The user that they run as.
    pub uid: u32,
    /// The signal that tells them to end.
    pub signal: Signal,
    /// It goes to the whole process group of the leader.
    pub group: bool,
    /// The time that they have.
    pub grace: Duration,
    /// The next master may start others beside them.
    pub overlaps: bool,
    /// The guard has found that nothing of it is left.
    pub gone: bool,
    /// What the log calls them. It begins with the app.
    pub tag: String,
    /// The notify socket of the app, which is in the environment of its processes and of no others. Empty if there is a leader.
    pub address: String,
}

impl Record {
    /// Whether it is about this app.
    pub fn is_of(&self, app: &str) -> bool {
        self.app() == cut(&format!("app={app}"), MAX_TAG)
    }

    /// The app in the words of the log, `app=NAME`.
    pub fn app(&self) -> &str {
        self.tag.split(' ').next().unwrap_or_default()
    }

    /// Whether it is about the command `before` of this app.
    pub fn is_command_of(&self, app: &str) -> bool {
        let command = format!("app={app} before ");
        self.tag.starts_with(cut(&command, MAX_TAG))
    }

    fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        let leader = self.leader;
        let grace = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        put(&[
            1,
            u8::from(self.group),
            u8::from(self.overlaps),
            u8::from(self.gone),
        ]);
        put(&(self.signal as i32).to_le_bytes());
        put(&leader.map_or(0, |leader| leader.pid.as_raw()).to_le_bytes());
        put(&self.uid.to_le_bytes());
        put(&leader.map_or(0, |leader| leader.started).to_le_bytes());
        put(&grace.to_le_bytes());
        for (text, most) in [(&self.tag, MAX_TAG), (&self.address, MAX_ADDRESS)] {
            let text = cut(text, most);
            put(&[text.len() as u8]);
            put(text.as_bytes());
        }
        bytes
    }

    /// `None` if the place is free.
    fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let mut rest = &bytes[..];
        let mut take = |length: usize| {
            let (part, more) = rest.split_at_checked(length)?;
            rest = more;
            Some(part)
        };
        let &[1, group, overlaps, gone] = take(4)? else {
            return None;
        };
        let signal = Signal::try_from(i32::from_le_bytes(take(4)?.try_into().ok()?)).ok()?;
        let pid = i32::from_le_bytes(take(4)?.try_into().ok()?);
        let uid = u32::from_le_bytes(take(4)?.try_into().ok()?);
        let started = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let grace = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let mut text = || {
            let length = usize::from(*take(1)?.first()?);
            Some(String::from_utf8_lossy(take(length)?).into_owned())
        };
        let pid = Pid::from_raw(pid);
        Some(Self {
            leader: (pid.as_raw() > 0).then_some(Identity { pid, started }),
            uid,
            signal,
            group: group != 0,
            grace: Duration::from_millis(grace),
            overlaps: overlaps != 0,
            gone: gone != 0,
            tag: text()?,
            address: text()?,
        })
    }
}

/// The files of a master, by which it is known again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Its configuration.
    pub configuration: PathBuf,
    /// Its control socket.
    pub control: Option<PathBuf>,
    /// Its pid file.
    pub pid_file: Option<PathBuf>,
}

impl Files {
    /// With this configuration, as the plan has the others.
    pub fn of(configuration: &Path, plan: &Plan) -> Self {
        Self {
            configuration: configuration.to_owned(),
            control: plan.control.clone(),
            pid_file: plan.pid_file.clone(),
        }
    }

    /// Whether two masters with these cannot run side by side. One of them is enough: the configuration may have been copied, or be
    /// reached over a link that leads elsewhere by now.
    pub fn are_of(&self, other: &Self) -> bool {
        let is_same = |one: &Option<PathBuf>, other: &Option<PathBuf>| {
            one.as_ref()
                .zip(other.as_ref())
                .is_some_and(|(one, other)| is_same(one, other))
        };
        find::is_same(&self.configuration, &other.configuration)
            || is_same(&self.control, &other.control)
            || is_same(&self.pid_file, &other.pid_file)
    }
}

/// Whether two paths name the same entry of a folder, which may not be there any more.
fn is_same(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| path.parent().map(Path::to_owned);
    let folders = folder(one).zip(folder(other));
    find::is_same(one, other)
        || one.file_name() == other.file_name()
            && folders.is_some_and(|(one, other)| find::is_same(&one, &other))
}

/// The file.
#[derive(Debug)]
pub struct Table {
    file: File,
}

impl Table {
    /// The table of this process, a master with these files.
    ///
    /// # Errors
    /// No descriptor or no memory is available.
    pub fn new(files: &Files) -> io::Result<Self> {
        let file = File::from(memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?);
        file.set_len(RECORDS)?;
        file.write_all_at(&std::process::id().to_le_bytes(), MASTER)?;
        let table = Self { file };
        table.name(files)?;
        table.file.write_all_at(&MAGIC, 0)?;
        Ok(table)
    }

    /// The master has these files now.
    ///
    /// # Errors
    /// No memory is available.
    pub fn name(&self, files: &Files) -> io::Result<()> {
        let paths = [
            Some(&files.configuration),
            files.control.as_ref(),
            files.pid_file.as_ref(),
        ];
        for (place, path) in (0..).zip(paths) {
            let path = path.map_or(&[][..], |path| path.as_os_str().as_bytes());
            let path = &path[..path.len().min(MAX_PATH)];
            let length = (path.len() as u32).to_le_bytes();
            self.file
                .write_all_at(&[&length[..], path].concat(), PATHS + place * PATH_ROOM)?;
        }
        Ok(())
    }

    /// The table that a guard has inherited.
    pub fn inherited(file: OwnedFd) -> Self {
        Self { file: file.into() }
    }

    /// The table among the descriptors of a process.
    pub fn of(pid: Pid) -> Option<Self> {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut paths = descriptors.map(|entry| entry.path());
        let path = paths.find(|path| path.read_link().is_ok_and(|to| to == Path::new(SHOWN)))?;
        let mut options = OpenOptions::new();
        // In case that it is something else by now.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = options.read(true).custom_flags(flags.bits()).open(path);
        let table = Self { file: file.ok()? };
        (table.bytes(0) == Some(MAGIC)).then_some(table)
    }

    /// The master's process.
    pub fn master(&self) -> Option<Pid> {
        let number = i32::from_le_bytes(self.bytes(MASTER)?);
        Some(Pid::from_raw(number))
    }

    /// The master's files.
    pub fn files(&self) -> Option<Files> {
        Some(Files {
            configuration: self.path(0)?,
            control: self.path(1),
            pid_file: self.path(2),
        })
    }

    fn path(&self, place: u64) -> Option<PathBuf> {
        let at = PATHS + place * PATH_ROOM;
        let length = u32::from_le_bytes(self.bytes(at)?) as usize;
        let mut path = vec![0; length.min(MAX_PATH)];
        self.file.read_exact_at(&mut path, at + 4).ok()?;
        (!path.is_empty()).then(|| OsStr::from_bytes(&path).into())
    }

    /// Notes a record in the place with this number.
    ///
    /// # Errors
    /// No memory is available.
    pub fn write(&self, place: u32, record: &Record) -> io::Result<()> {
        self.file.write_all_at(&record.encode(), at(place))
    }

    /// Frees a place.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clear(&self, place: u32) -> io::Result<()> {
        self.file.write_all_at(&[0], at(place))
    }

    /// All records, with the numbers of their places.
    pub fn records(&self) -> Vec<(u32, Record)> {
        let length = self.file.metadata().map_or(0, |found| found.len());
        // The last one may end before its place does.
        let places = length.saturating_sub(RECORDS).div_ceil(SIZE as u64) as usize;
        let mut bytes = vec![0; places * SIZE];
        let mut read = 0;
        while read < bytes.len()
            && let Ok(more @ 1..) = self.file.read_at(&mut bytes[read..], RECORDS + read as u64)
        {
            read += more;
        }
        let records = (0..).zip(bytes.chunks_exact(SIZE));
        let records = records.map(|(place, bytes)| (place, bytes.try_into().map(Record::decode)));
        records
            .filter_map(|(place, record)| Some((place, record.ok()??)))
            .collect()
    }

    /// Notes in a record whether nothing of it is left.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say_gone(&self, place: u32, gone: bool) -> io::Result<()> {
        self.file.write_all_at(&[u8::from(gone)], at(place) + GONE)
    }

    /// The master stops in good order, and has left nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn stop(&self) -> io::Result<()> {
        self.file.write_all_at(&[1], STOPPED)
    }

    /// Whether the master has stopped in good order.
    pub fn is_stopped(&self) -> bool {
        self.bytes(STOPPED) == Some([1])
    }

    /// The guard has looked, and noted in each record what is left of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say_looked(&self) -> io::Result<()> {
        self.file.write_all_at(&[1], LOOKED)
    }

    /// Whether the guard has looked.
    pub fn was_looked_at(&self) -> bool {
        self.bytes(LOOKED) == Some([1])
    }

    /// The guard hands over the listeners at the abstract address with this name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say_door(&self, name: &str) -> io::Result<()> {
        let name = cut(name, MAX_DOOR);
        let bytes = [&[name.len() as u8], name.as_bytes()].concat();
        self.file.write_all_at(&bytes, DOOR)
    }

    /// The name of the abstract address at which the guard hands over the listeners; `None` if there are none.
    pub fn door(&self) -> Option<String> {
        let bytes: [u8; 1 + MAX_DOOR] = self.bytes(DOOR)?;
        let (length, name) = bytes.split_first()?;
        let name = name.get(..usize::from(*length))?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }
}

fn at(place: u32) -> u64 {
    RECORDS + u64::from(place) * SIZE as u64
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files {
            configuration: "/etc/app.toml".into(),
            control: None,
            pid_file: Some("/run/app.pid".into()),
        }
    }

    fn record(tag: &str) -> Record {
        Record {
            leader: Some(Identity {
                pid: Pid::from_raw(4711),
                started: 1 << 40,
            }),
            uid: 33,
            signal: Signal::SIGQUIT,
            group: true,
            grace: Duration::from_millis(1500),
            overlaps: false,
            gone: false,
            tag: tag.into(),
            address: "/run/preforkd-notify-x/y".into(),
        }
    }

    #[test]
    fn what_is_noted_is_read_and_what_is_cleared_is_not() {
        let table = Table::new(&files()).expect("a descriptor");
        assert!(table.records().is_empty());
        let background = Record {
            leader: None,
            overlaps: true,
            ..record("app=b")
        };
        for (place, record) in [(0, record("app=a")), (7, background.clone())] {
            table.write(place, &record).expect("room");
        }
        let both = [(0, record("app=a")), (7, background.clone())];
        assert_eq!(table.records(), both);
        table.clear(0).expect("room");
        assert_eq!(table.records(), [(7, background.clone())]);
        for gone in [true, false] {
            table.say_gone(7, gone).expect("room");
            let background = background.clone();
            assert_eq!(table.records(), [(7, Record { gone, ..background })]);
        }
        assert_eq!(SIZE * (4096 / SIZE), 4096, "no record crosses a border");
    }

    #[test]
    fn one_file_is_enough_to_know_a_master() {
        let all = |configuration: &str, control: Option<&str>, pid_file: Option<&str>| Files {
            configuration: configuration.into(),
            control: control.map(Into::into),
            pid_file: pid_file.map(Into::into),
        };
        let dead = all("/no/1/app.toml", Some("/proc/a.sock"), Some("/proc/a.pid"));
        assert!(dead.are_of(&all("/no/1/app.toml", None, None)));
        assert!(dead.are_of(&all("/no/2", Some("/proc/../proc/a.sock"), None)));
        assert!(dead.are_of(&all("/no/2", None, Some("/proc/a.pid"))));
        assert!(!dead.are_of(&all("/no/2", Some("/proc/b.sock"), Some("/proc/b.pid"))));
        assert!(!all("/no/1", None, None).are_of(&all("/no/2", None, None)));
    }

    #[test]
    fn a_record_is_of_one_app() {
        let worker = record("app=web worker=0 gen=1");
        assert!(worker.is_of("web") && !worker.is_command_of("web"));
        assert!(!worker.is_of("we") && !worker.is_of("web2"));
        let command = record("app=web before gen=1");
        assert!(command.is_of("web") && command.is_command_of("web"));
        assert!(record("app=web").is_of("web"));
        let long = "x".repeat(200);
        let cut = record(cut(&format!("app={long} before gen=1"), MAX_TAG));
        assert!(cut.is_of(&long));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let table = Table::new(&files()).expect("a descriptor");
        let long = Record {
            address: "x".repeat(200),
            ..record(&"ä".repeat(99))
        };
        table.write(0, &long).expect("room");
        let (_, found) = &table.records()[0];
        assert_eq!(found.tag, "ä".repeat(MAX_TAG / 2));
        assert_eq!(found.address, "x".repeat(MAX_ADDRESS));
    }

    #[test]
    fn the_next_master_reads_whose_it_is_and_what_is_left() {
        let table = Table::new(&files()).expect("a descriptor");
        assert_eq!(table.master(), Some(Pid::this()));
        assert_eq!(table.files(), Some(files()));
        assert!(!table.was_looked_at());
        table.say_looked().expect("room");
        assert!(table.was_looked_at());
        assert_eq!(table.door(), None);
        table.say_door("x-1").expect("room");
        assert_eq!(table.door().as_deref(), Some("x-1"));
        assert!(!table.is_stopped());
        table.stop().expect("room");
        assert!(table.is_stopped());
    }
}
