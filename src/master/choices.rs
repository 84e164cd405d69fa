//! What operators have chosen by commands: which apps a release is about, and which apps are stopped or started against the
//! configuration. Requests that are made during a release become one more release, about the apps of all of them.

use std::collections::{BTreeMap, BTreeSet};

use log::info;

use super::turn::Turn;
use super::world::{ClientId, World};
use crate::plan::{App, FRONT, Plan};
use crate::release::Name;

mod scope;

pub(super) use scope::{Purpose, Request, Scope};

/// What a command has made of an app, whatever the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Override {
    Stopped,
    Started,
}

/// What a client wants that names apps, for which the configuration is read before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Reload,
    Start,
    Restart,
    /// To be told what a reload would do.
    Preview,
}

/// Clients that wait for the end of apps.
struct Stop {
    client: ClientId,
    names: BTreeSet<Name>,
    /// Those of them that are to end.
    ending: BTreeSet<Name>,
    /// What to answer.
    answer: String,
    /// The apps are to be started then.
    restarts: bool,
}

/// A number of workers that was chosen while an app ran that is restarted.
#[derive(Debug, Clone, Copy)]
struct Scaled {
    /// The configured number.
    from: u32,
    by: i32,
}

/// The choices of operators.
#[derive(Default)]
pub(super) struct Choices {
    overrides: BTreeMap<Name, Override>,
    /// The apps that the next release stops.
    stops: BTreeSet<Name>,
    /// What the next release is about that reads the configuration.
    next: Scope,
    /// What the current release is about.
    current: Scope,
    /// Requests of releases that a later one has overtaken while workers were still being replaced. It answers them.
    overtaken: Vec<Request>,
    waiting: Vec<Stop>,
    /// Requests for which the configuration is being checked.
    unchecked: Vec<(ClientId, BTreeSet<Name>, Wanted)>,
    /// The apps of waiting requests that another command has stopped before they were started.
    voided: BTreeMap<ClientId, BTreeSet<Name>>,
    /// The numbers of workers of apps that are being restarted.
    scaled: BTreeMap<Name, Scaled>,
}

impl Choices {
    /// All apps are to be reloaded; a client waits for it, if it was not a signal.
    pub(super) fn request_all(&mut self, client: Option<ClientId>) {
        self.next.all = true;
        // It ends the pause, whatever was requested before.
        self.next.paused = false;
        self.current.paused = false;
        let request = client.map(|client| Request {
            client,
            names: BTreeSet::new(),
            starts: false,
        });
        self.next.requests.extend(request);
    }

    /// Some apps are to be reloaded or started.
    pub(super) fn request(&mut self, request: Request) {
        self.next.paused = false;
        self.next.requests.push(request);
    }

    /// All apps are paused: what was requested before ends no pause.
    pub(super) fn pause(&mut self) {
        self.current.paused = true;
        self.next.paused = !self.next.is_nothing();
    }

    /// Apps are to be stopped, of which the `running` ones run. If they are not to be started again, a start that was asked for before is
    /// void.
    pub(super) fn stop<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        client: ClientId,
        names: BTreeSet<Name>,
        running: &BTreeSet<Name>,
        restarts: bool,
    ) {
        // Whoever restarts them as well only waits longer.
        if !restarts {
            self.void_starts(turn, &names);
        }
        let shown = |names: &BTreeSet<Name>, what: &str| {
            let names = names.iter().map(|name| format!("{name}: {what}\n"));
            names.collect::<String>()
        };
        let idle = names.difference(running).cloned().collect();
        let stopped = names.intersection(running).cloned().collect();
        let answer = shown(&stopped, "stopped") + &shown(&idle, "already stopped");
        self.stops.extend(stopped);
        for name in &names {
            self.overrides.insert(name.clone(), Override::Stopped);
            self.scaled.remove(name);
        }
        self.waiting.push(Stop {
            client,
            ending: names.clone(),
            names,
            answer: format!("ok\n{answer}"),
            restarts,
        });
    }

    /// These apps are to be stopped, so that earlier requests do not start them any more. What else these are about goes on.
    fn void_starts<W: World>(&mut self, turn: &mut Turn<W>, names: &BTreeSet<Name>) {
        let voided = &mut self.voided;
        // Returns whether something is left.
        let mut void = |client: ClientId, theirs: &mut BTreeSet<Name>| {
            let void: Vec<_> = theirs.intersection(names).cloned().collect();
            theirs.retain(|name| !names.contains(name));
            if !void.is_empty() {
                let voided: &mut BTreeSet<_> = voided.entry(client).or_default();
                voided.extend(void);
            }
            !theirs.is_empty()
        };
        let requests = &mut self.next.requests;
        let requests = requests.extract_if(.., |it| it.starts && !void(it.client, &mut it.names));
        let mut over: Vec<_> = requests.map(|request| request.client).collect();
        let stops = self.waiting.extract_if(.., |stop| {
            stop.ending
                .retain(|name| !stop.restarts || !names.contains(name));
            stop.restarts && !void(stop.client, &mut stop.names)
        });
        over.extend(stops.map(|stop| stop.client));
        for client in over {
            let why = self.why_void(client).unwrap_or_default();
            turn.world.answer(client, &format!("error {why}\n"));
        }
        let is_void = |(_, of, wanted): &mut (ClientId, BTreeSet<Name>, Wanted)| {
            matches!(wanted, Wanted::Start | Wanted::Restart) && !of.is_disjoint(names)
        };
        // Nothing was done for these yet.
        for (client, of, wanted) in self.unchecked.extract_if(.., is_void) {
            let stopped = of.intersection(names).cloned().collect();
            let nothing = match wanted {
                Wanted::Restart => "stopped",
                _ => "started",
            };
            let answer = format!("error {}; nothing was {nothing}\n", void_text(&stopped));
            turn.world.answer(client, &answer);
        }
    }

    /// Which apps of a request were not started, and why. That is said once.
    fn why_void(&mut self, client: ClientId) -> Option<String> {
        Some(void_text(&self.voided.remove(&client)?))
    }

    /// An app that is restarted has this many workers more, or fewer, than the `configured` number.
    pub(super) fn keep_number(&mut self, name: &Name, configured: u32, wanted: u32) {
        let by = i64::from(wanted) - i64::from(configured);
        let by = i32::try_from(by).unwrap_or_default();
        if by != 0 {
            let from = configured;
            self.scaled.insert(name.clone(), Scaled { from, by });
        }
    }

    /// How many workers more, or fewer, than configured an app had before its restart, if the `configured` number is the same.
    pub(super) fn kept_number(&self, name: &Name, configured: u32) -> Option<i32> {
        let scaled = self.scaled.get(name);
        let same = scaled.filter(|scaled| scaled.from == configured);
        same.map(|scaled| scaled.by)
    }

    /// A request is performed when the configuration was checked.
    pub(super) fn check_first(&mut self, client: ClientId, names: BTreeSet<Name>, wanted: Wanted) {
        self.unchecked.push((client, names, wanted));
    }

    /// The configuration was checked: what the client wants, and of which apps, unless that is void.
    pub(super) fn take_checked(&mut self, client: ClientId) -> Option<(BTreeSet<Name>, Wanted)> {
        let mut unchecked = self.unchecked.iter();
        let at = unchecked.position(|(waiting, ..)| *waiting == client)?;
        let (_, names, wanted) = self.unchecked.remove(at);
        Some((names, wanted))
    }

    /// Apps are to be started when those of them that are `ending` have ended.
    pub(super) fn start_later(
        &mut self,
        client: ClientId,
        names: BTreeSet<Name>,
        ending: BTreeSet<Name>,
    ) {
        self.waiting.push(Stop {
            client,
            names,
            ending,
            answer: String::new(),
            restarts: true,
        });
    }

    /// Answers the clients that wait for the end of apps, when these have `ended`. Returns whether one of them waits for a start now.
    pub(super) fn ended<W: World>(&mut self, turn: &mut Turn<W>, ended: &BTreeSet<Name>) -> bool {
        let mut starts = false;
        let (next, stops) = (&mut self.next, &self.stops);
        self.waiting.retain(|stop| {
            let waits = |name: &Name| stops.contains(name) || !ended.contains(name);
            if stop.ending.iter().any(waits) {
                return true;
            }
            if stop.restarts {
                starts = true;
                next.paused = false;
                next.requests.push(Request {
                    client: stop.client,
                    names: stop.names.clone(),
                    starts: true,
                });
            } else {
                turn.world.answer(stop.client, &stop.answer);
            }
            for name in stop.ending.iter().filter(|_| !stop.answer.is_empty()) {
                info!("app={name}: stopped");
            }
            false
        });
        starts
    }

    /// The apps for whose end clients wait.
    pub(super) fn ending(&self) -> impl Iterator<Item = Name> {
        let names = self.waiting.iter().flat_map(|stop| &stop.ending);
        names.cloned()
    }

    /// Whether somebody waits for the end of an app.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether an app is being stopped, or will be.
    pub(super) fn is_ending(&self, name: &Name) -> bool {
        let mut waiting = self.waiting.iter();
        self.stops.contains(name) || waiting.any(|stop| stop.ending.contains(name))
    }

    /// Whether a command is to start an app that is stopped.
    pub(super) fn will_start(&self, name: &Name) -> bool {
        self.waits_for_start(name) || self.current.starts(name)
    }

    /// The same, but no release is about it yet.
    pub(super) fn waits_for_start(&self, name: &Name) -> bool {
        let mut waiting = self.waiting.iter();
        let restarts = waiting.any(|stop| stop.restarts && stop.names.contains(name));
        restarts || self.next.starts(name)
    }

    /// A release begins. If it only stops apps, and does not read the configuration, returns them.
    pub(super) fn begin(&mut self, running: &Plan) -> Option<BTreeSet<Name>> {
        let before = std::mem::take(&mut self.current);
        self.overtaken.extend(before.requests);
        let runs = |name: &Name| running.runs(name);
        let stops = std::mem::take(&mut self.stops);
        let stops: BTreeSet<_> = stops.into_iter().filter(runs).collect();
        match stops.is_empty() {
            true => self.current = std::mem::take(&mut self.next),
            false => self.current.stops.clone_from(&stops),
        }
        self.current.is_nothing().then_some(stops)
    }

    /// Whether another release is wanted after one that only stops apps.
    pub(super) fn is_wanted(&self) -> bool {
        !self.next.is_nothing()
    }

    /// What the current release is about.
    pub(super) fn scope(&self) -> &Scope {
        &self.current
    }

    /// The front takes part in the current release too, if that finds other static files of its apps.
    pub(super) fn follow_static_files(&mut self, running: &Plan, found: &Plan) {
        self.current.follow_static_files(running, found);
        if let Some(why) = self.current.why_front() {
            info!("app={FRONT}: {why}");
        }
    }

    /// Refuses the requests about apps that are not `known`. Returns whether no other one is left, and why.
    pub(super) fn refuse_unknown<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        known: impl Fn(&str) -> bool,
        all: &str,
    ) -> Option<String> {
        let unknown = |request: &Request| {
            let unknown = request.names.iter().find(|name| !known(name))?;
            Some(unknown_app(unknown, all))
        };
        if let (false, [only]) = (self.current.all, &self.current.requests[..]) {
            // Its client is answered when the release has failed, and the log says what it was for.
            return unknown(only);
        }
        let mut refused = None;
        self.current.requests.retain(|request| {
            let Some(reason) = unknown(request) else {
                return true;
            };
            turn.world
                .answer(request.client, &format!("error {reason}\n"));
            self.voided.remove(&request.client);
            refused = Some(reason);
            false
        });
        refused.filter(|_| self.current.is_nothing())
    }

    /// Whether an app runs in the candidate.
    pub(super) fn runs(&self, name: &str, app: &App) -> bool {
        let started = self.current.starts(name);
        match self.overrides.get(name) {
            Some(Override::Stopped) => started,
            Some(Override::Started) => true,
            None => app.enabled || started,
        }
    }

    /// Notes that a command has stopped an app.
    #[cfg(test)]
    pub(super) fn stopped_for_test(&mut self, name: &str) {
        self.overrides.insert(name.into(), Override::Stopped);
    }

    /// Whether an app was stopped by a command, and not by its configuration.
    pub(super) fn stopped_by_command(&self, name: &str) -> bool {
        self.overrides.get(name) == Some(&Override::Stopped)
    }

    /// The candidate has taken over.
    pub(super) fn taken_over(&mut self, plan: &Plan) {
        for (name, app) in plan.all_apps() {
            if self.current.starts(name) && !self.stops.contains(name) {
                let name = Name::from(name);
                match app.enabled {
                    true => self.overrides.remove(&name),
                    false => self.overrides.insert(name, Override::Started),
                };
            }
        }
        self.scaled.retain(|name, _| !plan.runs(name));
        // One that is taken out of the configuration is forgotten, unless somebody has just stopped it.
        let known = self.overrides.keys();
        let known = known.filter(|name| plan.knows(name) || self.is_ending(name));
        let known: BTreeSet<_> = known.cloned().collect();
        self.overrides.retain(|name, _| known.contains(name));
    }

    /// The release is over, with this state of all apps or for this reason: answers the clients that wait for it, and says what became
    /// of those apps that were to be started and do not run.
    pub(super) fn over<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        result: &Result<String, String>,
        not_running: &BTreeMap<Name, String>,
    ) {
        let overtaken = std::mem::take(&mut self.overtaken);
        let scope = std::mem::take(&mut self.current);
        let too = scope.why_front().map(|why| format!("{FRONT}: {why}\n"));
        let (requests, too) = (scope.requests, too.unwrap_or_default());
        for request in overtaken.into_iter().chain(requests) {
            let names = request.names.iter();
            let became = names.clone().filter(|_| request.starts);
            let became = became.filter_map(|name| Some((name, not_running.get(name)?)));
            let void = self.why_void(request.client);
            let became = became.map(|(name, what)| format!("{name} {what}"));
            let became: Vec<_> = became.chain(void).collect();
            let answer = match (result, request.starts) {
                (Ok(state), false) => format!("ok\n{too}{state}"),
                (Ok(state), true) if became.is_empty() => {
                    let lines = names.map(|name| format!("{name}: started\n"));
                    format!("ok\n{}{too}{state}", lines.collect::<String>())
                }
                (Ok(state), true) => format!("error {}; {state}", became.join("; ")),
                (Err(reason), false) => format!("error {reason}"),
                (Err(reason), true) => {
                    let reason = not_started(&join(&request.names), reason);
                    let reason = std::iter::once(reason).chain(became);
                    format!("error {}", Vec::from_iter(reason).join("; "))
                }
            };
            turn.world.answer(request.client, &(answer + "\n"));
        }
    }

    /// The master stops: no release will end any more, and no app be started.
    pub(super) fn give_up<W: World>(&mut self, turn: &mut Turn<W>) {
        let current = std::mem::take(&mut self.current).requests;
        let next = std::mem::take(&mut self.next).requests;
        let overtaken = std::mem::take(&mut self.overtaken).into_iter();
        let requests = overtaken.chain(current).chain(next);
        let clients = requests.map(|request| request.client);
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let unchecked = std::mem::take(&mut self.unchecked).into_iter();
        let unchecked = unchecked.map(|(client, ..)| client);
        self.voided.clear();
        for client in clients
            .chain(waiting.map(|stop| stop.client))
            .chain(unchecked)
        {
            turn.world.answer(client, "error the master is stopping\n");
        }
    }
}

/// That these apps are stopped instead.
fn void_text(names: &BTreeSet<Name>) -> String {
    let names = join(names);
    format!("{names} not started: another command stops {names}")
}

/// Why a command about an app is refused.
pub(super) fn unknown_app(name: &str, all: &str) -> String {
    format!("there is no app \"{name}\" (configured: {all})")
}

/// That a command has not started these apps.
pub(super) fn not_started(names: &str, reason: &str) -> String {
    format!("{names} could not be started: {reason}")
}

/// The names in a row.
pub(super) fn join(names: &BTreeSet<Name>) -> String {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    names.join(", ")
}
