//! The process that checks the configuration. It reads the file, resolves names, examines paths and asks the scripts in front
//! of interpreters. The master does not wait for disks, name services or scripts.
//!
//! It is this program, started by the master as `preforkd check-config FILE [-- ARGUMENTS]` with memory files as descriptors 3 and 4. It reads
//! from the second which apps the release is about ([`Extent`]), and writes its result into the first, both as JSON: the plan, or the error in one line.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::config::Given;
use crate::effects::host::ThisHost;
use crate::plan::{Extent, Plan};
use crate::sys;

/// The descriptor for the result.
const ANSWER: i32 = 3;

/// The descriptor with the extent of the release.
const EXTENT: i32 = 4;

/// Checks the configuration in `file`, or what was `given` by options in its place, and writes the result.
///
/// # Errors
/// It was not started by a master, or no memory is available.
pub fn run(file: &Path, given: Option<Given>) -> Result<(), String> {
    let mut answer = adopt(ANSWER)?;
    let found = extent().and_then(|extent| read(file, given, &extent));
    let text = serde_json::to_vec(&found)
        .or_else(|error| {
            let why = format!("cannot encode the plan as JSON: {error}");
            serde_json::to_vec(&Err::<Plan, _>(why))
        })
        .map_err(|error| error.to_string())?;
    let written = answer.write_all(&text);
    written.map_err(|error| format!("cannot send the plan to the master: {error}"))
}

/// A file that the master has passed.
fn adopt(descriptor: i32) -> Result<File, String> {
    let file = sys::adopt(descriptor);
    let file = file.map_err(|error| format!("check-config is started by the master only: {error}"));
    Ok(File::from(file?))
}

/// What the release is about.
fn extent() -> Result<Extent, String> {
    let mut file = adopt(EXTENT)?;
    let mut text = Vec::new();
    let read = file.seek(SeekFrom::Start(0));
    let read = read.and_then(|_| file.read_to_end(&mut text));
    let wrong = |error: &dyn Display| format!("cannot read what the master asks: {error}");
    read.map_err(|error| wrong(&error))?;
    serde_json::from_slice(&text).map_err(|error| wrong(&error))
}

/// Reads and checks a configuration.
fn read(file: &Path, given: Option<Given>, extent: &Extent) -> Result<Plan, String> {
    let read = || {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok::<_, String>(Given::file(text))
    };
    let given = given.map_or_else(read, Ok)?;
    Plan::for_release(given, file, &ThisHost, extent).map_err(|error| error.one_line())
}
