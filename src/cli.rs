//! The command line: preforkd(8).

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use log::{debug, error, info, warn};
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::config::Given;
use crate::config_check;
use crate::effects::host::ThisHost;
use crate::effects::init::Init;
use crate::effects::listen::Listeners;
use crate::effects::process;
use crate::effects::ready_fd::ReadyFd;
use crate::effects::signals::Signals;
use crate::effects::terminal::Terminal;
use crate::guard;
use crate::guard::orphans::Orphans;
use crate::guard::table::Files;
use crate::guard::waiting;
use crate::launcher;
use crate::log_writer;
use crate::logging;
use crate::master::{self, Outcome};
use crate::plan::Plan;
use crate::probe;
use crate::sys;
use crate::{certificate_keeper, certificate_watch};
use preforkd_worker::title::{self, Room};

mod arguments;
mod check;
mod commands;
mod completions;
mod events;
mod init;
mod loading;
mod local;
mod options;
mod outlook;
mod subject;
mod target;
mod versions;

pub use arguments::command;
use arguments::{Arguments, Command};
use subject::Subject;

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
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (arguments, matches) = match parse(&given) {
        Ok(parsed) => parsed,
        Err(status) => return status,
    };
    if arguments.version {
        let (text, status) = versions::show();
        return print(&text, status);
    }
    let helper = match &arguments.command {
        Some(Command::CheckConfig { path, arguments }) => {
            Some(config_check::run(path, subject::given(arguments)))
        }
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
    if let Some(command) = &arguments.command {
        if let Some(surplus) = subject::surplus(&arguments, &matches) {
            logging::print_error(&format!(
                "{surplus} is for the master, not for commands (remove it)"
            ));
            return USAGE.into();
        }
        if let Command::Completions { shell } = command {
            return print(completions::script(*shell).trim_end(), OK);
        }
        if let Some(answer) = local::perform(command, arguments.config.as_deref()) {
            return show(answer);
        }
        // The command of `ExecReload=` is a process of the service, and gets what `systemctl kill -s HUP` sends.
        if !Terminal::of_now().existed() {
            sys::ignore_orders();
        }
        return show(commands::perform(
            command,
            arguments.config,
            arguments.socket,
        ));
    }
    let subject = match Subject::find(&arguments, &matches, &given) {
        Ok(subject) => subject,
        Err(message) => {
            logging::print_error(&message);
            return USAGE.into();
        }
    };
    // Before this program opens descriptors of its own. A check of the configuration announces nothing.
    let only_checked = arguments.test || arguments.print_config;
    let ready_fd = arguments.ready_fd.filter(|_| !only_checked);
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
    let plan = match read(&subject) {
        Ok(plan) => plan,
        Err(failure) => {
            logging::print_error(&failure.message);
            if !only_checked {
                failure.report();
            }
            return USAGE.into();
        }
    };
    if arguments.print_config {
        return match &subject.given {
            Some(given) => print(given.text.trim_end(), OK),
            None => {
                let file = subject.configuration.file.display();
                logging::print_error(&format!(
                    "--print-config is for an application on the command line; {file} is a configuration (remove the option)"
                ));
                USAGE.into()
            }
        };
    }
    if arguments.test {
        if let Some(note) = &subject.note {
            logging::print_error(note);
        }
        for warning in check::doubts(&plan) {
            logging::print_error(&format!("warning: {warning}"));
        }
        let notices = plan.notices();
        let lines = notices.map(|(app, notice)| format!("app={app} {notice}"));
        let mut lines: Vec<String> = lines.collect();
        let (outlook, all_fit) = outlook::report(&plan, arguments.import);
        lines.extend(outlook);
        if !all_fit {
            print(&lines.join("\n"), OK);
            return USAGE.into();
        }
        let loaded = match arguments.import {
            true => loading::report(&plan),
            false => (Vec::new(), true),
        };
        lines.extend(loaded.0);
        lines.push("configuration OK".to_owned());
        let status = if loaded.1 { OK } else { FAILED };
        return print(&lines.join("\n"), status);
    }
    logging::begin(arguments.verbose);
    match serve(subject, plan, signals, ready_fd) {
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

/// Prints the answer to a command, or why there is none.
fn show(answer: local::Answer) -> ExitCode {
    match answer {
        Ok((answer, status)) => print(&plain(answer.trim_end()), status),
        Err((message, status)) => {
            logging::print_error(&plain(&message));
            status.into()
        }
    }
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
    if text.is_empty() {
        return status.into();
    }
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

/// Parses the command line. What users of other servers write is answered with what to write here.
///
/// # Errors
/// The exit status, when everything was said.
fn parse(given: &[OsString]) -> Result<(Arguments, clap::ArgMatches), ExitCode> {
    if let Some(advice) = subject::misread(given) {
        logging::print_error(&advice);
        return Err(USAGE.into());
    }
    arguments::parse(given.iter().cloned()).map_err(|error| {
        let unknown = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(unknown)) if error.kind() == ErrorKind::UnknownArgument => {
                Some(unknown)
            }
            _ => None,
        };
        let advice = unknown.and_then(|unknown| Some((unknown, options::elsewhere(unknown)?)));
        match advice {
            Some((unknown, advice)) => logging::print_error(&format!("{unknown}: {advice}")),
            // A reader that wants no more of it is no failure.
            None => drop(error.print()),
        }
        // 0 for help and version.
        u8::try_from(error.exit_code()).unwrap_or(USAGE).into()
    })
}

/// Reads and checks the configuration.
///
/// # Errors
/// The first error, with its position in the file, or its option.
fn read(subject: &Subject) -> Result<Plan, Failure> {
    let file = &subject.configuration.file;
    Plan::of(given(subject)?, file, &ThisHost).map_err(|diagnostic| Failure {
        message: diagnostic.to_string(),
        errno: Some(Errno::EINVAL as i32),
    })
}

/// What the configuration is, before it is checked.
fn given(subject: &Subject) -> Result<Given, Failure> {
    match &subject.given {
        Some(given) => Ok(given.clone()),
        None => text_of(&subject.configuration.file).map(Given::file),
    }
}

fn text_of(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
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
    })
}

fn serve(
    subject: Subject,
    plan: Plan,
    mut signals: Signals,
    ready_fd: Option<ReadyFd>,
) -> Result<Outcome, Failure> {
    let name = subject.name();
    let room = match sys::move_environment() {
        Ok(()) => Room::Environment,
        Err(_) => Room::Arguments,
    };
    if let Err(error) = title::set(&format!("preforkd: master {name}"), room) {
        warn!("cannot set the process title: {error}");
    }
    // Reloads read the file by this path, whatever the working directory is then.
    let configuration = subject.configuration();
    if let Some(note) = &subject.note {
        info!("{note}");
    }
    info!(
        "preforkd {} starts, pid {}, configuration {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        configuration.file.display()
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
    let files = Files::of(&configuration.file, &plan);
    // It may have been killed just now.
    let Some(earlier) = waiting::wait(&files, &mut signals) else {
        return Ok(Outcome::Stopped);
    };
    let ended = earlier.iter().filter(|earlier| earlier.has_left());
    let ended: Vec<Pid> = ended.map(|earlier| earlier.master).collect();
    // Those that are not known may have ended meanwhile.
    let may_end = |holders: &[Pid]| {
        let mut earlier = earlier.iter().filter(|one| ended.contains(&one.master));
        let of_earlier = earlier.any(|earlier| holders.is_empty() || earlier.had_started(holders));
        of_earlier || holders.iter().any(|pid| process::is_orphan(*pid))
    };
    let mut listeners = Listeners::inherit(&plan.listeners)
        .map_err(because("cannot adopt the sockets of the init system"))?;
    for earlier in &earlier {
        listeners.take_over(earlier.sockets(), &plan.listeners);
    }
    let opened = listeners.open_first(&plan.listeners, &ended, may_end);
    let missing = opened.map_err(|error| Failure {
        message: error.to_string(),
        errno: error.errno(),
    })?;
    let mut patience = Duration::ZERO;
    for error in &missing {
        let app = plan.app_at(error.address()).unwrap_or_default();
        // The attempt to start its worker says it.
        debug!("app={app} {error}; it is tried again");
        let time = plan.apps.get(app).map(|app| app.policy.graceful_timeout);
        patience = patience.max(time.unwrap_or_default());
    }
    let holders = missing.iter().flat_map(|error| error.holders());
    let orphans = Orphans::among(holders.copied(), patience);
    let earlier = (earlier, orphans);
    master::run(configuration, plan, listeners, signals, ready_fd, earlier)
        .map_err(because("cannot continue"))
}
