//! The process that checks the configuration: it reads the file, resolves names and looks at paths, which may take as long as
//! disks and name services take, and asks the scripts in front of interpreters. The master does not wait for any of that.
//!
//! It is this program, started by the master as `preforkd check-config FILE` with a memory file as descriptor 3. There it
//! writes what it has found as JSON: the plan, or what is wrong in one line.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::effects::host::ThisHost;
use crate::plan::Plan;
use crate::sys;

/// Where it writes what it has found.
const ANSWER: i32 = 3;

/// Checks the configuration in `file` and writes down what it has found.
///
/// # Errors
/// It was not started by a master, or there is no memory left.
pub fn run(file: &Path) -> Result<(), String> {
    let found = read(file);
    let text = serde_json::to_vec(&found)
        .map_err(|error| format!("cannot write the plan as JSON: {error}"))?;
    let mut answer = File::from(
        sys::adopt(ANSWER)
            .map_err(|error| format!("this is started by the master only: {error}"))?,
    );
    let written = answer.write_all(&text);
    written.map_err(|error| format!("cannot hand over the plan: {error}"))
}

/// Reads and checks a configuration file.
fn read(file: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Plan::parse(&text, file, &ThisHost).map_err(|error| error.one_line())
}
