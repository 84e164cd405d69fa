//! A prefix of the path, and what is served below it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use preforkd_worker::settings::{Coding, Mapping};

use super::kinds::{self, Kind};
use super::lookup::{Miss, Root, single};
use crate::proto::h1::target::percent_decode;
use crate::serve::timers::Instant;

/// A mapping whose folder is open.
#[derive(Debug)]
pub(super) struct Mapped {
    /// Decoded.
    pub prefix: Vec<u8>,
    pub index: Option<Vec<u8>>,
    pub fallthrough: bool,
    pub precompressed: Vec<Coding>,
    pub fields: Arc<Fields>,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// The first one that has a file counts.
    Folders(Vec<Root>),
    File(PathBuf),
}

/// What is the same in all responses of a mapping.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub cache_control: Option<String>,
    /// What a response with a variant varies by.
    pub vary_encoded: String,
    /// What any other one varies by.
    pub vary: Option<String>,
    /// Instead of the type that follows from the name.
    pub content_type: Option<String>,
    pub others: Vec<(String, String)>,
}

impl Mapped {
    /// # Errors
    /// The folder cannot be opened, or the prefix is none; the path or prefix is in the message. A single file may be missing.
    pub fn open(written: &str, mapping: &Mapping) -> io::Result<Self> {
        let mut prefix = Vec::new();
        percent_decode(written.as_bytes(), &mut prefix);
        if prefix.first() != Some(&b'/') {
            return Err(io::Error::other(format!(
                "the prefix {written:?} of static files must begin with a slash"
            )));
        }
        let target = match prefix.last() {
            Some(b'/') => {
                let all = std::iter::once(&mapping.path).chain(&mapping.behind);
                Target::Folders(
                    all.map(|path| Root::open(path))
                        .collect::<io::Result<_>>()?,
                )
            }
            _ => Target::File(mapping.path.clone()),
        };
        Ok(Self {
            prefix,
            fields: Arc::new(Fields::new(mapping)),
            index: mapping.index.clone().map(String::into_bytes),
            fallthrough: mapping.fallthrough,
            precompressed: mapping.precompressed.clone(),
            target,
        })
    }

    /// Whether it stands for one file.
    pub fn is_single(&self) -> bool {
        matches!(self.target, Target::File(_))
    }

    /// Follows the way to the folder again if that is due.
    pub fn look(&mut self, now: Instant) {
        if let Target::Folders(roots) = &mut self.target {
            for root in roots {
                root.look(now);
            }
        }
    }

    /// What the name says about the file.
    pub fn kind(&self, name: &[u8]) -> Kind {
        match &self.target {
            Target::Folders(_) => kinds::of(name),
            Target::File(path) => kinds::of(path.as_os_str().as_bytes()),
        }
    }

    /// Opens the file of this name, or with this ending more.
    pub fn file(&self, name: &[u8], ending: &str) -> Result<(File, Metadata), Miss> {
        match &self.target {
            Target::Folders(roots) if ending.is_empty() => in_first(roots, name),
            // Beside a file, and not in another folder.
            Target::Folders(roots) => {
                let with_file = roots.iter().find(|root| root.file(name).is_ok());
                let root = with_file.ok_or(Miss::Nothing)?;
                root.file(&[name, ending.as_bytes()].concat())
            }
            Target::File(path) => single(&with_ending(path, ending)),
        }
    }

    /// Where that is, for the log.
    pub fn path_of(&self, name: &[u8], ending: &str) -> PathBuf {
        match &self.target {
            Target::Folders(roots) => {
                let first = roots.first().map(|root| root.path_of(name));
                with_ending(&first.unwrap_or_default(), ending)
            }
            Target::File(path) => with_ending(path, ending),
        }
    }
}

/// The file in the first folder that has one of this name.
fn in_first(roots: &[Root], name: &[u8]) -> Result<(File, Metadata), Miss> {
    let mut first = None;
    for root in roots {
        match root.file(name) {
            Err(miss @ (Miss::Nothing | Miss::Folder | Miss::Outside(_))) => {
                first.get_or_insert(miss);
            }
            found => return found,
        }
    }
    Err(first.unwrap_or(Miss::Nothing))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

impl Fields {
    fn new(mapping: &Mapping) -> Self {
        let mut fields = Self {
            cache_control: cache_control(mapping.max_age, mapping.immutable),
            ..Self::default()
        };
        for (name, value) in &mapping.headers {
            let place = match name.to_ascii_lowercase().as_str() {
                "vary" => &mut fields.vary,
                "content-type" => &mut fields.content_type,
                "cache-control" => &mut fields.cache_control,
                _ => {
                    fields.others.push((name.clone(), value.clone()));
                    continue;
                }
            };
            *place = Some(value.clone());
        }
        fields.vary_encoded = match &fields.vary {
            Some(vary) if vary.trim() == "*" => vary.clone(),
            Some(vary) if names(vary, "accept-encoding") => vary.clone(),
            Some(vary) => format!("Accept-Encoding, {vary}"),
            None => "Accept-Encoding".into(),
        };
        fields
    }
}

fn names(list: &str, name: &str) -> bool {
    list.split(',')
        .any(|element| element.trim().eq_ignore_ascii_case(name))
}

fn cache_control(max_age: Option<u64>, immutable: bool) -> Option<String> {
    let max_age = max_age.map(|age| format!("max-age={age}"));
    match (max_age, immutable) {
        (Some(max_age), true) => Some(format!("{max_age}, immutable")),
        (None, true) => Some("immutable".into()),
        (max_age, false) => max_age,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(max_age: Option<u64>, immutable: bool, headers: &[(&str, &str)]) -> Fields {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Fields::new(&Mapping {
            max_age,
            immutable,
            headers: headers.iter().map(own).collect(),
            ..Mapping::default()
        })
    }

    #[test]
    fn caching_is_told_in_one_field() {
        for (max_age, immutable, told) in [
            (None, false, None),
            (Some(60), false, Some("max-age=60")),
            (Some(31_557_600), true, Some("max-age=31557600, immutable")),
            (None, true, Some("immutable")),
        ] {
            assert_eq!(
                fields(max_age, immutable, &[]).cache_control.as_deref(),
                told
            );
        }
        let own = fields(None, false, &[("cache-control", "no-cache")]);
        assert_eq!(own.cache_control.as_deref(), Some("no-cache"));
    }

    #[test]
    fn what_a_response_varies_by_stands_in_one_field() {
        for (own, vary) in [
            (None, "Accept-Encoding"),
            (Some("Origin"), "Accept-Encoding, Origin"),
            (Some("Origin, accept-encoding"), "Origin, accept-encoding"),
            (Some("*"), "*"),
        ] {
            let headers: Vec<_> = own.iter().map(|&value| ("Vary", value)).collect();
            let fields = fields(None, false, &headers);
            assert_eq!(fields.vary_encoded, vary);
            assert_eq!(fields.vary.as_deref(), own);
            assert!(fields.others.is_empty());
        }
    }
}
