//! `preforkd init`: looks at the project in a folder and writes an app.toml that serves it. Files are read as text; only at the end the application is
//! loaded, by a process that has little time for that.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::OK;
use super::target::USUAL;
use crate::effects::host::ThisHost;
use crate::effects::inspect;
use crate::plan::Plan;

mod project;
mod scan;
mod template;

/// How long the application may take to be loaded.
const LIMIT: Duration = Duration::from_secs(15);

/// Writes the file for the project in `folder`. What is printed, and the exit status.
///
/// # Errors
/// The file is there, nothing is found that could be served, or the file cannot be written.
pub(super) fn run(folder: &Path) -> Result<(String, u8), String> {
    let file = folder.join(USUAL);
    if file.symlink_metadata().is_ok() {
        return Err(format!(
            "{} is there already, and stays as it is (preforkd -t checks it; move it away to begin anew)",
            file.display()
        ));
    }
    let project = project::find(folder)?;
    let environment = std::env::var("VIRTUAL_ENV").ok();
    let text = template::text(&project, environment.as_deref());
    write(&file, &text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    let tried = attempt(&file, &text);
    Ok((template::next_steps(&project, &file, &tried), OK))
}

/// Writes a file that is not there yet.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Tries the configuration, and loads the application: what is known of it then, or why it cannot be served yet.
fn attempt(file: &Path, text: &str) -> Result<Option<String>, String> {
    let plan = Plan::parse(text, file, &ThisHost).map_err(|error| error.one_line())?;
    let Some((name, app)) = plan.all_apps().find(|(_, app)| app.threads.is_some()) else {
        return Ok(None);
    };
    let launch = app.launch.for_inspection();
    let found = inspect::inspect(name, &launch, LIMIT, &mut |_| ())?;
    let missing = found.django.and_then(|django| django.static_files.missing);
    Ok(missing)
}
