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
use crate::plan::{App, Launch, Plan};

mod project;
mod scan;
mod template;

/// How long the application may take to be loaded.
const LIMIT: Duration = Duration::from_secs(15);
/// Prints something if the interpreter finds a module.
const FIND: &str =
    "import importlib.util, sys; importlib.util.find_spec(sys.argv[1]) and print('found')";
/// The most bytes of what it prints.
const MOST: usize = 1024;

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

/// Tries the configuration, and loads the application or looks for its server: what is known of it then, or why it cannot be served yet.
fn attempt(file: &Path, text: &str) -> Result<Option<String>, String> {
    let plan = Plan::parse(text, file, &ThisHost).map_err(|error| error.one_line())?;
    let Some((name, app)) = plan.all_apps().next() else {
        return Ok(None);
    };
    if app.threads.is_none() {
        return find_server(name, app).map(|()| None);
    }
    let launch = app.launch.for_inspection();
    let found = inspect::inspect(name, &launch, LIMIT, &mut |_| ())?;
    let missing = found.django.and_then(|django| django.static_files.missing);
    Ok(missing)
}

/// Looks for the server of an ASGI application, which is a program or a module of its interpreter.
///
/// # Errors
/// It is not installed, or nobody can be asked.
fn find_server(name: &str, app: &App) -> Result<(), String> {
    if let Some(why) = app.cannot_start() {
        return Err(why.to_owned());
    }
    let launch = &app.launch;
    let [python, option, server, ..] = &launch.args[..] else {
        return Ok(());
    };
    if option != "-m" {
        return Ok(());
    }
    let look = Launch {
        args: vec![python.clone(), "-c".into(), FIND.into(), server.clone()],
        ..launch.clone()
    };
    let program = launch.program.display();
    let ran = inspect::run(name, &look, LIMIT, MOST, &mut |_| ());
    let ran = ran.map_err(|error| format!("{program} cannot be started: {error}"))?;
    match ran.failure {
        Some(failure) => Err(format!("{program} {failure}")),
        None if ran.output.is_empty() => Err(format!(
            "{server} is not installed ({program} -m pip install {server})"
        )),
        None => Ok(()),
    }
}
