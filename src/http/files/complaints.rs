//! Log lines about files that cannot be read, at a bounded rate.

use std::io;
use std::path::Path;

use crate::serve::timers::Instant;

/// After a line the next one waits so long, in nanoseconds; clients choose how often they ask.
const PAUSE: Instant = 10_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// Whom the system refuses the files to.
    user: String,
    /// When the next line may be written.
    next: Instant,
    /// How many were not written since the last one.
    left_out: u64,
}

impl Complaints {
    pub fn new(user: String) -> Self {
        Self {
            user,
            ..Self::default()
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
        if now < self.next {
            self.left_out += 1;
            return None;
        }
        self.next = now + PAUSE;
        let more = match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            n => format!(" ({n} more since the last such line)"),
        };
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                " (give this user the permission to read it, and to enter the folders above)"
            }
            _ => "",
        };
        // The name was chosen by a client.
        let path = path.to_string_lossy();
        Some(format!(
            "could not open the static file {} as user {}: {error}{hint}; {consequence}{more}",
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
        assert_eq!((line(2), line(PAUSE)), (None, None));
        let later = line(PAUSE + 1).expect("a line");
        assert!(
            later.ends_with("; answering 403 (2 more since the last such line)"),
            "{later}"
        );
        assert_eq!(line(PAUSE + 2), None);
    }
}
