//! Log lines about files that cannot be read or are not served, at a bounded rate.

use std::io;
use std::path::Path;

use crate::rate::{Rate, SECOND};
use crate::serve::timers::Instant;

/// A file that a client has asked for, and one that an application has named.
const STATIC: &str = "the static file";
const NAMED: &str = "the file that an application has named,";

#[derive(Debug)]
pub(super) struct Complaints {
    /// Whom the system refuses the files to.
    user: String,
    rate: Rate,
    /// Of lines about links, so that the one kind does not hide the other.
    links: Rate,
    /// Of lines about files that are not there, for which clients may ask all the time.
    missing: Rate,
}

impl Default for Complaints {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl Complaints {
    pub fn new(user: String) -> Self {
        Self {
            user,
            rate: Rate::new(1, 10 * SECOND),
            links: Rate::new(1, 10 * SECOND),
            missing: Rate::new(3, 60 * SECOND),
        }
    }

    /// A file could not be read, and this is what happens instead.
    pub fn note(&mut self, now: Instant, path: &Path, error: &io::Error, consequence: &str) {
        if let Some(line) = self.line(now, STATIC, path, error, consequence) {
            log::warn!("{line}");
        }
    }

    /// A file that an application has named could not be read.
    pub fn note_named(&mut self, now: Instant, path: &Path, error: &io::Error, consequence: &str) {
        if let Some(line) = self.line(now, NAMED, path, error, consequence) {
            log::warn!("{line}");
        }
    }

    /// There is no file at this path, which the mapping below `prefix` leads to.
    #[cold]
    pub fn note_missing(&mut self, now: Instant, prefix: &[u8], path: &Path) {
        if let Some(line) = self.missing_line(now, prefix, path) {
            log::info!("{line}");
        }
    }

    fn missing_line(&mut self, now: Instant, prefix: &[u8], path: &Path) -> Option<String> {
        let left_out = self.missing.take(now)?;
        Some(format!(
            "there is no file {}, to which the mapping of {} leads; answering 404{left_out}",
            path.to_string_lossy().escape_debug(),
            prefix.escape_ascii()
        ))
    }

    /// A link leads out of its folder to this place, and this is what happens instead of serving it.
    pub fn note_link(&mut self, now: Instant, path: &Path, place: &Path, consequence: &str) {
        if let Some(line) = self.link_line(now, path, place, consequence) {
            log::warn!("{line}");
        }
    }

    fn link_line(
        &mut self,
        now: Instant,
        path: &Path,
        place: &Path,
        consequence: &str,
    ) -> Option<String> {
        let left_out = self.links.take(now)?;
        let (path, place) = (path.to_string_lossy(), place.to_string_lossy());
        Some(format!(
            "refused to serve the static file {}: a link leads to {}, outside of the folder (copy the file into the folder, as collectstatic \
             does without --link, or map the folder in which it is); {consequence}{left_out}",
            path.escape_debug(),
            place.escape_debug()
        ))
    }

    /// How many lines about links were left out.
    #[cfg(test)]
    pub fn links_left_out(&self) -> u64 {
        self.links.left_out()
    }

    fn line(
        &mut self,
        now: Instant,
        what: &str,
        path: &Path,
        error: &io::Error,
        consequence: &str,
    ) -> Option<String> {
        let left_out = self.rate.take(now)?;
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                " (give this user the permission to read it, and to enter the folders above)"
            }
            _ => "",
        };
        // The name was chosen by a client.
        let path = path.to_string_lossy();
        Some(format!(
            "could not open {what} {} as user {}: {error}{hint}; {consequence}{left_out}",
            path.escape_debug(),
            self.user
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_three_times_and_then_once_a_minute() {
        let mut complaints = Complaints::default();
        let path = Path::new("/srv/static/a\n.css");
        let mut line = |now| complaints.missing_line(now, b"/static/", path);
        assert_eq!(
            line(1).as_deref(),
            Some(
                "there is no file /srv/static/a\\n.css, to which the mapping of /static/ leads; answering 404"
            )
        );
        assert!(line(2).is_some() && line(3).is_some());
        assert_eq!(line(4), None);
        let later = line(61 * SECOND).expect("a line");
        assert!(
            later.ends_with("; 1 more since the last such line"),
            "{later}"
        );
    }

    #[test]
    fn lines_are_few_and_count_the_rest() {
        let mut complaints = Complaints::new("www".into());
        let mut line = |now| {
            let error = io::ErrorKind::PermissionDenied.into();
            complaints.line(
                now,
                STATIC,
                Path::new("/srv/a\n.css"),
                &error,
                "answering 403",
            )
        };
        let first = line(1).expect("a line");
        assert!(
            first.starts_with(
                "could not open the static file /srv/a\\n.css as user www: permission denied"
            ) && first.ends_with("; answering 403"),
            "{first}"
        );
        assert_eq!((line(2), line(10 * SECOND)), (None, None));
        let later = line(10 * SECOND + 1).expect("a line");
        assert!(
            later.ends_with("; answering 403; 2 more since the last such line"),
            "{later}"
        );
        let (path, place) = (
            Path::new("/srv/static/a\n.css"),
            Path::new("/srv/app/a.css"),
        );
        let link = complaints.link_line(10 * SECOND + 2, path, place, "answering 404");
        let link = link.expect("the other lines do not count");
        assert!(
            link.starts_with(
                "refused to serve the static file /srv/static/a\\n.css: a link leads to /srv/app/a.css, outside of the folder ("
            ) && link.ends_with("; answering 404"),
            "{link}"
        );
    }
}
