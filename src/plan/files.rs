//! The files of a configuration: the one given with `-c`, and those that `include` names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::{Host, normal, variables};
use crate::config::{Config, Diagnostic, Document, Given, Place, Sources};

/// How deep an included file may include others.
const MAX_DEPTH: usize = 5;

/// The most files of a configuration.
const MAX_FILES: usize = 1000;

/// The largest included file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// A configuration of one or more files.
pub(super) struct Loaded {
    pub(super) sources: Sources,
    pub(super) config: Config,
    /// The folders of patterns that do not exist, and where the patterns stand.
    pub(super) no_folders: Vec<(String, PathBuf)>,
    /// The same place, for the error of a configuration that is empty without it.
    pub(super) lost: Option<Place>,
}

/// Reads the included files, and gives all values their types.
///
/// # Errors
/// The first error, formatted.
pub(super) fn load(given: Given, file: &Path, host: &dyn Host) -> Result<Loaded, Diagnostic> {
    let absolute = normal(&host.absolute(file));
    let name = file.display().to_string();
    let sources = Sources::of(name, folder_of(&absolute), given);
    let mut files = Files {
        sources,
        paths: vec![(file.to_owned(), 0)],
        seen: BTreeSet::from([absolute]),
        no_folders: Vec::new(),
        host,
    };
    let typed = files.find().and_then(|()| files.typed());
    match typed {
        Ok(config) => Ok(Loaded {
            no_folders: files.no_folders(),
            lost: files.no_folders.into_iter().next().map(|(_, place)| place),
            sources: files.sources,
            config,
        }),
        Err(place) => Err(files.sources.diagnostic(place)),
    }
}

struct Files<'a> {
    sources: Sources,
    /// The paths of the sources, and how deep each is included.
    paths: Vec<(PathBuf, usize)>,
    /// Their absolute paths.
    seen: BTreeSet<PathBuf>,
    no_folders: Vec<(PathBuf, Place)>,
    host: &'a dyn Host,
}

impl Files<'_> {
    /// Adds the files that are included, and those that they include.
    fn find(&mut self) -> Result<(), Place> {
        let mut number = 0;
        while number < self.sources.number() {
            let patterns = self.parse(number)?.include(&self.sources)?;
            for pattern in patterns {
                let wrong = |message| Place::at(pattern.span(), format!("include: {message}"));
                self.include(number, &pattern).map_err(wrong)?;
                self.note_folder(number, &pattern);
            }
            number += 1;
        }
        Ok(())
    }

    fn include(&mut self, by: usize, pattern: &Spanned<String>) -> Result<(), String> {
        let (file, depth) = &self.paths[by];
        let (depth, pattern) = (depth + 1, pattern.get_ref());
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        if pattern.is_empty() {
            return Err(
                "must be the path of a file, not \"\" (write for example \"conf.d/*.toml\")".into(),
            );
        }
        if depth > MAX_DEPTH {
            return Err(format!(
                "files are included more than {MAX_DEPTH} deep (include them from {})",
                self.sources.name(0)
            ));
        }
        let has_wildcards = pattern.contains(['*', '?', '[']);
        let written = folder.join(pattern);
        if !has_wildcards && self.host.is_folder(&normal(&self.host.absolute(&written))) {
            let shown = Path::new(pattern).join("*.toml");
            return Err(format!(
                "{} is a folder (write \"{}\" for the files in it)",
                written.display(),
                shown.display()
            ));
        }
        let found = match has_wildcards {
            true => self.host.matching(&folder, pattern)?,
            false => vec![written],
        };
        for path in found {
            let absolute = normal(&self.host.absolute(&path));
            if !self.seen.insert(absolute.clone()) {
                match has_wildcards {
                    true => continue,
                    false => {
                        let shown = path.display();
                        return Err(format!("{shown} is read already (remove it from the list)"));
                    }
                }
            }
            if self.paths.len() == MAX_FILES {
                return Err(format!(
                    "there are more than {MAX_FILES} files (include fewer)"
                ));
            }
            let text = self.host.included(&absolute, &self.paths[0].0, MAX_SIZE)?;
            let name = path.display().to_string();
            self.sources.add(name, folder_of(&absolute), text);
            self.paths.push((path, depth));
        }
        Ok(())
    }

    /// Notes a pattern whose folder does not exist: that is no error, unless its files were read before.
    fn note_folder(&mut self, by: usize, pattern: &Spanned<String>) {
        let text = pattern.get_ref();
        let Some((before, _)) = text.split_once(['*', '?', '[']) else {
            return;
        };
        let Some((fixed, _)) = before.rsplit_once('/') else {
            return;
        };
        let folder = self.paths[by].0.with_file_name("").join(fixed);
        let folder = normal(&self.host.absolute(&folder));
        if !self.host.is_folder(&folder) {
            let message = format!(
                "include: there is no folder {} (create it, or remove the pattern)",
                folder.display()
            );
            let place = Place::at(pattern.span(), message);
            self.no_folders.push((folder, place));
        }
    }

    fn no_folders(&self) -> Vec<(String, PathBuf)> {
        let places = self.no_folders.iter().cloned();
        let said = places.map(|(folder, place)| {
            let why = self.sources.diagnostic(place).one_line();
            (why, folder)
        });
        said.collect()
    }

    fn parse(&self, number: usize) -> Result<Document<'_>, Place> {
        let variable = |name: &str| variables::look_up(self.host, name);
        Document::parse(&self.sources, number, &variable)
    }

    fn typed(&self) -> Result<Config, Place> {
        let mut all = self.parse(0)?;
        for number in 1..self.sources.number() {
            all.add(self.parse(number)?, &self.sources)?;
        }
        all.typed(&self.sources)
    }
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).to_owned()
}
