//! The one definition of options and commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::completions::Shell;
use super::options;
use crate::{plan, probe};

/// Runs the programs of app.toml in worker processes that share their sockets, and keeps them running.
#[derive(Debug, Parser)]
#[command(
    disable_version_flag = true,
    override_usage = "preforkd [OPTIONS] [APPLICATION | FILE.toml]\n       preforkd COMMAND [-c FILE | --socket PATH]",
    after_help = "Signals: HUP reloads, TERM stops, TTIN and TTOU add and remove a worker. See preforkd(8)."
)]
pub(super) struct Arguments {
    /// What to serve: an application of Python, such as mysite.wsgi or mysite.wsgi:application, or a configuration file, NAME.toml.
    #[arg(value_name = "APPLICATION|FILE")]
    pub(super) target: Option<String>,
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Send the command to the master at this control socket.
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) socket: Option<PathBuf>,
    /// Write a newline to this descriptor, which s6 or dinit passes, when the first generation is ready.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) ready_fd: Option<i32>,
    /// Check the configuration, report the first error, and exit.
    #[arg(short = 't', long)]
    pub(super) test: bool,
    /// With -t, also load the applications, each as the user of its workers.
    #[arg(long, requires = "test")]
    pub(super) import: bool,
    /// Print the app.toml that does the same as the options, and exit.
    #[arg(long)]
    pub(super) print_config: bool,
    /// Also log details for debugging.
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Print the versions of this program, of the program that serves sites and of the extension module, and exit.
    #[arg(short = 'V', long)]
    pub(super) version: bool,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// A request to a running master, or what needs none.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show all apps and workers of the running master.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what the apps and sites of the running master have counted, in the text format of Prometheus.
    Metrics,
    /// Show the last 1,000 things that have happened, with their causes: the lines of the master's log.
    Events {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        /// Go on with what happens from now on.
        #[arg(short, long)]
        follow: bool,
    },
    /// Have the front forget responses that it keeps: all of them, or those of sites and URLs.
    Purge {
        /// A site by its name, or a URL as clients ask for it, with its host.
        #[arg(value_name = "SITE|URL", value_parser = purged)]
        what: Vec<String>,
    },
    /// Look at the project in this folder and write an app.toml that serves it.
    Init,
    /// Print the configuration as it counts, with the place that each value comes from.
    #[command(name = "config")]
    Effective {
        /// An application with its options, in place of a file.
        #[arg(
            value_name = "APPLICATION",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        arguments: Vec<OsString>,
    },
    /// Check what is served before it is deployed: for Django sites as manage.py check --deploy does, and what only the server knows.
    Check {
        /// An application with its options, in place of a file.
        #[arg(
            value_name = "APPLICATION",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        arguments: Vec<OsString>,
    },
    /// Show what a reload would replace, and why.
    Plan {
        /// What a reload of only these apps would replace.
        #[arg(value_name = "APP", value_parser = app_name)]
        apps: Vec<String>,
    },
    /// Reload as with HUP and wait for the result; exit with status 1 if the new generation was rolled back.
    Reload {
        /// Only these apps take what the configuration says now; the others continue as they are.
        #[arg(value_name = "APP", value_parser = app_name)]
        apps: Vec<String>,
    },
    /// Change the number of workers of an app: web=4, web=+1, web=-1.
    Scale {
        /// The app and the number.
        #[arg(value_name = "APP=N", value_parser = scaling)]
        what: String,
    },
    /// Stop as with TERM and wait for the end.
    Stop {
        /// Only these apps end. They stay stopped until they are started, or the master is.
        #[arg(value_name = "APP", value_parser = app_name)]
        apps: Vec<String>,
    },
    /// Start apps that are stopped, and wait until they are ready.
    Start {
        /// The apps.
        #[arg(value_name = "APP", required = true, value_parser = app_name)]
        apps: Vec<String>,
    },
    /// Stop apps, and then start them again; until then they serve nobody. (A reload replaces them without a gap.)
    Restart {
        /// The apps.
        #[arg(value_name = "APP", required = true, value_parser = app_name)]
        apps: Vec<String>,
    },
    /// Reopen the log files, as with USR1.
    Reopen,
    /// Print a script that lets a shell complete the command lines of preforkd.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// The helper process that checks the configuration; started by the master only.
    #[command(hide = true)]
    CheckConfig {
        /// The file.
        path: PathBuf,
        /// The arguments of the master, if they are the configuration.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// The helper process that watches the certificates of sites; started by the master only.
    #[command(hide = true)]
    WatchCertificates {
        /// The program that checks them.
        program: PathBuf,
    },
    /// The helper process that has certificates of sites issued; started by the master only.
    #[command(hide = true)]
    KeepCertificates,
    /// The helper process that checks a new worker; started by the master only.
    #[command(hide = true)]
    Probe(probe::Question),
    /// The helper process that ends what a killed master has left; started by the master only.
    #[command(hide = true)]
    Guard,
    /// The helper process that writes a log file; started by the master only.
    #[command(hide = true)]
    WriteLog {
        /// The file, "-" for standard output, or the address of a syslog server.
        target: OsString,
        /// Report to the master whether it can be opened.
        #[arg(long)]
        report: bool,
        #[command(flatten)]
        upkeep: plan::Upkeep,
        /// What to write before each line.
        #[arg(long)]
        prefix: Option<String>,
    },
}

/// The name of an app, which is a word of a request to the master.
fn app_name(text: &str) -> Result<String, String> {
    match plan::is_app_name(text) {
        true => Ok(text.to_owned()),
        false => Err("not the name of an app (letters, digits, - and _)".into()),
    }
}

/// The name of a site or a URL, which is a word of a request to the master.
fn purged(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err("neither the name of a site nor a URL".into()),
        false => Ok(text.to_owned()),
    }
}

/// An app and a number of workers, or a difference.
fn scaling(text: &str) -> Result<String, String> {
    let Some((app, number)) = text.split_once('=') else {
        return Err(format!(
            "the number of workers is missing (such as {text}=4 or {text}=+1)"
        ));
    };
    if app.is_empty() {
        return Err(format!(
            "the name of the app is missing (such as web={number})"
        ));
    }
    app_name(app)?;
    match number.parse::<i32>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if number.is_empty() => Err(format!(
            "the number of workers is missing (such as {app}=4)"
        )),
        Err(_) => Err(format!("\"{number}\" is not a number of workers")),
    }
}

/// The definition of the command line, for parser and help.
pub fn command() -> clap::Command {
    options::add_to(Arguments::command())
}

/// The names of the commands for people.
pub(super) fn names_of_commands() -> Vec<String> {
    let command = command();
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

/// Parses the arguments after the name of the program.
///
/// # Errors
/// They are invalid, or help or version is asked for.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Arguments, ArgMatches), clap::Error> {
    let all = std::iter::once(OsString::from("preforkd")).chain(arguments);
    let matches = command().try_get_matches_from(all)?;
    Ok((Arguments::from_arg_matches(&matches)?, matches))
}
