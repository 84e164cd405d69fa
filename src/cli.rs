//! The command line: preforkd(8).

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use log::{debug, error, info, warn};
use nix::errno::Errno;

use crate::config_check;
use crate::effects::host::ThisHost;
use crate::effects::init::Init;
use crate::effects::listen::Listeners;
use crate::effects::ready_fd::ReadyFd;
use crate::effects::signals::Signals;
use crate::effects::temporary;
use crate::effects::terminal::Terminal;
use crate::guard;
use crate::guard::table::Files;
use crate::guard::waiting;
use crate::launcher;
use crate::log_writer;
use crate::logging;
use crate::master::{self, Outcome};
use crate::plan::{self, Host, Plan};
use crate::probe;
use crate::sys;
use crate::{certificate_keeper, certificate_watch};
use preforkd_worker::title::{self, Room};

mod commands;
mod versions;

/// All is well.
const OK: u8 = 0;
/// Could not start.
const FAILED: u8 = 1;
/// An app was given up, as configured.
const GAVE_UP: u8 = 3;
/// The status was printed, and not everything is ready.
const NOT_READY: u8 = 4;
/// Invalid usage or configuration.
const USAGE: u8 = 2;

/// Runs the programs of app.toml in worker processes that share their sockets, and keeps them running.
#[derive(Debug, Parser)]
#[command(
    disable_version_flag = true,
    after_help = "Signals: HUP reloads, TERM stops, TTIN and TTOU add and remove a worker. See preforkd(8)."
)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Send the command to the master at this control socket.
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Write a newline to this descriptor, which s6 or dinit passes, when the first generation is ready.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    ready_fd: Option<i32>,
    /// Check the configuration, report the first error, and exit.
    #[arg(short = 't', long)]
    test: bool,
    /// Also log details for debugging.
    #[arg(short, long)]
    verbose: bool,
    /// Print the versions of this program, of the program that serves sites and of the extension module, and exit.
    #[arg(short = 'V', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// A request to a running master.
#[derive(Debug, Subcommand)]
enum Command {
    /// Show all apps and workers of the running master.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what the sites of the running master have counted, in the text format of Prometheus.
    Metrics,
    /// Have the front forget responses that it keeps: all of them, or those of sites and URLs.
    Purge {
        /// A site by its name, or a URL as clients ask for it, with its host.
        #[arg(value_name = "SITE|URL", value_parser = purged)]
        what: Vec<String>,
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
    /// The helper process that checks the configuration; started by the master only.
    #[command(hide = true)]
    CheckConfig {
        /// The file.
        path: PathBuf,
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

/// Runs the program as the command line asks.
pub fn run() -> ExitCode {
    // Every worker is launched here, so this comes first and does little.
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .take(4)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    if arguments
        .first()
        .is_some_and(|name| name == launcher::COMMAND)
    {
        logging::print_line(&launcher::run(&arguments[1..]).to_string());
        return FAILED.into();
    }
    let arguments = Arguments::parse();
    if arguments.version {
        let (text, status) = versions::show();
        return print(&text, status);
    }
    let helper = match &arguments.command {
        Some(Command::CheckConfig { path }) => Some(config_check::run(path)),
        Some(Command::WatchCertificates { program }) => Some(certificate_watch::run(program)),
        Some(Command::KeepCertificates) => Some(certificate_keeper::run()),
        Some(Command::Probe(question)) => Some(probe::run(question)),
        Some(Command::Guard) => Some(
            guard::run().map_err(|error| format!("preforkd: the guard cannot continue: {error}")),
        ),
        Some(Command::WriteLog {
            target,
            report,
            upkeep,
            prefix,
        }) => Some(
            log_writer::run(target, upkeep, prefix.as_deref(), *report)
                .map_err(|error| format!("preforkd: cannot write {}: {error}", target.display())),
        ),
        _ => None,
    };
    match helper {
        None => {}
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(message)) => {
            logging::print_line(&message);
            return FAILED.into();
        }
    }
    if arguments.ready_fd.is_some() && arguments.command.is_some() {
        logging::print_error("--ready-fd is for the master, not for commands (remove it)");
        return USAGE.into();
    }
    if let Some(command) = &arguments.command {
        // The command of `ExecReload=` is a process of the service, and gets what `systemctl kill -s HUP` sends.
        if !Terminal::of_now().existed() {
            sys::ignore_orders();
        }
        return match commands::perform(command, arguments.config, arguments.socket) {
            Ok((answer, status)) => print(&plain(answer.trim_end()), status),
            Err((message, status)) => {
                logging::print_error(&plain(&message));
                status.into()
            }
        };
    }
    let Some(config) = arguments.config else {
        logging::print_error("no configuration file given (use -c FILE)");
        return USAGE.into();
    };
    if arguments.socket.is_some() {
        logging::print_error("--socket is for commands such as `preforkd status` (remove it)");
        return USAGE.into();
    }
    // Before this program opens descriptors of its own. A check of the configuration announces nothing.
    let ready_fd = arguments.ready_fd.filter(|_| !arguments.test);
    let ready_fd = match ready_fd.map(ReadyFd::adopt).transpose() {
        Ok(ready_fd) => ready_fd,
        Err(why) => {
            logging::print_error(&format!("--ready-fd: {why}"));
            return USAGE.into();
        }
    };
    let signals = match master::catch_signals() {
        Ok(signals) => signals,
        Err(error) => {
            logging::print_error(&format!("cannot catch signals: {error}"));
            return FAILED.into();
        }
    };
    let plan = match read(&config) {
        Ok(plan) => plan,
        Err(failure) => {
            logging::print_error(&failure.message);
            if !arguments.test {
                failure.report();
            }
            return USAGE.into();
        }
    };
    if arguments.test {
        for warning in doubts(&plan) {
            logging::print_error(&format!("warning: {warning}"));
        }
        let notices = plan.notices();
        let lines = notices.map(|(app, notice)| format!("app={app} {notice}"));
        let lines: Vec<String> = lines.chain(["configuration OK".to_owned()]).collect();
        return print(&lines.join("\n"), OK);
    }
    logging::begin(arguments.verbose);
    match serve(config, plan, signals, ready_fd) {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::CouldNotStart) => FAILED.into(),
        Ok(Outcome::GaveUp) => GAVE_UP.into(),
        Err(failure) => {
            error!("{}", failure.message);
            failure.report();
            FAILED.into()
        }
    }
}

/// What would not work as things are now, although the configuration is valid.
fn doubts(plan: &Plan) -> Vec<String> {
    let folders = [("pid_file", &plan.pid_file), ("control", &plan.control)];
    let missing = folders.into_iter().filter_map(|(key, path)| {
        let folder = path.as_deref()?.parent()?;
        (!folder.is_dir()).then(|| {
            format!(
                "{key}: there is no folder {} (create it, or let the init system do so: RuntimeDirectory= of systemd)",
                folder.display()
            )
        })
    });
    let workers = plan.apps.iter().filter(|(_, app)| app.threads.is_some());
    let temporary = workers.filter_map(|(name, app)| {
        let variable = |name: &str| std::env::var(name).ok();
        let complaint = temporary::complaint(&app.launch, variable)?;
        Some(format!("app={name} {complaint}"))
    });
    let mistakes = plan.warnings();
    let mistakes = mistakes.map(|(name, warning)| format!("app={name} {warning}"));
    let lost = plan.no_folders.iter().map(|(why, _)| why.clone());
    let doubts = missing.chain(lost).chain(temporary);
    doubts.chain(mistakes).collect()
}

/// An answer without control characters: in an untrusted folder another process may listen at the control socket.
fn plain(text: &str) -> String {
    let is_plain = |c: &char| *c == '\n' || !c.is_control();
    text.chars().filter(is_plain).collect()
}

/// Why the master cannot start: for people, and the number of the system's error if it was one.
struct Failure {
    message: String,
    errno: Option<i32>,
}

impl Failure {
    /// Tells the init system, which keeps the last status of a service.
    fn report(&self) {
        if let Ok(init) = Init::find() {
            init.failed(self.message.lines().next().unwrap_or_default(), self.errno);
        }
    }
}

/// Prints a result, and returns the exit status. A reader that wants no more of it, such as head(1), is no failure.
fn print(text: &str, status: u8) -> ExitCode {
    let mut output = std::io::stdout().lock();
    let printed = writeln!(output, "{text}").and_then(|()| output.flush());
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            logging::print_error(&format!("cannot write to standard output: {error}"));
            FAILED.into()
        }
        _ => status.into(),
    }
}

/// Reads and checks the configuration.
///
/// # Errors
/// The first error, with its position in the file.
fn read(file: &Path) -> Result<Plan, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => " (check the path given with -c)",
            std::io::ErrorKind::IsADirectory => " (give the path of the file with -c)",
            std::io::ErrorKind::PermissionDenied => " (this user needs permission to read it)",
            std::io::ErrorKind::InvalidData => " (save it as UTF-8)",
            _ => "",
        };
        Failure {
            message: format!("cannot read {}: {error}{hint}", file.display()),
            errno: error.raw_os_error(),
        }
    })?;
    Plan::parse(&text, file, &ThisHost).map_err(|diagnostic| Failure {
        message: diagnostic.to_string(),
        errno: Some(Errno::EINVAL as i32),
    })
}

fn serve(
    file: PathBuf,
    plan: Plan,
    mut signals: Signals,
    ready_fd: Option<ReadyFd>,
) -> Result<Outcome, Failure> {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let room = match sys::move_environment() {
        Ok(()) => Room::Environment,
        Err(_) => Room::Arguments,
    };
    if let Err(error) = title::set(&format!("preforkd: master {name}"), room) {
        warn!("cannot set the process title: {error}");
    }
    // Reloads read the file by this path, whatever the working directory is then.
    let file = ThisHost.absolute(&file);
    info!(
        "preforkd {} starts, pid {}, configuration {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        file.display()
    );
    let because = |what: &'static str| {
        move |error: std::io::Error| Failure {
            message: format!("{what}: {error}"),
            errno: error.raw_os_error(),
        }
    };
    for (why, _) in &plan.no_folders {
        warn!("{why}; going on without the files in it");
    }
    let plan = plan.only_started(|_, app| app.enabled, |_| false);
    let files = Files::of(&file, &plan);
    // It may have been killed just now.
    let Some(earlier) = waiting::wait(&files, &mut signals) else {
        return Ok(Outcome::Stopped);
    };
    let ended = earlier.iter().filter(|earlier| earlier.has_left());
    let ended = ended.map(|earlier| earlier.master).collect();
    let mut listeners = Listeners::inherit(&plan.listeners)
        .map_err(because("cannot adopt the sockets of the init system"))?;
    let opened = listeners.open_first(&plan.listeners, ended);
    let missing = opened.map_err(|error| Failure {
        message: error.to_string(),
        errno: error.errno(),
    })?;
    for error in missing {
        let app = plan.app_at(error.address()).unwrap_or_default();
        // The attempt to start its worker says it.
        debug!("app={app} {error}; it is tried again");
    }
    master::run(file, plan, listeners, signals, ready_fd, earlier)
        .map_err(because("cannot continue"))
}
