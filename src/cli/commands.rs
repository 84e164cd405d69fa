//! Commands to a running master.

use std::path::{Path, PathBuf};

use super::events::{self, Form};
use super::target::USUAL;
use super::{Command, FAILED, NOT_READY, OK, USAGE, plain};
use crate::client::{self, find};
use crate::effects::host::ThisHost;
use crate::logging;
use crate::plan::Host;
use crate::plan::control::Places;
use preforkd_worker::metrics::{self, Metrics};

/// Sends a command to a master. Returns what it answers, and the exit status.
///
/// # Errors
/// The message for the user, and the exit status.
pub(super) fn perform(
    command: &Command,
    config: Option<PathBuf>,
    socket: Option<PathBuf>,
) -> Result<(String, u8), (String, u8)> {
    let socket = match (socket, config) {
        (Some(socket), _) => socket,
        (None, Some(config)) => locate(config).map_err(|message| (message, FAILED))?,
        (None, None) => locate_here()?,
    };
    let connect = || find::connect_to_running(&socket);
    let ask = |request: &str| {
        let answer = connect().and_then(|stream| client::ask(stream, request));
        answer.map_err(|message| (message, FAILED))
    };
    let done = |answer: String| (answer, OK);
    match command {
        Command::Status { json } => {
            let answer = ask("status")?;
            let status = serde_json::from_str(&answer).map_err(|error| {
                let message = format!("the master's status is not valid JSON: {error} (is it another version of preforkd?)");
                (message, FAILED)
            })?;
            let shown = if *json {
                answer
            } else {
                client::table(&status)
            };
            let code = if client::is_ready(&status) {
                OK
            } else {
                NOT_READY
            };
            Ok((shown, code))
        }
        Command::Metrics => {
            let answer = ask("metrics")?;
            let mut metrics: Metrics = serde_json::from_str(&answer).map_err(|error| {
                let message = format!("the master's metrics are not valid JSON: {error} (is it another version of preforkd?)");
                (message, FAILED)
            })?;
            // One that has ended meanwhile is missing.
            for app in &mut metrics.apps {
                app.add_processes();
            }
            Ok(done(metrics::text(&metrics)))
        }
        Command::Plan { apps } => ask(&about("plan", apps)).map(done),
        Command::Events { json, follow } => {
            let (json, follow) = (*json, *follow);
            let output = &mut std::io::stdout().lock();
            let shown = events::show(connect, Form { json, follow }, output);
            shown.map_err(|message| (message, FAILED))?;
            Ok(done(String::new()))
        }
        Command::Purge { what } => ask(&about("purge", what)).map(done),
        Command::Reload { apps } => ask(&about("reload", apps)).map(done),
        Command::Start { apps } => ask(&about("start", apps)).map(done),
        Command::Restart { apps } => ask(&about("restart", apps)).map(done),
        Command::Scale { what } => ask(&format!("scale {what}")).map(done),
        Command::Stop { apps } if apps.is_empty() => {
            let stopped = connect().and_then(client::stop);
            stopped.map_err(|message| (message, FAILED))?;
            Ok(done("stopped".into()))
        }
        Command::Stop { apps } => ask(&about("stop", apps)).map(done),
        Command::Reopen => ask("reopen").map(|_| done("reopened".into())),
        Command::Init
        | Command::Effective { .. }
        | Command::Check { .. }
        | Command::Completions { .. } => unreachable!("these commands need no master"),
        Command::WriteLog { .. }
        | Command::Probe(_)
        | Command::Guard
        | Command::CheckConfig { .. }
        | Command::KeepCertificates
        | Command::WatchCertificates { .. } => {
            unreachable!("neither helper processes nor completions ask a master")
        }
    }
}

/// A request about some apps, or about all if none is named.
fn about(what: &str, apps: &[String]) -> String {
    let words = std::iter::once(what).chain(apps.iter().map(String::as_str));
    words.collect::<Vec<_>>().join(" ")
}

/// Finds that of the master that runs with the usual file of this folder, or that the command line has started here.
///
/// # Errors
/// There is none: the message for the user, and the exit status.
fn locate_here() -> Result<PathBuf, (String, u8)> {
    let usual = Path::new(USUAL);
    let by_file = usual.is_file().then(|| locate(usual.into()));
    if let Some(Ok(socket)) = by_file {
        return Ok(socket);
    }
    let started_here = ThisHost.absolute(Path::new(find::COMMAND_LINE));
    let places = Places::find("", &started_here, &ThisHost);
    match (find::find(&places, &started_here), by_file) {
        (Ok(found), _) => Ok(found.socket),
        (Err(_), Some(by_file)) => by_file.map_err(|message| (message, FAILED)),
        (Err(message), None) => {
            let message = format!(
                "no configuration file given, and this folder has no {USUAL} (preforkd init writes one; use -c FILE or --socket PATH); {message}"
            );
            Err((message, USAGE))
        }
    }
}

/// Finds the control socket of the master that runs with this configuration. The file may be gone or have become invalid since the
/// master started.
fn locate(config: PathBuf) -> Result<PathBuf, String> {
    let file = ThisHost.absolute(&config);
    let read = std::fs::read_to_string(&file);
    let places = Places::find(read.as_deref().unwrap_or_default(), &file, &ThisHost);
    let found = find::find(&places, &file).map_err(|message| match read {
        Ok(_) => message,
        Err(error) => format!("cannot read {}: {error}; {message}", config.display()),
    })?;
    if let Some(warning) = found.warning {
        logging::print_error(&plain(&warning));
    }
    Ok(found.socket)
}
