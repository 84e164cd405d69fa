//! Static files: folders and files that are served under a prefix of the path, without the handler.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use preforkd_worker::settings::{Coding, Mapping};

use crate::message::request::{Origin, Request};
use crate::serve::timers::Instant;

mod answer;
mod asked;
mod cache;
mod complaints;
mod conditions;
mod encoding;
mod kinds;
mod lookup;
mod mapping;
mod named;
mod normal;
mod ranges;
#[cfg(test)]
mod tests;

pub(crate) use answer::Found;
use answer::What;
pub use conditions::is_unmodified;
pub use encoding::choose as choose_coding;
pub use named::{NamedFile, Sending, sends_file};

use cache::{Cache, Kept, RACY, Variant};
use complaints::Complaints;
use lookup::Miss;
use mapping::Mapped;

/// Tells which mapping a request is for, where its path alone does not.
pub trait Chooser: Send + fmt::Debug {
    /// The number of the mapping; none if the request is for the handler.
    fn mapping(&mut self, request: Request<'_>, origin: &Origin) -> Option<usize>;
}

/// The static files of an app.
#[derive(Debug, Default)]
pub struct Files {
    /// The longest prefix first, unless there is a chooser.
    mappings: Vec<Mapped>,
    chooser: Option<Box<dyn Chooser>>,
    /// Below which the application is served, where no proxy tells.
    prefix: Vec<u8>,
    cache: Cache,
    complaints: Complaints,
    /// The name below the prefix, and the key in the cache, of the request that is looked at.
    name: Vec<u8>,
    key: Vec<u8>,
    /// How long after a change a file may change again without a sign.
    racy: Duration,
}

impl Files {
    /// Opens the folders. The mappings may be below `prefix`, which something in front of this server may have removed from the path.
    /// `user` is the user of this process, for the log.
    ///
    /// # Errors
    /// A folder cannot be opened or entered, or a prefix does not begin with a slash; the path or prefix is in the message.
    pub fn new(
        mappings: &BTreeMap<String, Mapping>,
        prefix: &str,
        user: String,
    ) -> io::Result<Self> {
        let open = |(prefix, mapping): (&String, &Mapping)| Mapped::open(prefix, mapping);
        let mappings = mappings.iter().map(open);
        let mut mappings = mappings.collect::<io::Result<Vec<_>>>()?;
        mappings.sort_by_key(|mapping| std::cmp::Reverse(mapping.prefix.len()));
        Ok(Self {
            mappings,
            prefix: prefix.into(),
            complaints: Complaints::new(user),
            racy: RACY,
            ..Self::default()
        })
    }

    /// Opens the folders of mappings, each with its prefix, of which `chooser` tells the one for a request. `user` is the user of this
    /// process, for the log.
    ///
    /// # Errors
    /// As those of [`Files::new`].
    pub fn chosen(
        mappings: &[(String, Mapping)],
        chooser: Box<dyn Chooser>,
        user: String,
    ) -> io::Result<Self> {
        let open = |(prefix, mapping): &(String, Mapping)| Mapped::open(prefix, mapping);
        Ok(Self {
            mappings: mappings.iter().map(open).collect::<io::Result<_>>()?,
            chooser: Some(chooser),
            complaints: Complaints::new(user),
            racy: RACY,
            ..Self::default()
        })
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// What this request gets; none if it is for the handler.
    pub(crate) fn find(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        now: Instant,
    ) -> Option<Found> {
        let chosen = match &mut self.chooser {
            Some(chooser) => Some(chooser.mapping(request, origin)?),
            None => None,
        };
        let told = request.facts().and_then(|facts| facts.prefix.as_deref());
        let prefix = told.unwrap_or(&self.prefix);
        let normal = normal::normal(request.path());
        let find = |path| match chosen {
            Some(number) => {
                let rest = lookup::strip(path, &self.mappings[number].prefix)?;
                Some((number, rest))
            }
            None => self.mapping_below(prefix, path),
        };
        let found = normal.as_deref().and_then(find);
        let is_out = normal.is_some() && found.is_none();
        let found = found.or_else(|| find(request.path()));
        let Some((number, rest)) = found else {
            // What was chosen for a request answers it.
            return chosen.map(|_| Found(What::Nothing(404)));
        };
        let mapping = &self.mappings[number];
        if !matches!(request.method(), b"GET" | b"HEAD") {
            return (!mapping.fallthrough).then_some(Found(What::Nothing(405)));
        }
        // A path that leads out of its mapping and into no other names nothing.
        let found = match lookup::local_name(rest, &mut self.name) && !is_out {
            true => self.look_up(number, now),
            false => Err(Miss::Nothing),
        };
        let mapping = &self.mappings[number];
        if let Err(Miss::Outside(place)) = &found {
            let consequence = match mapping.fallthrough {
                true => "the application answers",
                false => "answering 404",
            };
            let path = mapping.path_of(&self.name, "");
            self.complaints.note_link(now, &path, place, consequence);
        }
        Some(Found(match found {
            Ok(found) => found,
            Err(Miss::Nothing | Miss::Folder | Miss::Outside(_)) if mapping.fallthrough => {
                return None;
            }
            Err(Miss::Nothing | Miss::Folder) if !is_out => {
                let path = mapping.path_of(&self.name, "");
                self.complaints.note_missing(now, &mapping.prefix, &path);
                What::Nothing(404)
            }
            Err(Miss::Nothing | Miss::Folder | Miss::Outside(_)) => What::Nothing(404),
            Err(Miss::Denied(error)) => {
                let path = mapping.path_of(&self.name, "");
                self.complaints.note(now, &path, &error, "answering 403");
                What::Nothing(403)
            }
            Err(Miss::Failed(error)) => {
                let path = mapping.path_of(&self.name, "");
                self.complaints.note(now, &path, &error, "answering 500");
                What::Nothing(500)
            }
        }))
    }

    /// The mapping with the longest prefix, and what follows that, in a path that may begin with the prefix of the application.
    fn mapping_below<'a>(&self, prefix: &[u8], path: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let below = match prefix.is_empty() {
            true => None,
            false => lookup::strip(path, prefix).filter(|rest| rest.first() == Some(&b'/')),
        };
        // What is left is the shorter, the longer the prefix was.
        let found = below.and_then(|rest| self.mapping(rest));
        let found = self.mapping(path).into_iter().chain(found);
        found.min_by_key(|(_, rest)| rest.len())
    }

    /// The mapping with the longest prefix, and what follows that.
    fn mapping<'a>(&self, path: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let mappings = self.mappings.iter().enumerate();
        let mut found = mappings.filter_map(|(number, mapping)| {
            let rest = lookup::strip(path, &mapping.prefix)?;
            (rest.is_empty() || !mapping.is_single()).then_some((number, rest))
        });
        found.next()
    }

    /// The file of the name, or the index of a folder.
    fn look_up(&mut self, number: usize, now: Instant) -> Result<What, Miss> {
        let mapping = &self.mappings[number];
        let folder = !mapping.is_single() && matches!(self.name.last(), None | Some(b'/'));
        if folder {
            let index = mapping.index.as_ref().ok_or(Miss::Nothing)?;
            self.name.extend_from_slice(index);
        }
        let found = match self.kept(number, now) {
            Ok(kept) => {
                let fields = &self.mappings[number].fields;
                return Ok(What::File(kept, fields.clone()));
            }
            Err(miss) => miss,
        };
        let mapping = &self.mappings[number];
        if let (Miss::Folder, Some(index), false) = (&found, &mapping.index, folder) {
            let name = [&self.name[..], b"/", index].concat();
            return mapping.file(&name, "").map(|_| What::Redirect);
        }
        Err(found)
    }

    /// The file from memory, or read and kept there.
    fn kept(&mut self, number: usize, now: Instant) -> Result<Arc<Kept>, Miss> {
        self.key.clear();
        self.key.extend_from_slice(&number.to_ne_bytes());
        self.key.extend_from_slice(&self.name);
        if let Some(kept) = self.cache.fresh(&self.key, now) {
            return Ok(kept.clone());
        }
        self.mappings[number].look(now);
        let known = self.cache.take(&self.key);
        let mapping = &self.mappings[number];
        let (kept, unreadable) = read(mapping, &self.name, known.as_deref(), self.racy)?;
        if let Some((coding, error)) = unreadable {
            let path = mapping.path_of(&self.name, encoding::ending(coding));
            let consequence = "serving the file without it";
            self.complaints.note(now, &path, &error, consequence);
        }
        let kept = Arc::new(kept);
        self.cache.keep(&self.key, kept.clone(), now);
        Ok(kept)
    }
}

/// Reads a file and the encodings beside it that are as new; also one that could not be read. `known` is what was read before.
fn read(
    mapping: &Mapped,
    name: &[u8],
    known: Option<&Kept>,
    racy: Duration,
) -> Result<(Kept, Option<(Coding, io::Error)>), Miss> {
    let known = |coding| known.and_then(|kept| kept.variant(coding));
    let file = mapping.file(name, "")?;
    let original = file.1.clone();
    let kind = mapping.kind(name);
    let plain = Variant::read(file, None, &kind, known(None), racy)?;
    let mut encoded = Vec::new();
    let mut unreadable = None;
    // A format that is encoded by itself is not encoded again.
    let codings = mapping.precompressed.iter().copied();
    for coding in codings.filter(|_| kind.encoding.is_none()) {
        let variant = match mapping.file(name, encoding::ending(coding)) {
            Ok(file) if Variant::is_current(&file.1, &original) => {
                Variant::read(file, Some(coding), &kind, known(Some(coding)), racy)
                    .map_err(Miss::from)
            }
            Ok(_) => continue,
            Err(miss) => Err(miss),
        };
        match variant {
            Ok(variant) => encoded.push(variant),
            Err(Miss::Nothing | Miss::Folder | Miss::Outside(_)) => {}
            Err(Miss::Denied(error) | Miss::Failed(error)) => unreadable = Some((coding, error)),
        }
    }
    Ok((Kept { plain, encoded }, unreadable))
}
