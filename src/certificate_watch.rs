//! The process that watches the files with certificates of sites, and reads new ones. It waits for disks, and may read the keys.
//!
//! It is this program, started by the master as `preforkd watch-certificates PROGRAM` with two memory files: descriptor 3 for the answer,
//! and descriptor 4 with the certificates that run, as JSON. When the files hold others that can be used, it writes these to the first
//! one and exits with status 0. PROGRAM is `preforkd-front`, which knows whether they can be used.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use log::{error, warn};
use preforkd_worker::front::Certificates;

use crate::effects::file_watch::FileWatch;
use crate::effects::host::ThisHost;
use crate::plan::certificates::{judge, paths_of, read_again};
use crate::{logging, sys};

/// The descriptor for the answer.
const ANSWER: i32 = 3;
/// The descriptor with the certificates that run.
const RUNNING: i32 = 4;

/// Files are read when nothing has happened to them for this long: a key and its chain are not exchanged in the same moment.
const QUIET: Duration = Duration::from_secs(1);
/// Or when something has happened to them so often.
const MOST_WAITS: usize = 10;

/// Waits until there are new certificates, and writes them.
///
/// # Errors
/// It was not started by a master, or no memory or descriptor is available.
pub fn run(program: &Path) -> Result<(), String> {
    logging::begin(false);
    let could_not = |error: io::Error| format!("cannot watch the certificates of sites: {error}");
    let (mut answer, running) = files().map_err(could_not)?;
    let running: Certificates = serde_json::from_slice(&running)
        .map_err(io::Error::from)
        .map_err(could_not)?;
    let mut said = Said::default();
    loop {
        // Before they are read: what changes meanwhile is seen then.
        let mut watch = FileWatch::new(paths_of(&running)).map_err(could_not)?;
        if let Some(why) = watch.trouble() {
            said.warn(&format!(
                "cannot watch all files with certificates: {why}; new certificates may be taken in at a reload only"
            ));
        }
        let found = new_ones(&running, program);
        // What was read meanwhile may not belong together.
        if !watch.has_changed() {
            match found {
                Ok(None) => said.forget(),
                Ok(Some((text, warnings))) => {
                    warnings.iter().for_each(|why| warn!("{why}"));
                    return answer.write_all(text.as_bytes()).map_err(could_not);
                }
                Err(why) => said.error(&format!(
                    "new certificates are not taken in: {why}; those that run stay in use"
                )),
            }
            watch.wait(None).map_err(could_not)?;
        }
        for _ in 0..MOST_WAITS {
            if !watch.wait(Some(QUIET)).map_err(could_not)? {
                break;
            }
        }
    }
}

fn files() -> io::Result<(File, Vec<u8>)> {
    let answer = File::from(sys::adopt(ANSWER)?);
    let mut file = File::from(sys::adopt(RUNNING)?);
    let mut running = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut running)?;
    Ok((answer, running))
}

/// What the files hold, as JSON, and what is doubtful about it; none if that runs.
fn new_ones(
    running: &Certificates,
    program: &Path,
) -> Result<Option<(String, Vec<String>)>, String> {
    let found = read_again(running, &ThisHost)?;
    if found == *running {
        return Ok(None);
    }
    let text = found.encode().map_err(|error| error.to_string())?;
    let warnings = judge(&text, program, &ThisHost)?;
    Ok(Some((text, warnings)))
}

/// What was logged last, which is not logged again.
#[derive(Default)]
struct Said {
    error: String,
    warning: String,
}

impl Said {
    fn error(&mut self, line: &str) {
        if self.error != line {
            error!("{line}");
            self.error = line.into();
        }
    }

    fn warn(&mut self, line: &str) {
        if self.warning != line {
            warn!("{line}");
            self.warning = line.into();
        }
    }

    /// All is well.
    fn forget(&mut self) {
        self.error.clear();
    }
}
