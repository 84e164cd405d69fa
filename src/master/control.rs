//! Those who call the control socket, and what they wait for: status, reload, scale, stop, reopen.
//!
//! An answer begins with a line `ok` or `error REASON`; what was asked for follows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::{Value, json};

use super::report;
use super::turn::Turn;
use super::workers::children::Child;
use super::workers::{App, Workers};
use super::world::{CallerId, World};
use crate::release::Name;

/// How often those who call are taken in when there was no descriptor left for them.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// The most workers that an app may be scaled to.
const MOST_WORKERS: i32 = 10_000;

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// All apps and workers.
    Status,
    /// As HUP.
    Reload,
    /// As TERM.
    Stop,
    /// As USR1.
    Reopen,
    /// `web=4`, `web=+1`, `web=-1`.
    Scale(String),
}

impl Order {
    /// Reads a request.
    pub(super) fn parse(request: &str) -> Option<Self> {
        let words: Vec<&str> = request.split_whitespace().collect();
        Some(match words[..] {
            ["status"] => Self::Status,
            ["reload"] => Self::Reload,
            ["stop"] => Self::Stop,
            ["reopen"] => Self::Reopen,
            ["scale", what] => Self::Scale(what.to_owned()),
            _ => return None,
        })
    }
}

/// A status that is being put together. To read how much memory a process has takes the kernel as long as the process is
/// large, so that one is read in each turn.
struct Gathering {
    callers: Vec<CallerId>,
    left: Vec<Pid>,
    memory: HashMap<Pid, u64>,
}

/// What is known of the master as a whole, for its status.
pub(super) struct Whole<'a> {
    pub(super) generation: Option<u64>,
    pub(super) phase: &'a str,
    pub(super) refused: Option<&'a str>,
}

/// The callers that wait.
#[derive(Default)]
pub(super) struct Control {
    /// When those who call are to be taken in, as that has failed.
    accept_at: Option<Instant>,
    /// For the reload that starts next.
    next_reload: Vec<CallerId>,
    /// For the one under way.
    reload: Vec<CallerId>,
    /// For an app to have as many workers as are wanted.
    scaled: Vec<(CallerId, Name)>,
    stop: Vec<CallerId>,
    status: Option<Gathering>,
}

impl Control {
    /// Takes in those who call.
    pub(super) fn accept<W: World>(&mut self, turn: &mut Turn<W>) {
        let more = turn.world.accept_callers();
        self.accept_at = more.then(|| turn.now + ACCEPT_RETRY);
    }

    /// When there is something to do again.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let gathers = self.status.as_ref().map(|_| now);
        gathers.into_iter().chain(self.accept_at).min()
    }

    /// Tries again what has failed, and goes on with a status.
    pub(super) fn go_on<W: World>(
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
            // Who was reaped meanwhile is nobody to look at.
            let bytes = workers
                .children
                .get(pid)
                .and_then(|_| turn.world.memory(pid));
            status.memory.extend(bytes.map(|bytes| (pid, bytes)));
            return;
        }
        if let Some(Gathering {
            callers, memory, ..
        }) = self.status.take()
        {
            let status = status_json(turn, workers, whole, &memory);
            for caller in callers {
                turn.world.answer(caller, &format!("ok\n{status}\n"));
            }
        }
    }

    /// Somebody wants the status.
    pub(super) fn want_status(&mut self, workers: &Workers, caller: CallerId) {
        let status = self.status.get_or_insert_with(|| {
            let children = workers.configured();
            let children = children.flat_map(|(name, _)| workers.children.of(name));
            let children = children.filter(|(_, child)| child.adopted);
            Gathering {
                callers: Vec::new(),
                left: children.map(|(pid, _)| pid).collect(),
                memory: HashMap::new(),
            }
        });
        status.callers.push(caller);
    }

    /// Somebody waits for the next reload.
    pub(super) fn want_reload(&mut self, caller: CallerId) {
        self.next_reload.push(caller);
    }

    /// Somebody waits for the end.
    pub(super) fn want_stop(&mut self, caller: CallerId) {
        self.stop.push(caller);
    }

    /// Somebody waits for an app to have as many workers as are wanted.
    pub(super) fn want_scaled(&mut self, caller: CallerId, app: Name) {
        self.scaled.push((caller, app));
    }

    /// Answers those who wait for a number of workers, where it is there or will not come.
    pub(super) fn answer_scaled<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        workers: &Workers,
        stopping: bool,
    ) {
        self.scaled.retain(|(caller, name)| {
            let app = workers.apps.get(name).filter(|app| !app.removed);
            let answer = match app.filter(|_| !stopping) {
                Some(app) => scaled(name, app),
                None => Some(format!("error {name} is being stopped\n")),
            };
            if let Some(answer) = &answer {
                turn.world.answer(*caller, answer);
            }
            answer.is_none()
        });
    }

    /// A reload begins: who has asked until now waits for it.
    pub(super) fn reload_begins(&mut self) {
        self.reload.append(&mut self.next_reload);
    }

    /// A reload is over.
    pub(super) fn reload_ends<W: World>(&mut self, turn: &mut Turn<W>, answer: &str) {
        for caller in self.reload.drain(..) {
            turn.world.answer(caller, answer);
        }
    }

    /// The stop has begun: no reload will end any more.
    pub(super) fn stop_begins<W: World>(&mut self, turn: &mut Turn<W>) {
        self.reload_begins();
        self.reload_ends(turn, "error the master is stopping\n");
    }

    /// Everything has ended.
    pub(super) fn stop_ends<W: World>(&mut self, turn: &mut Turn<W>) {
        for caller in self.stop.drain(..) {
            turn.world.answer(caller, "ok\n");
        }
        for caller in self
            .status
            .take()
            .into_iter()
            .flat_map(|status| status.callers)
        {
            turn.world.answer(caller, "error the master has stopped\n");
        }
    }
}

/// By how many workers an app is to be scaled, and which.
///
/// # Errors
/// What is wrong with the request.
pub(super) fn scale(what: &str, workers: &Workers) -> Result<(Name, i32), String> {
    let (name, number) = what
        .split_once('=')
        .ok_or("write APP=NUMBER, as in web=4")?;
    let found = workers.configured().find(|(known, _)| &***known == name);
    let Some((name, app)) = found else {
        let names: Vec<_> = workers.configured().map(|(name, _)| &**name).collect();
        return Err(format!(
            "there is no app \"{name}\" (there is: {})",
            names.join(", ")
        ));
    };
    let given: i32 = number
        .parse()
        .map_err(|_| format!("\"{number}\" is not a number of workers"))?;
    let wanted = app.supervisor.counts().wanted as i32;
    let by = match number.starts_with(['+', '-']) {
        true => given,
        false => given.saturating_sub(wanted),
    };
    let goal = wanted.saturating_add(by);
    if !(1..=MOST_WORKERS).contains(&goal) {
        return Err(format!(
            "{name} would have {goal} workers; between 1 and {MOST_WORKERS} are possible"
        ));
    }
    Ok((name.clone(), by))
}

/// What those learn who wait for a number of workers; nothing as long as it may still come.
fn scaled(name: &str, app: &App) -> Option<String> {
    let (supervisor, counts) = (&app.supervisor, app.supervisor.counts());
    let ready = format!("{name} {}/{} ready", counts.ready, counts.wanted);
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

fn status_json<W: World>(
    turn: &Turn<W>,
    workers: &Workers,
    whole: &Whole<'_>,
    memory: &HashMap<Pid, u64>,
) -> Value {
    let apps = workers.configured();
    let apps = apps.map(|(name, app)| app_json(turn, workers, name, app, memory));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "generation": whole.generation,
        "phase": whole.phase,
        "refused": whole.refused,
        "apps": apps.collect::<Vec<_>>(),
    })
}

fn app_json<W: World>(
    turn: &Turn<W>,
    workers: &Workers,
    name: &Name,
    app: &App,
    memory: &HashMap<Pid, u64>,
) -> Value {
    let mut children: Vec<_> = workers.children.of(name).collect();
    children.sort_by_key(|(_, child)| (child.generation, child.slot));
    let children = children.into_iter();
    let children = children.map(|(pid, child)| worker_json(turn, pid, child, memory.get(&pid)));
    let counts = app.supervisor.counts();
    json!({
        "name": &**name,
        "wanted": counts.wanted,
        "ready": counts.ready,
        "starting": counts.starting,
        "leaving": counts.leaving,
        "given_up": app.supervisor.is_given_up(),
        "paused": app.supervisor.is_paused(),
        "workers": children.collect::<Vec<_>>(),
    })
}

fn worker_json<W: World>(turn: &Turn<W>, pid: Pid, child: &Child, memory: Option<&u64>) -> Value {
    let age = turn.now.saturating_duration_since(child.asked_for);
    let seen = child
        .record
        .and_then(|record| turn.world.read(&child.app, record, age));
    let seen = seen.filter(|seen| seen.pid != 0);
    let state = match (&child.told, child.ready_at) {
        (Some((_, reason)), _) => format!("leaving: {}", report::reason(*reason)),
        (None, Some(_)) => "ready".into(),
        (None, None) => "starting".into(),
    };
    let busy = seen.as_ref().and_then(|seen| seen.busy);
    json!({
        "slot": child.slot,
        "generation": child.generation,
        "pid": pid.as_raw(),
        "state": state,
        "said": child.said,
        "age": age.as_secs_f64(),
        "memory": memory,
        "requests": seen.as_ref().map(|seen| seen.requests),
        "errors": seen.as_ref().map(|seen| seen.errors),
        "bytes": seen.as_ref().map(|seen| seen.bytes_out),
        "connections": seen.as_ref().map(|seen| seen.connections),
        "busy": busy.map(|busy| busy.as_secs_f64()),
        "request": busy.and(seen.as_ref().map(|seen| seen.line.clone())),
    })
}
