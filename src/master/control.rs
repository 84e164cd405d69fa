//! Clients of the control socket, and their pending requests: status, scale, stop, reopen. Requests about a release are in
//! [`super::choices`].
//!
//! An answer begins with a line `ok` or `error REASON`; the result follows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use preforkd_worker::metrics::{self, Cause};
use serde_json::{Value, json};

use super::census::{self, Census};
use super::checks::Checks;
use super::later::Later;
use super::report;
use super::schedules::Schedules;
use super::selection::{StoppedBy, is_stopped_text};
use super::sites;
use super::turn::Turn;
use super::workers::children::Child;
use super::workers::{App, Workers};
use super::world::{ClientId, World};
use crate::logging::recent;
use crate::plan;
use crate::release::Name;
use crate::supervisor::{Counts, Readiness, Replace};

/// The interval of attempts to accept clients when no descriptor was available.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// The events after that of this number, one a line.
pub(super) fn events(number: u64) -> String {
    let events = recent::after(number);
    // It is made of texts and numbers.
    let lines = events
        .iter()
        .flat_map(|event| serde_json::to_string(event).ok());
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// The maximum number of workers of an app.
const MAX_WORKERS: i32 = 10_000;

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Show all apps and workers.
    Status,
    /// Show what the front has counted.
    Metrics,
    /// Show what has happened.
    Events,
    /// Show what happens after that, as soon as it does, until the client leaves or the master ends.
    Follow(u64),
    /// Forget stored responses: all, or of these sites and URLs.
    Purge(Vec<String>),
    /// Reload, as with HUP; only some apps if they are named.
    Reload(BTreeSet<Name>),
    /// Tell what a reload would do, of all apps or of those that are named.
    Plan(BTreeSet<Name>),
    /// Name the file of the configuration.
    Configuration,
    /// Stop, as with TERM; only some apps if they are named.
    Stop(BTreeSet<Name>),
    /// Start apps.
    Start(BTreeSet<Name>),
    /// Stop apps, and start them again.
    Restart(BTreeSet<Name>),
    /// Reopen the log files, as with USR1.
    Reopen,
    /// `web=4`, `web=+1`, `web=-1`.
    Scale(String),
}

impl Command {
    /// Parses a request.
    pub(super) fn parse(request: &str) -> Option<Self> {
        let words: Vec<&str> = request.split_whitespace().collect();
        let named = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
        Some(match words[..] {
            ["status"] => Self::Status,
            ["metrics"] => Self::Metrics,
            ["events"] => Self::Events,
            ["follow", last] => Self::Follow(last.parse().ok()?),
            ["purge", ref what @ ..] => {
                Self::Purge(what.iter().map(|word| (*word).to_owned()).collect())
            }
            ["reload", ref names @ ..] => Self::Reload(named(names)),
            ["plan", ref names @ ..] => Self::Plan(named(names)),
            ["configuration"] => Self::Configuration,
            ["stop", ref names @ ..] => Self::Stop(named(names)),
            ["start", ref names @ ..] if !names.is_empty() => Self::Start(named(names)),
            ["restart", ref names @ ..] if !names.is_empty() => Self::Restart(named(names)),
            ["reopen"] => Self::Reopen,
            ["scale", what] => Self::Scale(what.to_owned()),
            _ => return None,
        })
    }
}

/// A status that is being collected. Reading the memory of a process takes the kernel time in proportion to its size, so only
/// one is read per turn.
struct Gathering {
    clients: Vec<ClientId>,
    left: Vec<Pid>,
    memory: HashMap<Pid, u64>,
}

/// The state of the master as a whole, for its status.
pub(super) struct Whole<'a> {
    pub(super) generation: Option<u64>,
    pub(super) phase: &'a str,
    pub(super) refused: Option<&'a str>,
    pub(super) stopped: BTreeMap<String, StoppedBy>,
    /// The apps that are started when others are ready.
    pub(super) later: Vec<Later>,
    pub(super) schedules: &'a Schedules,
    pub(super) checks: &'a Checks,
    pub(super) census: &'a Census,
    /// Whether requests should be sent here, as /readyz says.
    pub(super) is_ready: bool,
    /// The plan that runs.
    pub(super) plan: Option<&'a plan::Plan>,
}

/// The waiting clients.
#[derive(Default)]
pub(super) struct Control {
    /// When to accept clients again, after a failure.
    accept_at: Option<Instant>,
    /// Waiting until an app has the wanted number of workers.
    scaled: Vec<(ClientId, Name)>,
    stop: Vec<ClientId>,
    /// They are told of what happens, and were told last of the event of this number.
    followers: Vec<(ClientId, u64)>,
    status: Option<Gathering>,
}

impl Control {
    /// Accepts clients.
    pub(super) fn accept<W: World>(&mut self, turn: &mut Turn<W>) {
        let more = turn.world.accept_clients();
        self.accept_at = more.then(|| turn.now + ACCEPT_RETRY);
    }

    /// When there is something to do again.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let gathers = self.status.as_ref().map(|_| now);
        gathers.into_iter().chain(self.accept_at).min()
    }

    /// Retries what has failed, and continues a status.
    pub(super) fn resume<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        workers: &Workers,
        whole: &Whole<'_>,
    ) {
        if self.accept_at.is_some_and(|at| at <= turn.now) {
            self.accept(turn);
        }
        let Some(status) = &mut self.status else {
            return;
        };
        if let Some(pid) = status.left.pop() {
            // One that was reaped meanwhile is skipped.
            let bytes = workers
                .children
                .get(pid)
                .filter(|child| child.adopted)
                .and_then(|_| turn.world.memory(pid));
            status.memory.extend(bytes.map(|bytes| (pid, bytes)));
            return;
        }
        if let Some(Gathering {
            clients, memory, ..
        }) = self.status.take()
        {
            let status = status_json(turn, workers, whole, &memory);
            for client in clients {
                turn.world.answer(client, &format!("ok\n{status}\n"));
            }
        }
    }

    /// A client requests the status.
    pub(super) fn add_status(&mut self, workers: &Workers, client: ClientId) {
        let status = self.status.get_or_insert_with(|| {
            let children = workers.apps.keys();
            let children = children.flat_map(|name| workers.children.of(name));
            let children = children.filter(|(_, child)| child.adopted);
            Gathering {
                clients: Vec::new(),
                left: children.map(|(pid, _)| pid).collect(),
                memory: HashMap::new(),
            }
        });
        status.clients.push(client);
    }

    /// A client is told of what happens after the event of this number.
    pub(super) fn add_follower<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        client: ClientId,
        number: u64,
    ) {
        let known = recent::last();
        if turn.world.send(client, &format!("ok\n{}", events(number))) {
            self.followers.push((client, known));
        }
    }

    /// Tells those that follow what has happened since. Those that have left meanwhile are forgotten then.
    pub(super) fn tell_followers<W: World>(&mut self, turn: &mut Turn<W>) {
        let known = recent::last();
        self.followers.retain_mut(|(client, last)| {
            let told = std::mem::replace(last, known);
            told == known || turn.world.send(*client, &events(told))
        });
    }

    /// A client waits for the end.
    pub(super) fn wait_for_stop(&mut self, client: ClientId) {
        self.stop.push(client);
    }

    /// A client waits until an app has the wanted number of workers.
    pub(super) fn wait_for_scale(&mut self, client: ClientId, app: Name) {
        self.scaled.push((client, app));
    }

    /// Answers clients that wait for a number of workers, if it is reached or will not be.
    pub(super) fn answer_scaled<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        workers: &Workers,
        stopping: bool,
    ) {
        self.scaled.retain(|(client, name)| {
            let app = workers.apps.get(name).filter(|app| !app.removed);
            let answer = match app.filter(|_| !stopping) {
                Some(app) => scaled(name, app),
                None => Some(format!("error {name} is being stopped\n")),
            };
            if let Some(answer) = &answer {
                turn.world.answer(*client, answer);
            }
            answer.is_none()
        });
    }

    /// Everything has ended.
    pub(super) fn stop_ends<W: World>(&mut self, turn: &mut Turn<W>) {
        self.tell_followers(turn);
        for client in self.stop.drain(..) {
            turn.world.answer(client, "ok\n");
        }
        for client in self
            .status
            .take()
            .into_iter()
            .flat_map(|status| status.clients)
        {
            turn.world.answer(client, "error the master has stopped\n");
        }
    }
}

/// The app to scale, and the difference.
///
/// # Errors
/// The request is invalid, for this reason.
pub(super) fn scale(
    what: &str,
    workers: &Workers,
    stopped: &BTreeMap<String, StoppedBy>,
    schedules: &Schedules,
) -> Result<(Name, i32), String> {
    let (name, number) = what
        .split_once('=')
        .ok_or("expected APP=NUMBER, such as web=4")?;
    if schedules.has(name) {
        return Err(format!(
            "{name} has a schedule, and so no workers, but one run at a time"
        ));
    }
    let found = workers.configured().find(|(known, _)| &***known == name);
    if found.is_none() && stopped.contains_key(name) {
        return Err(is_stopped_text(name));
    }
    let Some((name, app)) = found else {
        let names: Vec<_> = workers.configured().map(|(name, _)| &**name).collect();
        return Err(format!(
            "there is no app \"{name}\" (configured: {})",
            names.join(", ")
        ));
    };
    let is_task = |plan: &plan::App| plan.policy.readiness == Readiness::Finished;
    if app.plans.values().any(|plan| is_task(plan)) {
        return Err(format!("{name} is a task of the release, and runs once"));
    }
    let given: i32 = number
        .parse()
        .map_err(|_| format!("\"{number}\" is not a number of workers"))?;
    let wanted = app.supervisor.counts().wanted as i32;
    let by = match number.starts_with(['+', '-']) {
        true => given,
        false => given.saturating_sub(wanted),
    };
    let goal = wanted.saturating_add(by);
    let mut plans = app.plans.values().map(|plan| &plan.policy);
    let most = plans.find(|policy| policy.replace == Replace::StopFirst);
    let most = most.map(|policy| policy.range.map_or(policy.workers, |range| range.max) as i32);
    if let Some(most) = most.filter(|most| goal > *most) {
        return Err(format!(
            "{name} would have {goal} workers; with replace = \"stop-first\" there are never more than configured, which is {most} (change `workers`, and reload)"
        ));
    }
    if !(1..=MAX_WORKERS).contains(&goal) {
        return Err(format!(
            "{name} would have {goal} workers; the number must be between 1 and {MAX_WORKERS}"
        ));
    }
    Ok((name.clone(), by))
}

/// The answer to a client that waits for a number of workers; `None` while it may still be reached.
fn scaled(name: &str, app: &App) -> Option<String> {
    let (supervisor, counts) = (&app.supervisor, app.supervisor.counts());
    let mut ready = format!("{name} {}/{} ready", counts.ready, counts.wanted);
    if counts.finished > 0 {
        ready += &format!(", {} finished", counts.finished);
    }
    if supervisor.is_settled() {
        Some(format!("ok\n{ready}\n"))
    } else if supervisor.is_paused() {
        Some(format!("ok\n{ready}, paused\n"))
    } else if supervisor.is_in_trouble() {
        Some(format!("error {ready}: its workers fail, see the log\n"))
    } else {
        None
    }
}

/// The state of an app, for the status.
#[derive(Default)]
struct AppState {
    counts: Counts,
    given_up: bool,
    paused: bool,
    /// Its workers wait for its command `before`, or its tasks.
    held: bool,
    /// Its repeated checks fail.
    check_fails: bool,
    /// It fails, and is tried again then.
    retry_in: Option<Duration>,
    /// It waits for this.
    waits_for: Option<String>,
    /// Why its latest worker was not started.
    not_started: Option<String>,
    stopped: Option<StoppedBy>,
    /// What its workers have counted, also those that have ended.
    counted: metrics::App,
}

fn status_json<W: World>(
    turn: &Turn<W>,
    workers: &Workers,
    whole: &Whole<'_>,
    memory: &HashMap<Pid, u64>,
) -> Value {
    let apps = workers.configured();
    let apps = apps.map(|(name, app)| {
        let supervisor = &app.supervisor;
        let state = AppState {
            counts: supervisor.counts(),
            given_up: supervisor.is_given_up(),
            paused: supervisor.is_paused(),
            held: supervisor.is_held(),
            check_fails: whole.checks.fails(&workers.children, name),
            retry_in: retry_in(app, turn.now),
            waits_for: waits_for(app),
            not_started: app.not_started.as_ref().map(|last| last.why.clone()),
            stopped: None,
            counted: census::app(turn, workers, name, whole.census.past(name)),
        };
        app_json(turn, workers, name, &state, memory)
    });
    let later = whole.later.iter().map(|app| {
        let counts = Counts {
            wanted: app.wanted,
            ..Counts::default()
        };
        let state = AppState {
            counts,
            waits_for: Some(app.waits_for.clone()),
            ..AppState::default()
        };
        app_json(turn, workers, &app.name, &state, memory)
    });
    let stopped = whole.stopped.iter().map(|(name, by)| {
        let ending = workers.apps.get(name.as_str());
        let leaving = ending.map_or(0, |app| app.supervisor.counts().leaving);
        let counts = Counts {
            leaving,
            ..Counts::default()
        };
        let state = AppState {
            counts,
            stopped: Some(*by),
            ..AppState::default()
        };
        app_json(turn, workers, &name.as_str().into(), &state, memory)
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "generation": whole.generation,
        "phase": whole.phase,
        "is_ready": whole.is_ready,
        "refused": whole.refused,
        "apps": apps.chain(later).chain(stopped).collect::<Vec<_>>(),
        "sites": whole.plan.map(|plan| sites::summary(turn, workers, plan)).unwrap_or_default(),
        "scheduled": whole.schedules.status(turn.world.clock().wall),
    })
}

fn app_json<W: World>(
    turn: &Turn<W>,
    workers: &Workers,
    name: &Name,
    state: &AppState,
    memory: &HashMap<Pid, u64>,
) -> Value {
    let mut children: Vec<_> = workers.children.of(name).collect();
    children.sort_by_key(|(_, child)| (child.generation, child.slot));
    let children = children.into_iter();
    let children = children.map(|(pid, child)| worker_json(turn, pid, child, memory.get(&pid)));
    let (counts, counted) = (state.counts, &state.counted);
    // By the class of their status; 0 if they were broken off before their heads.
    let responses = counted.sums.responses;
    let ends = Cause::ALL.iter().zip(counted.sums.ends);
    let ends: BTreeMap<_, _> = ends.map(|(cause, number)| (cause.name(), number)).collect();
    let stopped = state.stopped.map(|by| match by {
        StoppedBy::Command => "by command",
        StoppedBy::Configuration => "by configuration",
        StoppedBy::ItsApps => "with its apps",
    });
    json!({
        "name": &**name,
        "generation": counted.generation,
        "running": counted.running,
        "connections": counted.connections,
        "queue": counted.queue,
        "requests": responses.iter().sum::<u64>(),
        "errors": responses[0] + responses[5],
        "bytes": counted.sums.bytes,
        "ends": ends,
        "wanted": counts.wanted,
        "ready": counts.ready,
        "starting": counts.starting,
        "leaving": counts.leaving,
        "finished": counts.finished,
        "failed": counts.failed,
        "given_up": state.given_up,
        "retry_in": state.retry_in.map(|wait| wait.as_secs_f64()),
        "waits_for": state.waits_for,
        "not_started": state.not_started,
        "paused": state.paused,
        "held": state.held,
        "check_fails": state.check_fails,
        "stopped": stopped,
        "workers": children.collect::<Vec<_>>(),
    })
}

/// The earlier master whose rest an app waits for, and how a worker has failed beside that.
fn waits_for(app: &App) -> Option<String> {
    let waits = app.waits.as_ref()?;
    let failure = app.failure.as_ref().filter(|_| waits.whole);
    let failure = failure.map_or(String::new(), |how| format!("; its first worker {how}"));
    Some(format!("{}{failure}", waits.killed))
}

/// When an app whose workers fail is tried again.
fn retry_in(app: &App, now: Instant) -> Option<Duration> {
    let at = app.supervisor.retry_at()?;
    let fails = report::Health::of(&app.supervisor) == report::Health::Failing;
    fails.then(|| at.saturating_duration_since(now))
}

fn worker_json<W: World>(turn: &Turn<W>, pid: Pid, child: &Child, memory: Option<&u64>) -> Value {
    let age = turn.now.saturating_duration_since(child.asked_for);
    let seen = child
        .record
        .and_then(|record| turn.world.read(&child.app, record, age));
    let seen = seen.filter(|seen| seen.pid != 0);
    let state = match (&child.signalled, child.ready_at) {
        (Some((_, reason)), _) => format!("leaving: {}", report::reason(*reason)),
        (None, Some(_)) if child.leaves => "leaving: its requests are answered first".into(),
        (None, Some(_)) => "ready".into(),
        (None, None) => "starting".into(),
    };
    let busy = seen.as_ref().and_then(|seen| seen.busy);
    json!({
        "slot": child.slot,
        "generation": child.generation,
        "pid": pid.as_raw(),
        "state": state,
        "address": turn.world.own_address(pid).map(|address| address.to_string()),
        "said": child.status_text,
        "check_failed": child.check_failed,
        "age": age.as_secs_f64(),
        "memory": memory,
        "requests": seen.as_ref().map(|seen| seen.requests),
        "errors": seen.as_ref().map(|seen| seen.errors),
        "bytes": seen.as_ref().map(|seen| seen.bytes_out),
        "connections": seen.as_ref().map(|seen| seen.connections),
        "running": seen.as_ref().map(|seen| seen.threads_busy),
        "cpu": turn.world.cpu(pid).map(|used| used as f64 / 1e6),
        "busy": busy.map(|busy| busy.as_secs_f64()),
        "request": busy.and(seen.as_ref().map(|seen| seen.line.clone())),
    })
}
