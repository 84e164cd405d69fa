//! Log lines about files that cannot be read, at a bounded rate.

use std::io;
use std::path::Path;

use crate::rate::{Rate, SECOND};
use crate::serve::timers::Instant;

#[derive(Debug)]
pub(super) struct Complaints {
    /// Whom the system refuses the files to.
    user: String,
    rate: Rate,
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
        }
    }

    /// A file could not be read, and this is what happens instead.
    pub fn note(&mut self, now: Instant, path: &Path, error: &io::Error, consequence: &str) {
        if let Some(line) = self.line(now, path, error, consequence) {
            log::warn!("{line}");
        }
    }

    fn line(
        &mut self,
        now: Instant,
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
            "could not open the static file {} as user {}: {error}{hint}; {consequence}{left_out}",
            path.escape_debug(),
            self.user
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_and_count_the_rest() {
        let mut complaints = Complaints::new("www".into());
        let mut line = |now| {
            let error = io::ErrorKind::PermissionDenied.into();
            complaints.line(now, Path::new("/srv/a\n.css"), &error, "answering 403")
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
    }
}
