//! The preparation of a generation, before its first worker: a job checks the configuration, listeners and log files are opened,
//! and each app's command `before` must succeed. Everything opened is closed again if the candidate fails.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::unistd::Pid;

use super::earlier;
use super::jobs::{Ended, Jobs, Limits, Task};
use super::proposal::Proposal;
use super::report;
use super::turn::Turn;
use super::workers::children::Children;
use super::world::{Left, NotOpened, Opened, Private, Role, Start, World};
use crate::plan::{App, Extent, LogFile, Plan, TRIED_AGAIN};
use crate::release::{Fact, Generation, Name};

/// The time limits of the configuration check, which may wait for name services and slow disks.
pub(super) const CHECK: Limits = Limits {
    time: Some(Duration::from_secs(60)),
    grace: Duration::from_secs(2),
};

/// The time in which a log file must be opened.
const OPENING: Duration = Duration::from_secs(10);

/// A checked configuration, and what was opened for it.
pub(super) struct Candidate {
    pub(super) plan: Plan,
    /// The apps that continue as they run.
    pub(super) kept: BTreeSet<String>,
    /// The apps that must start, besides those that are required.
    must_start: BTreeSet<String>,
    log_files: Vec<LogFile>,
    /// The apps whose command `before` was run.
    ran: BTreeSet<Name>,
}

impl Candidate {
    /// Starts no process of the apps that write this file, for this reason. Returns false, and changes nothing, if one of them must start.
    fn do_without(&mut self, file: &LogFile, reason: &str) -> bool {
        let (must_start, kept) = (&self.must_start, &self.kept);
        let is_needed = |(name, app): &(&str, &App)| {
            app.writes(file) && (app.required || must_start.contains(*name) || kept.contains(*name))
        };
        if self.plan.all_apps().any(|app| is_needed(&app)) {
            return false;
        }
        let apps = self.plan.all_apps_mut().map(|(_, app)| app);
        for app in apps.filter(|app| app.writes(file)) {
            app.unfit = Some(reason.to_owned());
        }
        true
    }
}

enum Step {
    /// The job that checks the configuration is running.
    Checking,
    /// These log files are being opened, until this time at most.
    Opening(BTreeSet<LogFile>, Instant),
    /// The command of one app is running; these apps are left.
    Command(VecDeque<Name>),
    /// The next command waits for the end of another one of the same app, which is not this preparation's.
    Blocked(VecDeque<Name>),
    /// Everything is prepared, and the release was not told yet.
    Ready,
}

/// The preparation that is under way, and the candidate that it has prepared.
#[derive(Default)]
pub(super) struct Preparation {
    step: Option<Step>,
    candidate: Option<Candidate>,
    /// The app whose command waits for what an earlier master has left, and when to look again.
    awaited: Option<(Name, Instant)>,
    /// Whether this is the first start, which runs only those commands `before` that are wanted there.
    is_first: bool,
    generation: Generation,
}

impl Preparation {
    /// Begins with a configuration that was checked, and whose listeners are open.
    pub(super) fn begin_first<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        plan: Plan,
        generation: Generation,
    ) {
        self.is_first = true;
        self.generation = generation;
        self.open_log_files(turn, Proposal::of_all(plan));
    }

    /// Begins with the check of the configuration, which is to become this generation, for a release of this extent.
    pub(super) fn begin<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        generation: Generation,
        extent: &Extent,
    ) {
        self.set_out(generation);
        match turn.world.start_check(extent) {
            Ok(pid) => {
                self.step = Some(Step::Checking);
                jobs.add(turn, pid, Task::Check, CHECK);
            }
            Err(error) => self.fail(
                turn,
                format!("cannot start the process that checks the configuration: {error}"),
            ),
        }
    }

    fn set_out(&mut self, generation: Generation) {
        self.is_first = false;
        self.generation = generation;
    }

    /// Begins with a plan that needs no check, as it is a part of the running one.
    pub(super) fn begin_checked<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        children: &Children,
        generation: Generation,
        proposal: Proposal,
    ) {
        self.set_out(generation);
        self.open(turn, children, proposal);
    }

    /// The job that checked the configuration has ended. Returns what it has found; if that is nothing, the preparation has failed.
    pub(super) fn checked<W: World>(&mut self, turn: &mut Turn<W>, ended: Ended) -> Option<Plan> {
        let found = turn.world.checked(ended.pid);
        if self.step.take().is_none() {
            turn.queue_fact(Fact::NotPrepared("the master is stopping".into()));
            return None;
        }
        let reason = match (ended.verdict, found) {
            (_, Ok(plan)) => return Some(plan),
            // The reason is the result of the check, not the exit status of the process.
            (Err(_), Err(reason)) if !reason.is_empty() => reason,
            (Err(end), Err(_)) => format!("the check of the configuration {end}"),
            (Ok(()), Err(reason)) => reason,
        };
        self.fail(turn, reason);
        None
    }

    /// Opens the listeners and log files of a plan.
    pub(super) fn open<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        children: &Children,
        mut proposal: Proposal,
    ) {
        if let Some(reason) = proposal.unfit().map(str::to_owned) {
            return self.fail(turn, reason);
        }
        let opened = turn
            .world
            .open_listeners(&proposal.listeners, self.generation);
        match opened {
            Ok(Opened {
                new: listeners,
                missing,
            }) => {
                if let Some(reason) = proposal.waits(&missing) {
                    turn.world.close_listeners();
                    return self.fail(turn, reason.to_owned());
                }
                for (address, why) in &missing {
                    let app = proposal.plan.app_at(address).unwrap_or_default();
                    // The attempt to start its worker says it.
                    debug!("app={app} {why}; not required, so it is tried again");
                }
                // Their workers would not get the new sockets.
                for name in proposal.take_back(&listeners) {
                    info!("app={name}: it has a new socket, so its workers are replaced");
                }
                self.open_log_files(turn, proposal);
            }
            Err(NotOpened {
                why,
                address,
                holders,
            }) => {
                let mut workers = holders.iter().filter_map(|pid| children.get(*pid));
                let reason = match workers.next() {
                    Some(child) => report::held_by(&address, &child.app),
                    None => why,
                };
                self.fail(turn, reason);
            }
        }
    }

    fn open_log_files<W: World>(&mut self, turn: &mut Turn<W>, proposal: Proposal) {
        let Proposal {
            plan,
            kept,
            must_start,
            ..
        } = proposal;
        let unfit = |app: &str| plan.app(app).and_then(|app| app.unfit.as_deref());
        // What keeps its workers from being started is said then.
        let is_said = |(app, warning): &(&str, &str)| {
            kept.contains(*app)
                || warning.ends_with(TRIED_AGAIN)
                || unfit(app).is_some_and(|why| warning.starts_with(why))
        };
        for (app, warning) in plan.warnings().filter(|warning| !is_said(warning)) {
            warn!("app={app} {warning}");
        }
        for (app, notice) in plan.notices().filter(|(app, _)| !kept.contains(*app)) {
            info!("app={app} {notice}");
        }
        let opened = turn.world.open_log_files(&plan.log_files());
        let (log_files, reason) = match opened {
            Ok(files) => (files, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        let waiting = log_files.iter().cloned().collect();
        self.step = Some(Step::Opening(waiting, turn.now + OPENING));
        self.candidate = Some(Candidate {
            plan,
            kept,
            must_start,
            log_files,
            ran: BTreeSet::new(),
        });
        match reason {
            Some(reason) => self.fail(turn, reason),
            None => self.continue_when_open(),
        }
    }

    /// Log files were opened, or could not be.
    pub(super) fn opened<W: World>(&mut self, turn: &mut Turn<W>) {
        for (file, result) in turn.world.opened_log_files() {
            if let Some(Step::Opening(waiting, _)) = &mut self.step
                && waiting.remove(&file)
                && let Err(reason) = result
            {
                self.file_failed(turn, &file, reason);
            }
        }
        self.continue_when_open();
    }

    /// A log file is not open. An app that is not required is not started then; any other one refuses the release.
    fn file_failed<W>(&mut self, turn: &mut Turn<W>, file: &LogFile, reason: String) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        candidate.log_files.retain(|open| open != file);
        if !candidate.do_without(file, &reason) {
            self.fail(turn, reason);
        }
    }

    /// The time limit for opening the log files, or when to look again whether a command must wait.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Some(Step::Opening(_, until)) => Some(*until),
            _ => self.awaited.as_ref().map(|(_, at)| *at),
        }
    }

    /// Gives up log files that are not open in time.
    pub(super) fn give_up_opening<W: World>(&mut self, turn: &mut Turn<W>) {
        let Some(Step::Opening(waiting, until)) = &mut self.step else {
            return;
        };
        if *until > turn.now {
            return;
        }
        let time = report::short(OPENING);
        for file in std::mem::take(waiting) {
            let target = &file.target;
            let reason = format!(
                "cannot write {target}: it was not opened within {time} (check the disk, or the name service)"
            );
            turn.world.close_log_files(std::slice::from_ref(&file));
            self.file_failed(turn, &file, reason);
        }
        self.continue_when_open();
    }

    fn continue_when_open(&mut self) {
        if let Some(Step::Opening(waiting, _)) = &self.step
            && waiting.is_empty()
        {
            self.step = Some(Step::Ready);
        }
    }

    /// Whether the command `before` of an app is still to be run for the candidate.
    pub(super) fn owes_command(&self, name: &Name) -> bool {
        let Some(candidate) = &self.candidate else {
            return false;
        };
        let is_due = |app: &App| {
            app.before.is_some() && (app.before_at_start || !self.is_first) && app.unfit.is_none()
        };
        candidate.plan.apps.get(&**name).is_some_and(is_due)
            && !candidate.kept.contains(&**name)
            && !candidate.ran.contains(name)
    }

    /// Runs the commands `before` of these apps, one after another.
    pub(super) fn run_commands<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        names: VecDeque<Name>,
    ) {
        self.next_command(turn, jobs, names);
    }

    /// Whether the command of this app is running, or is about to.
    pub(super) fn runs_command(&self, name: &Name) -> bool {
        match &self.step {
            Some(Step::Command(left) | Step::Blocked(left)) => left.contains(name),
            _ => false,
        }
    }

    /// A command that was not this preparation's has ended.
    pub(super) fn proceed<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        if let Some(Step::Blocked(left)) = &mut self.step {
            let left = std::mem::take(left);
            self.next_command(turn, jobs, left);
        }
    }

    fn next_command<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        mut left: VecDeque<Name>,
    ) {
        let awaited = self.awaited.take();
        let Some(candidate) = &self.candidate else {
            return;
        };
        let Some(name) = left.pop_front() else {
            self.step = Some(Step::Ready);
            return;
        };
        let earlier = Task::Before(name.clone());
        if jobs.has(&earlier) {
            jobs.abandon(turn, |task| *task == earlier);
            left.push_front(name);
            self.step = Some(Step::Blocked(left));
            return;
        }
        let Some(app) = candidate.plan.apps.get(&*name) else {
            return self.next_command(turn, jobs, left);
        };
        if let Some(killed) = turn.world.earlier_left(&Left::CommandOf(&name)) {
            if awaited.is_none_or(|(app, _)| app != name) {
                info!("app={name} before: waiting for {killed}");
            }
            left.push_front(name.clone());
            self.step = Some(Step::Blocked(left));
            self.awaited = Some((name, turn.now + earlier::EVERY));
            return;
        }
        match start_command(turn, jobs, &name, app, self.generation) {
            Ok(_) => self.step = Some(Step::Command(left)),
            Err(reason) => self.command_failed(turn, jobs, &name, left, reason),
        }
    }

    /// Whether a command waits for what an earlier master has left.
    pub(super) fn waits(&self) -> bool {
        self.awaited.is_some()
    }

    /// Runs the command that has waited for what an earlier master has left, if it need not any longer.
    pub(super) fn look_again<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        match &self.step {
            Some(Step::Blocked(_)) => {
                if self.awaited.as_ref().is_some_and(|(_, at)| *at <= turn.now) {
                    self.proceed(turn, jobs);
                }
            }
            _ => self.awaited = None,
        }
    }

    /// The command of an app has failed. One that is not required is not started then; if it serves, or a command
    /// names it, that refuses the release.
    fn command_failed<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        name: &Name,
        left: VecDeque<Name>,
        reason: String,
    ) {
        let candidate = self.candidate.as_mut();
        let may_fail = candidate.filter(|candidate| !candidate.must_start.contains(&**name));
        let app = may_fail.and_then(|candidate| candidate.plan.apps.get_mut(&**name));
        match app.filter(|app| !app.required) {
            Some(app) => {
                app.unfit = Some(reason);
                self.next_command(turn, jobs, left);
            }
            None => self.fail(turn, reason),
        }
    }

    /// The command of an app has ended.
    pub(super) fn command_ended<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        name: &Name,
        ended: Ended,
    ) {
        let Some(Step::Command(left)) = self.step.take() else {
            return turn.queue_fact(Fact::NotPrepared("the master is stopping".into()));
        };
        if let Some(candidate) = &mut self.candidate {
            candidate.ran.insert(name.clone());
        }
        match verdict(name, ended) {
            Ok(()) => self.next_command(turn, jobs, left),
            Err(reason) => self.command_failed(turn, jobs, name, left, reason),
        }
    }

    /// The preparation has failed.
    pub(super) fn fail<W>(&mut self, turn: &mut Turn<W>, reason: String) {
        self.step = None;
        turn.queue_fact(Fact::NotPrepared(reason));
    }

    /// Abandons the preparation: its result is no longer needed.
    pub(super) fn abandon<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        jobs.abandon(turn, |task| matches!(task, Task::Check | Task::Before(_)));
        if self
            .step
            .take()
            .is_some_and(|step| matches!(step, Step::Opening(..) | Step::Blocked(_) | Step::Ready))
        {
            self.discard(turn);
        }
    }

    /// Whether everything has been prepared since this was last asked.
    pub(super) fn is_ready(&mut self) -> bool {
        self.step
            .take_if(|step| matches!(step, Step::Ready))
            .is_some()
    }

    /// What goes on with a configuration that was checked.
    pub(super) fn what_runs(&self) -> Option<&'static str> {
        match &self.step {
            Some(Step::Opening(..)) => Some("the log files to be opened"),
            Some(Step::Command(_) | Step::Blocked(_)) => Some("the commands `before`"),
            Some(Step::Checking | Step::Ready) | None => None,
        }
    }

    /// The prepared candidate.
    pub(super) fn candidate(&self) -> Option<&Candidate> {
        self.candidate.as_ref()
    }

    /// The app of the prepared candidate, to change it.
    pub(super) fn candidate_app(&mut self, name: &str) -> Option<&mut App> {
        self.candidate.as_mut()?.plan.apps.get_mut(name)
    }

    /// Takes the prepared candidate.
    pub(super) fn take(&mut self) -> Option<Candidate> {
        self.candidate.take()
    }

    /// Closes everything that was opened for the candidate.
    pub(super) fn discard<W: World>(&mut self, turn: &mut Turn<W>) {
        if let Some(candidate) = self.candidate.take() {
            turn.world.close_listeners();
            turn.world.close_log_files(&candidate.log_files);
        }
    }
}

/// Starts the command `before` of an app.
///
/// # Errors
/// No process can be started, for this reason.
pub(super) fn start_command<W: World>(
    turn: &mut Turn<W>,
    jobs: &mut Jobs,
    name: &Name,
    app: &App,
    generation: Generation,
) -> Result<Pid, String> {
    let Some(command) = &app.before else {
        return Err(format!("app={name}: it has no command `before`"));
    };
    let started = turn.world.start(&Start {
        app: name,
        plan: app,
        launch: command,
        role: Role::Job,
        generation,
        captured: true,
        private: Private::None,
    });
    let pid = started
        .map_err(|error| format!("app={name}: its command `before` cannot be started: {error}"))?;
    let limits = Limits {
        time: Some(app.policy.start_timeout),
        grace: app.policy.graceful_timeout,
    };
    info!(
        "app={name} before pid={pid}: running {}",
        command.args.join(" ")
    );
    jobs.add(turn, pid, Task::Before(name.clone()), limits);
    Ok(pid)
}

/// Logs how the command `before` of an app has ended.
///
/// # Errors
/// It has failed, for this reason.
pub(super) fn verdict(name: &Name, ended: Ended) -> Result<(), String> {
    let (pid, time) = (ended.pid, report::short(ended.time));
    match ended.verdict {
        Ok(()) => {
            info!("app={name} before pid={pid}: succeeded after {time}");
            Ok(())
        }
        Err(why) => {
            let why = why + &report::last_output(ended.output.as_deref());
            error!("app={name} before pid={pid}: {why}");
            Err(format!("app={name}: its command `before` {why}"))
        }
    }
}
