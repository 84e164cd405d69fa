//! The process that checks the configuration. It reads the file, resolves names, examines paths and asks the scripts in front
//! of interpreters. The master does not wait for disks, name services or scripts.
//!
//! It is this program, started by the master as `preforkd check-config FILE [-- ARGUMENTS]` with a memory file as descriptor 3. It writes its
//! result there as JSON: the plan, or the error in one line.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::config::Given;
use crate::effects::host::ThisHost;
use crate::plan::Plan;
use crate::sys;

/// The descriptor for the result.
const ANSWER: i32 = 3;

/// Checks the configuration in `file`, or what was `given` by options in its place, and writes the result.
///
/// # Errors
/// It was not started by a master, or no memory is available.
pub fn run(file: &Path, given: Option<Given>) -> Result<(), String> {
    let found = read(file, given);
    let text = serde_json::to_vec(&found)
        .or_else(|error| {
            let why = format!("cannot encode the plan as JSON: {error}");
            serde_json::to_vec(&Err::<Plan, _>(why))
        })
        .map_err(|error| error.to_string())?;
    let mut answer = File::from(
        sys::adopt(ANSWER)
            .map_err(|error| format!("check-config is started by the master only: {error}"))?,
    );
    let written = answer.write_all(&text);
    written.map_err(|error| format!("cannot send the plan to the master: {error}"))
}

/// Reads and checks a configuration.
fn read(file: &Path, given: Option<Given>) -> Result<Plan, String> {
    let read = || {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok::<_, String>(Given::file(text))
    };
    let given = given.map_or_else(read, Ok)?;
    Plan::of(given, file, &ThisHost).map_err(|error| error.one_line())
}
