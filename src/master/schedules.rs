//! Apps with a schedule: when each has to run, which run goes on, and how the last one has ended.
//!
//! A run is a job. There is one at a time: a time that comes while one goes on is left out. Times that were missed, because the
//! machine slept or the clock was set, are made up for by one run.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use log::{debug, error, info, warn};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::jobs::{Ended, Jobs, Limits, Task};
use super::report;
use super::turn::Turn;
use super::world::{Left, Private, Role, Start, World};
use crate::plan::{Plan, Scheduled};
use crate::release::{Generation, Name};
use crate::schedule::appointments::{Appointments, Clock, Due};

/// The maximum number of runs that are started per turn.
const MAX_STARTS: usize = 32;

/// A change of the clock by less is none: the clock is adjusted all the time.
const CHANGE: SignedDuration = SignedDuration::from_secs(1);

/// A run that begins later than this is made up for.
const LATE: Duration = Duration::from_secs(60);

/// A run that goes on.
struct Running {
    pid: Pid,
    began: Timestamp,
    /// How many times were left out meanwhile.
    left_out: u32,
}

/// A run that has ended.
struct Last {
    began: Timestamp,
    time: Duration,
    verdict: Result<(), String>,
}

struct App {
    plan: Scheduled,
    generation: Generation,
    appointments: Appointments,
    running: Option<Running>,
    last: Option<Last>,
    /// It is no longer configured, or stopped, and its last run goes on.
    removed: bool,
    /// It is not run for now.
    paused: bool,
}

/// All apps with a schedule.
#[derive(Default)]
pub(super) struct Schedules {
    apps: BTreeMap<Name, App>,
    /// The clocks at the last look.
    seen: Option<Clock>,
    /// Nothing is started any more.
    stopped: bool,
}

impl Schedules {
    /// Follows the schedules of a configuration that takes over, which `concerns` these apps and leaves the others as they are. Runs
    /// that go on are left alone, except those of apps that are stopped.
    pub(super) fn follow<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        plan: &Plan,
        generation: Generation,
        concerns: impl Fn(&str) -> bool,
    ) {
        let wanted = &plan.scheduled;
        self.resume(turn, &concerns);
        let clock = turn.world.clock();
        self.note_clock(clock);
        for (name, app) in &mut self.apps {
            let removed = !wanted.contains_key(&**name);
            if plan.stopped.contains(&**name) {
                if !app.removed {
                    info!("app={name}: stopped; it is not run any more");
                }
                jobs.abandon(turn, |task| matches!(task, Task::Run(of, _) if of == name));
            } else if removed && !app.removed {
                let rest = match app.running {
                    Some(_) => "the run that goes on is left to finish",
                    None => "it is not run any more",
                };
                info!("app={name}: its schedule is no longer configured; {rest}");
            }
            app.removed = removed;
        }
        self.apps
            .retain(|_, app| !app.removed || app.running.is_some());
        for (name, plan) in wanted {
            let name = Name::from(name.as_str());
            let known = self.apps.remove(&name);
            let paused = known.as_ref().is_some_and(|app| app.paused);
            let own = known.as_ref().map(|app| app.generation);
            let generation = own.filter(|_| !concerns(&name)).unwrap_or(generation);
            let (running, last, known) = match known {
                Some(app) => {
                    let is_same = app.plan.cron == plan.cron && app.plan.zone == plan.zone;
                    // The times at which it could not be run were not missed by chance.
                    let was_fit = app.plan.app.unfit.is_none();
                    let known = (is_same && was_fit).then_some(app.appointments);
                    (app.running, app.last, known)
                }
                None => (None, None, None),
            };
            let unfit = plan.app.unfit.as_ref();
            let appointments = match (known, plan.times()) {
                (Some(known), _) => known,
                (None, Ok(times)) => {
                    let new = Appointments::new(times, clock.wall);
                    if unfit.is_none() {
                        info!("app={name}: next run at {}", next(&new));
                    }
                    new
                }
                (None, Err(error)) => {
                    error!("app={name}: {error}; it is not run until the next reload");
                    continue;
                }
            };
            if let Some(why) = unfit.filter(|_| own != Some(generation)) {
                error!("app={name} gen={generation}: {why}; it is not run until the next reload");
            }
            let app = App {
                plan: plan.clone(),
                generation,
                appointments,
                running,
                last,
                removed: false,
                paused,
            };
            self.apps.insert(name, app);
        }
        self.set_alarm(turn);
    }

    /// Starts what is due. To be called when the alarm has ended.
    pub(super) fn look<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        if self.stopped {
            return;
        }
        let clock = turn.world.clock();
        self.note_clock(clock);
        let mut starts = 0;
        for (name, app) in self.apps.iter_mut().filter(|(_, app)| app.is_active()) {
            if starts == MAX_STARTS {
                break;
            }
            if let Some(due) = app.appointments.take_due(clock.wall) {
                starts += usize::from(app.is_due(turn, jobs, name, due, clock.wall));
            }
        }
        self.set_alarm(turn);
    }

    /// Recomputes what depends on the clock, if it was set.
    fn note_clock(&mut self, clock: Clock) {
        let seen = self.seen.replace(clock).unwrap_or(clock);
        let by = clock.was_set_since(&seen);
        if by.abs() < CHANGE || self.apps.is_empty() {
            return;
        }
        let where_to = if by.is_negative() { "back" } else { "forward" };
        info!(
            "the clock was set {where_to} by {}; the schedules follow it",
            report::short(by.unsigned_abs())
        );
        for app in self.apps.values_mut() {
            app.appointments.clock_was_set(by, clock.wall);
        }
    }

    /// The alarm ends at the earliest time, and when the clock is set.
    fn set_alarm<W: World>(&mut self, turn: &mut Turn<W>) {
        let apps = self.apps.values().filter(|app| app.is_active());
        let next = apps.filter_map(|app| app.appointments.next()).min();
        let next = next.filter(|_| !self.stopped);
        turn.world.set_alarm(next);
    }

    /// Starts nothing until it is resumed.
    pub(super) fn pause<W: World>(&mut self, turn: &mut Turn<W>) {
        for app in self.apps.values_mut() {
            app.paused = true;
        }
        self.set_alarm(turn);
    }

    /// Goes on with these apps, without what has been due meanwhile.
    pub(super) fn resume<W: World>(&mut self, turn: &mut Turn<W>, which: impl Fn(&str) -> bool) {
        let clock = turn.world.clock();
        self.note_clock(clock);
        for (name, app) in &mut self.apps {
            if app.paused && which(name) {
                app.paused = false;
                app.appointments.skip(clock.wall);
            }
        }
        self.set_alarm(turn);
    }

    /// Starts nothing any more.
    pub(super) fn stop<W: World>(&mut self, turn: &mut Turn<W>) {
        self.stopped = true;
        self.set_alarm(turn);
    }

    /// A run has ended.
    pub(super) fn ended(&mut self, name: &Name, run: &Ended) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let Some(Running {
            began, left_out, ..
        }) = app.running.take()
        else {
            return;
        };
        let (task, pid, time) = (&run.task, run.pid, run.time);
        let left_out = match left_out {
            0 => String::new(),
            1 => "; one time was left out meanwhile".into(),
            several => format!("; {several} times were left out meanwhile"),
        };
        match &run.verdict {
            Ok(()) => info!(
                "{task} pid={pid}: succeeded after {}{left_out}",
                report::short(time)
            ),
            Err(why) if run.abandoned => info!("{task} pid={pid}: ended (stop): {why}"),
            Err(why) => {
                let output = report::last_output(run.output.as_deref());
                let next = match app.removed {
                    true => "its app is no longer configured".into(),
                    false => format!("next run at {}", next(&app.appointments)),
                };
                error!("{task} pid={pid}: failed: {why}{output}{left_out}; {next}");
            }
        }
        app.last = Some(Last {
            began,
            time,
            verdict: run.verdict.clone(),
        });
        if app.removed {
            self.apps.remove(name);
        }
    }

    /// How long a run may take to end when it is told to.
    pub(super) fn grace(&self, name: &Name) -> Duration {
        let app = self.apps.get(name);
        app.map_or(Duration::ZERO, |app| app.plan.app.policy.graceful_timeout)
    }

    /// The longest that runs may take to end.
    pub(super) fn time_to_stop(&self) -> Option<Duration> {
        let running = self.apps.values().filter(|app| app.running.is_some());
        running.map(|app| app.plan.app.time_to_stop()).max()
    }

    /// Whether an app has a schedule.
    pub(super) fn has(&self, name: &str) -> bool {
        self.apps.get(name).is_some_and(|app| !app.removed)
    }

    /// Whether an app is run at its times, if it has a schedule.
    pub(super) fn goes_on(&self, name: &str) -> bool {
        let app = self.apps.get(name);
        app.is_none_or(|app| !app.paused && app.plan.app.unfit.is_none())
    }

    /// The names of the apps that have all that their runs need.
    pub(super) fn fit(&self) -> impl Iterator<Item = &str> {
        let fit = |app: &App| !app.removed && app.plan.app.unfit.is_none();
        let apps = self.apps.iter().filter(move |(_, app)| fit(app));
        apps.map(|(name, _)| &**name)
    }

    /// The names of the apps that are not run, because they lack something.
    pub(super) fn unfit(&self) -> impl Iterator<Item = &str> {
        let unfit = |app: &App| !app.removed && app.plan.app.unfit.is_some();
        let apps = self.apps.iter().filter(move |(_, app)| unfit(app));
        apps.map(|(name, _)| &**name)
    }

    /// Whether an app is no longer configured, or stopped, and its last run goes on.
    pub(super) fn is_leaving(&self, name: &str) -> bool {
        self.apps.get(name).is_some_and(|app| app.removed)
    }

    /// The number of apps that are configured.
    pub(super) fn len(&self) -> usize {
        self.apps.values().filter(|app| !app.removed).count()
    }

    /// Their status.
    pub(super) fn status(&self, now: Timestamp) -> Vec<Value> {
        let apps = self.apps.iter().filter(|(_, app)| !app.removed);
        apps.map(|(name, app)| app.status(name, app.is_active() && !self.stopped, now))
            .collect()
    }
}

impl App {
    fn is_active(&self) -> bool {
        !self.removed && !self.paused && self.plan.app.unfit.is_none()
    }

    /// Starts the run that is due, unless one goes on. Returns whether it was started.
    fn is_due<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        name: &Name,
        due: Due,
        now: Timestamp,
    ) -> bool {
        let (times, plan) = (self.appointments.times(), &self.plan.app);
        let task = Task::Run(name.clone(), self.generation);
        if let Some(running) = &mut self.running {
            running.left_out += 1;
            if running.left_out == 1 {
                let (at, pid) = (times.show(due.at), running.pid);
                let time = report::short(between(running.began, now));
                warn!(
                    "{task}: left out at {at}: the run before, pid={pid}, still goes on after {time}"
                );
            }
            return false;
        }
        if let Some(killed) = turn.world.earlier_left(&Left::Of(name)) {
            let at = times.show(due.at);
            warn!("{task}: left out at {at}, because of {killed}");
            return false;
        }
        if due.late > LATE {
            let (at, late) = (times.show(due.at), report::short(due.late));
            info!("{task}: making up for the run of {at}, which was missed {late} ago");
        }
        let started = turn.world.start(&Start {
            app: name,
            plan,
            launch: &plan.launch,
            role: Role::Run,
            generation: self.generation,
            captured: true,
            private: Private::None,
        });
        match started {
            Ok(pid) => {
                debug!("{task} pid={pid}: started");
                let limits = Limits {
                    time: self.plan.timeout,
                    grace: plan.policy.graceful_timeout,
                };
                jobs.add(turn, pid, task, limits);
                self.running = Some(Running {
                    pid,
                    began: now,
                    left_out: 0,
                });
            }
            Err(error) => {
                let why = format!("cannot be started: {error}");
                error!("{task}: {why}; next run at {}", next(&self.appointments));
                self.last = Some(Last {
                    began: now,
                    time: Duration::ZERO,
                    verdict: Err(why),
                });
            }
        }
        true
    }

    fn status(&self, name: &Name, is_active: bool, now: Timestamp) -> Value {
        let times = self.appointments.times();
        let show = |at: Timestamp| times.show(at).to_string();
        let running = self.running.as_ref().map(|running| {
            json!({
                "pid": running.pid.as_raw(),
                "age": between(running.began, now).as_secs_f64(),
                "left_out": running.left_out,
            })
        });
        let last = self.last.as_ref().map(|last| {
            json!({
                "began": show(last.began),
                "time": last.time.as_secs_f64(),
                "succeeded": last.verdict.is_ok(),
                "why": last.verdict.as_ref().err(),
            })
        });
        json!({
            "name": &**name,
            "generation": self.generation,
            "cron": self.plan.cron,
            "timezone": self.plan.zone.name(),
            "next": self.appointments.next().filter(|_| is_active).map(show),
            "paused": !is_active && self.plan.app.unfit.is_none(),
            "not_run": self.plan.app.unfit,
            "running": running,
            "last": last,
        })
    }
}

/// The next run, for the log.
fn next(appointments: &Appointments) -> String {
    let next = appointments.next();
    next.map_or("no time any more".into(), |at| {
        appointments.times().show(at).to_string()
    })
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
