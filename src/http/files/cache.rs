//! Files that were asked for lately, with their content if they are small. Each is looked up again once a second; one that is not in
//! memory is also compared with what is known of it before each response, as its bytes are sent from the disk.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use preforkd_worker::settings::Coding;

use super::conditions::Validators;
use super::kinds::Kind;
use super::lookup::State;
use crate::net::descriptors::Own;
use crate::serve::timers::Instant;

/// A file up to this size is held in memory, and goes out in one write with the head of its response; a larger one is held open.
pub(super) const SMALL: u64 = 64 * 1024;
/// How long an entry is believed, in nanoseconds; with the time in which the way to the folder is, a second.
const FRESH: Instant = 900_000_000;
/// The most entries.
const MOST: usize = 1000;
/// The most bytes of content.
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// The most files that are held open. Descriptors are for connections.
const MOST_OPEN: usize = 32;
/// A file that has changed within this time may change again without any sign of it: times of files have a granularity, of a second on
/// some file systems.
pub(super) const RACY: Duration = Duration::from_secs(2);

/// One encoding of a file.
#[derive(Debug)]
pub(super) struct Variant {
    /// The coding of a file beside the original.
    pub coding: Option<Coding>,
    pub validators: Validators,
    pub kind: Kind,
    pub size: u64,
    pub content: Content,
    state: State,
    /// Its times tell any later change.
    settled: bool,
}

#[derive(Debug)]
pub(super) enum Content {
    Memory(Arc<[u8]>),
    File(Arc<Own<File>>),
}

impl Variant {
    /// The variant that this open file is; `known` is what was read of it before, and `racy` mostly [`RACY`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(
        (file, metadata): (File, Metadata),
        coding: Option<Coding>,
        kind: &Kind,
        known: Option<&Arc<Self>>,
        racy: Duration,
    ) -> io::Result<Arc<Self>> {
        let state = State::from(&metadata);
        if let Some(known) = known
            && known.state == state
            && known.settled
        {
            return Ok(known.clone());
        }
        let now = SystemTime::now();
        let mut size = metadata.size();
        let content = match size <= SMALL {
            true => {
                // A file that is being written is as long as it is now.
                let mut content = Vec::with_capacity(size as usize);
                (&file).take(SMALL).read_to_end(&mut content)?;
                size = content.len() as u64;
                Content::Memory(content.into())
            }
            false => Content::File(Arc::new(file.into())),
        };
        let seconds = |(seconds, nanoseconds): (i64, i64)| {
            let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
            Duration::new(seconds.max(0).cast_unsigned(), nanoseconds)
        };
        let time = |time| SystemTime::UNIX_EPOCH + time;
        let changed = time(seconds((metadata.ctime(), metadata.ctime_nsec())));
        let modified = time(seconds((metadata.mtime(), 0)));
        let suffix = coding.map_or(String::new(), |coding| format!("-{}", coding.name()));
        Ok(Arc::new(Self {
            validators: Validators {
                // Two versions of the same length within one tick of the file system's clock would share it; no better is to
                // be had without reading the file.
                etag: format!(
                    "\"{:x}-{:x}-{size:x}{suffix}\"",
                    metadata.mtime(),
                    metadata.mtime_nsec()
                ),
                last_modified: (modified <= now).then(|| httpdate::fmt_http_date(modified)),
                modified,
            },
            kind: match coding {
                Some(coding) => Kind {
                    encoding: Some(coding.name()),
                    ..kind.clone()
                },
                None => kind.clone(),
            },
            settled: now.duration_since(changed).is_ok_and(|age| age >= racy),
            coding,
            size,
            content,
            state,
        }))
    }

    /// Whether it is as new as the original. Copies of both may have lost the fractions of a second.
    pub fn is_current(metadata: &Metadata, original: &Metadata) -> bool {
        metadata.mtime() >= original.mtime()
    }

    fn bytes(&self) -> u64 {
        match self.content {
            Content::Memory(_) => self.size,
            Content::File(_) => 0,
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.content, Content::File(_))
    }

    /// Whether what would be sent is what the head says. Content in memory is; a file that is open may have been changed in place.
    fn is_unchanged(&self) -> bool {
        match &self.content {
            Content::Memory(_) => true,
            Content::File(file) => file
                .metadata()
                .is_ok_and(|metadata| State::from(&metadata) == self.state),
        }
    }
}

/// A file, with the encodings that lie beside it.
#[derive(Debug)]
pub(super) struct Kept {
    pub plain: Arc<Variant>,
    /// In the order of ours.
    pub encoded: Vec<Arc<Variant>>,
}

impl Kept {
    /// What was read before of the variant with this coding.
    pub fn variant(&self, coding: Option<Coding>) -> Option<&Arc<Variant>> {
        let encoded = self.encoded.iter();
        std::iter::once(&self.plain)
            .chain(encoded)
            .find(|variant| variant.coding == coding)
    }

    fn all(&self) -> impl Iterator<Item = &Variant> {
        std::iter::once(&*self.plain).chain(self.encoded.iter().map(|variant| &**variant))
    }

    fn is_settled(&self) -> bool {
        self.all().all(|variant| variant.settled)
    }
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    checked: Instant,
    /// Asked for since room was made last.
    used: bool,
}

/// Entries by mapping and name.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Box<[u8]>, Entry>,
    bytes: u64,
    open: usize,
}

impl Cache {
    /// An entry for which the way to the file need not be gone again yet.
    pub fn fresh(&mut self, key: &[u8], now: Instant) -> Option<&Arc<Kept>> {
        let entry = self.entries.get_mut(key)?;
        if now >= entry.checked.saturating_add(FRESH) {
            return None;
        }
        if !entry.kept.all().all(Variant::is_unchanged) {
            return None;
        }
        entry.used = true;
        Some(&entry.kept)
    }

    /// Takes an entry out, to compare it.
    pub fn take(&mut self, key: &[u8]) -> Option<Arc<Kept>> {
        let Entry { kept, .. } = self.entries.remove(key)?;
        for variant in kept.all() {
            self.bytes -= variant.bytes();
            self.open -= usize::from(variant.is_open());
        }
        Some(kept)
    }

    /// Keeps what was read at this time, if a later change would be noticed.
    pub fn keep(&mut self, key: &[u8], kept: Arc<Kept>, now: Instant) {
        self.take(key);
        if !kept.is_settled() {
            return;
        }
        let bytes: u64 = kept.all().map(Variant::bytes).sum();
        let open = kept.all().filter(|variant| variant.is_open()).count();
        self.make_room(bytes, open);
        self.bytes += bytes;
        self.open += open;
        let entry = Entry {
            kept,
            checked: now,
            used: false,
        };
        self.entries.insert(key.into(), entry);
    }

    /// Drops what was not asked for since the last time, or else everything.
    fn make_room(&mut self, bytes: u64, open: usize) {
        for _ in 0..2 {
            let full = self.entries.len() >= MOST
                || self.bytes + bytes > MOST_BYTES
                || self.open + open > MOST_OPEN;
            if !full {
                return;
            }
            self.entries
                .retain(|_, entry| std::mem::take(&mut entry.used));
            let kept = || self.entries.values().flat_map(|entry| entry.kept.all());
            let bytes = kept().map(Variant::bytes).sum();
            let open = kept().filter(|variant| variant.is_open()).count();
            (self.bytes, self.open) = (bytes, open);
        }
    }

    /// How many entries there are, with how many bytes and open files.
    #[cfg(test)]
    pub fn size(&self) -> (usize, u64, usize) {
        let kept = || self.entries.values().flat_map(|entry| entry.kept.all());
        let bytes: u64 = kept().map(Variant::bytes).sum();
        let open = kept().filter(|variant| variant.is_open()).count();
        assert_eq!((self.bytes, self.open), (bytes, open));
        (self.entries.len(), bytes, open)
    }
}
