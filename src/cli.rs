//! The command line: preforkd(8).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use log::{error, info, warn};

use crate::effects::host::ThisHost;
use crate::effects::listen::Listeners;
use crate::logging;
use crate::master::{Master, Outcome};
use crate::plan::Plan;
use crate::sys;

/// Could not start, or gave up.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const USAGE: u8 = 2;

/// Runs the programs of app.toml in worker processes that share their sockets, and keeps them running.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Signals: HUP reloads, TERM stops, TTIN and TTOU add and take a worker. See preforkd(8)."
)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration and say what is wrong with it.
    #[arg(short = 't', long)]
    test: bool,
    /// Also log what is of use to a developer.
    #[arg(short, long)]
    verbose: bool,
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = match read(&arguments.config) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("preforkd: {message}");
            return USAGE.into();
        }
    };
    if arguments.test {
        println!("configuration OK");
        return ExitCode::SUCCESS;
    }
    logging::begin(arguments.verbose);
    match serve(arguments.config, plan) {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::CouldNotStart) => FAILED.into(),
        Err(message) => {
            error!("{message}");
            FAILED.into()
        }
    }
}

/// Everything that is wrong with the file, as a user wants to see it.
fn read(file: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => " (say which file with -c)",
            _ => "",
        };
        format!("cannot read {}: {error}{hint}", file.display())
    })?;
    Plan::parse(&text, file, &ThisHost).map_err(|diagnostic| diagnostic.to_string())
}

fn serve(file: PathBuf, plan: Plan) -> Result<Outcome, String> {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if let Err(error) = sys::set_title(&format!("preforkd: master {name}")) {
        warn!("cannot set the process title: {error}");
    }
    // The configuration is found again at each reload, wherever somebody changes to.
    let file = std::path::absolute(&file).unwrap_or(file);
    info!(
        "preforkd {} starts, pid {}, configuration {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        file.display()
    );
    let mut listeners = Listeners::inherit();
    listeners
        .open(&plan.listeners)
        .map_err(|error| error.to_string())?;
    let master =
        Master::new(file, plan, listeners).map_err(|error| format!("cannot start: {error}"))?;
    master
        .run()
        .map_err(|error| format!("cannot wait for events: {error}"))
}
