//! Performs the requests of signals and of clients of the control socket.

use std::collections::BTreeSet;
use std::time::Duration;

use log::{debug, info, warn};
use nix::sys::signal::Signal;

use super::control::{self, Command};
use super::jobs::Task;
use super::sites;
use super::stop_order::StopOrder;
use super::workers::App;
use super::world::{ClientId, Notice, Sender, World};
use super::{Master, Outcome, report};
use crate::release::{Fact, Name, State};
use crate::signals::{self, Request};
use crate::supervisor::Event;

/// How long processes have to end after SIGINT.
const STOP_NOW: Duration = Duration::from_secs(1);

impl<W: World> Master<W> {
    /// Performs the requests of the signals that have arrived. Returns whether a child has changed.
    pub(super) fn handle_signals(&mut self) -> bool {
        let arrived = self.turn.world.signals();
        for arrived in &arrived {
            let Some((signal, request)) = signals::request(arrived.number) else {
                continue;
            };
            if self.turn.world.has_hung_up(arrived) {
                self.terminal_closed(signal);
                continue;
            }
            let stops = matches!(request, Request::Stop | Request::StopNow);
            if stops && self.repeated.is_same(*arrived, self.turn.now) {
                debug!("{signal}: the same order again, from the same sender at once");
                continue;
            }
            let from = match arrived.sender {
                Sender::Process(pid) => format!("{signal} from pid {pid}"),
                Sender::Kernel | Sender::Unknown => signal.to_string(),
            };
            self.perform_request(&from, request);
        }
        let mut arrived = arrived.iter();
        arrived.any(|arrived| arrived.number == Signal::SIGCHLD as i32)
    }

    /// The terminal was closed: its shell and the kernel may both say so.
    fn terminal_closed(&mut self, signal: Signal) {
        if self.turn.world.outlives_terminal() {
            info!(
                "{signal}: the terminal was closed; going on, as {signal} was ignored at the start"
            );
        } else if !self.is_stopping() {
            let from = format!("{signal}, because the terminal was closed");
            self.perform_request(&from, Request::Stop);
        }
    }

    fn perform_request(&mut self, from: &str, request: Request) {
        match request {
            Request::Reload if self.is_ending() => {
                info!("{from}: not reloading: the master is stopping");
            }
            Request::Reload => {
                info!("{from}: reload");
                self.choices.request_all(None);
                self.turn.queue_fact(Fact::Requested);
            }
            Request::Stop | Request::StopNow if self.is_stopping() => {
                info!("{from}: stopping now");
                self.stop_order = StopOrder::default();
                self.queue_for_all(&Event::StopNow);
                self.end_templates(|_| true);
                self.hurry(Duration::ZERO);
            }
            Request::Stop if self.stops_at.is_some() => {
                info!("{from}: stopping without waiting any longer; workers finish their requests");
                self.stop(&Event::Stop);
            }
            Request::Stop => match self.lame_duck() {
                Some(time) => self.stop_after(from, time),
                None => {
                    info!("{from}: stopping; workers finish their requests");
                    self.stop(&Event::Stop);
                }
            },
            Request::StopNow => {
                info!("{from}: stopping; workers have one second (send it again to kill them)");
                self.stop(&Event::StopNow);
                self.hurry(STOP_NOW);
            }
            Request::More => self.scale_all(from, 1),
            Request::Fewer => self.scale_all(from, -1),
            Request::Pause if self.is_ending() => {
                info!("{from}: not pausing: the master is stopping");
            }
            Request::Pause if self.turn.world.has_terminal() => {
                debug!("{from}: ignored, because the size of a terminal has changed")
            }
            Request::Pause => {
                self.choices.pause();
                if self.release.outcome().is_none() {
                    info!(
                        "{from}: pausing as soon as the first generation is ready (SIGHUP resumes)"
                    );
                } else {
                    info!(
                        "{from}: pausing: all workers end, the listeners stay open (SIGHUP resumes)"
                    );
                    self.pause_all();
                }
            }
            Request::Reopen => match self.turn.world.reopen_log_files() {
                0 => info!("{from}: no app has a log file, so there is nothing to reopen"),
                number => {
                    let files = report::number(number, "log file");
                    info!("{from}: reopening {files}");
                }
            },
            Request::Upgrade => {
                warn!(
                    "{from}: replacing the program in place is not supported; restart preforkd to upgrade it"
                );
            }
        }
    }

    /// Performs the request of a client of the control socket.
    pub(super) fn serve_client(&mut self, client: ClientId, request: &str) {
        debug!("control: {request}");
        match Command::parse(request) {
            Some(Command::Status) => self.control.add_status(&self.workers, client),
            Some(Command::Metrics) => {
                let metrics = serde_json::to_string(&self.metrics()).unwrap_or_default();
                let answer = format!("ok\n{metrics}\n");
                self.turn.world.answer(client, &answer);
            }
            Some(Command::Events) => {
                let answer = format!("ok\n{}", control::events(0));
                self.turn.world.answer(client, &answer);
            }
            Some(Command::Follow(last)) => {
                self.control.add_follower(&mut self.turn, client, last);
            }
            Some(Command::Purge(what)) => {
                let plan = self.current.as_ref();
                let answer = match sites::purge(&self.turn, plan, &what) {
                    Ok(purged) => format!("ok\n{purged}\n"),
                    Err(reason) => format!("error {reason}\n"),
                };
                self.turn.world.answer(client, &answer);
            }
            Some(Command::Configuration) => {
                let answer = format!("ok\n{}\n", self.turn.world.configuration());
                self.turn.world.answer(client, &answer);
            }
            Some(Command::Stop(names)) if names.is_empty() => {
                self.control.wait_for_stop(client);
                self.perform_request("control", Request::Stop);
            }
            Some(
                Command::Plan(_)
                | Command::Reload(_)
                | Command::Start(_)
                | Command::Stop(_)
                | Command::Restart(_),
            ) if self.is_ending() => {
                self.turn
                    .world
                    .answer(client, "error the master is stopping\n");
            }
            Some(Command::Reload(names)) if names.is_empty() => {
                self.choices.request_all(Some(client));
                self.perform_request("control", Request::Reload);
            }
            Some(Command::Plan(names)) => self.preview(client, names),
            Some(Command::Reload(names)) => self.reload_some(client, names),
            Some(Command::Start(names)) => self.start(client, names),
            Some(Command::Stop(names)) => self.stop_some(client, names, false),
            Some(Command::Restart(names)) => self.restart(client, names),
            Some(Command::Reopen) => {
                self.perform_request("control", Request::Reopen);
                self.turn.world.answer(client, "ok\n");
            }
            Some(Command::Scale(what)) => {
                match control::scale(&what, &self.workers, &self.stopped(), &self.schedules) {
                    Ok((name, by)) => {
                        self.scale("control", &name, by);
                        self.control.wait_for_scale(client, name);
                    }
                    Err(reason) => self.turn.world.answer(client, &format!("error {reason}\n")),
                }
            }
            None => {
                let answer = format!("error unknown request \"{request}\"\n");
                self.turn.world.answer(client, &answer);
            }
        }
    }

    fn scale_all(&mut self, from: &str, by: i32) {
        let may_be_many = |app: &App| app.plans.values().all(|plan| plan.policy.may_be_many());
        let listens = |app: &App| app.plans.values().any(|plan| !plan.sockets.is_empty());
        // An app without a listener is often meant to run once (a scheduler), and a signal names no app.
        let any_listens = self.workers.apps.values().any(listens);
        let apps = self.workers.configured();
        let scaled = apps.filter(|(_, app)| (!any_listens || listens(app)) && may_be_many(app));
        for name in scaled.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.scale(from, &name, by);
        }
    }

    fn scale(&mut self, from: &str, name: &Name, by: i32) {
        if let Some(app) = self.workers.apps.get(name) {
            let wanted = app.supervisor.counts().wanted;
            let wanted = wanted.saturating_add_signed(by).max(1);
            let wanted = report::number(wanted as usize, "worker");
            info!("{from}: app={name}: {wanted} wanted");
            self.turn.queue_event(name, Event::Scale(by));
        }
    }

    /// Whether the master is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        *self.release.state() == State::Stopped
    }

    /// Whether the master is stopping, or is about to.
    pub(super) fn is_ending(&self) -> bool {
        self.is_stopping() || self.stops_at.is_some()
    }

    /// How long all apps go on serving after the order to stop; no longer before the first generation is ready.
    pub(super) fn lame_duck(&self) -> Option<Duration> {
        let plan = self.current.as_ref()?;
        plan.lame_duck.filter(|_| self.release.outcome().is_some())
    }

    /// Tells everybody that the stop begins after this time, and goes on serving until then.
    fn stop_after(&mut self, from: &str, time: Duration) {
        let shown = report::short(time);
        info!(
            "{from}: stopping in {shown} (lame_duck); until then all apps go on serving (send it again to stop at once)"
        );
        self.stops_at = Some(self.turn.now + time);
        // Nobody hears of the stop before /readyz says so.
        self.write_census();
        let line = self.status_line();
        self.turn.world.notify_init(&Notice::Stopping(line));
        self.workers.changed = true;
    }

    /// Begins a stop that was put off, if it is time.
    pub(super) fn stop_in_time(&mut self) {
        if self.stops_at.is_some_and(|at| at <= self.turn.now) {
            info!("stopping; workers finish their requests");
            self.stop(&Event::Stop);
        }
    }

    /// Begins the stop. The event determines the time limits of workers, and after [`Event::StopNow`] there is no order.
    pub(super) fn stop(&mut self, event: &Event) {
        self.stops_at = None;
        self.leftovers.stop(self.turn.now);
        if *event == Event::Stop
            && let Some(plan) = self.plan()
        {
            self.stop_order = StopOrder::new(&plan.apps, &self.names_to_stop());
        }
        let proving = matches!(self.release.state(), State::Proving { .. });
        for action in self.release.handle(Fact::Stopping) {
            self.perform_release(action);
        }
        self.write_census();
        self.schedules.stop(&mut self.turn);
        self.certificates.stop();
        self.keeper.stop();
        self.loads.stop(&mut self.turn);
        self.ignored.stop(&mut self.turn);
        let line = self.status_line();
        self.turn.world.notify_init(&Notice::Stopping(line));
        self.choices.give_up(&mut self.turn);
        self.jobs
            .abandon(&mut self.turn, |task| *task != Task::Metrics);
        let names = self.workers.names().into_iter();
        let (later, at_once): (Vec<_>, Vec<_>) = names.partition(|name| self.stop_order.has(name));
        for name in &at_once {
            self.turn.queue_event(name, event.clone());
        }
        for name in later.iter().filter(|_| proving) {
            self.turn.queue_event(name, Event::Rollback);
        }
        self.end_templates(|name| !later.contains(name));
        for (name, later) in self.stop_order.waiting() {
            let later: Vec<_> = later.iter().map(|name| &**name).collect();
            let later = later.join(", ");
            info!("app={name}: ends after the apps that come after it ({later})");
        }
        self.stop_free();
    }

    /// Tells the apps to end whose turn it is. Returns whether there are any.
    pub(super) fn stop_free(&mut self) -> bool {
        if self.stop_order.is_empty() {
            return false;
        }
        let awaited = self.stop_order.awaited();
        let ended = awaited.filter(|name| self.has_stopped(name)).cloned();
        let ended: BTreeSet<_> = ended.collect();
        let free = self.stop_order.take_free(&ended);
        for name in &free {
            self.turn.queue_event(name, Event::Stop);
        }
        self.end_templates(|name| free.contains(name));
        !free.is_empty()
    }

    /// The apps that have an order of stopping: what has no worker ends at once.
    fn names_to_stop(&self) -> BTreeSet<Name> {
        let apps = self.workers.configured();
        let run = apps.filter(|(_, app)| {
            let counts = app.supervisor.counts();
            counts.ready + counts.starting + counts.leaving > 0 && !app.supervisor.is_paused()
        });
        run.map(|(name, _)| name.clone()).collect()
    }

    /// Whether nothing of an app is left after it was told to end.
    fn has_stopped(&self, name: &Name) -> bool {
        let app = self.workers.apps.get(name);
        app.is_none_or(|app| app.ended)
            && !self.templates.has_of(name)
            && !self.leftovers.has_of(name)
    }

    fn end_templates(&mut self, of: impl Fn(&Name) -> bool) {
        for key in self.templates.keys().into_iter().filter(|key| of(&key.0)) {
            self.workers
                .end_template(&mut self.turn, &mut self.templates, &key);
        }
    }

    /// Stops with this outcome, and reports the reason.
    pub(super) fn stop_with(&mut self, outcome: Outcome, reason: String) {
        self.outcome = outcome;
        self.refused = Some(reason);
        self.stop(&Event::Stop);
    }

    fn hurry(&mut self, grace: Duration) {
        self.templates.hurry(self.turn.now, grace);
        self.jobs.hurry(self.turn.now, grace);
        self.leftovers.hurry(self.turn.now, grace);
    }

    /// Ends all workers, and starts none until a release that is requested later.
    pub(super) fn pause_all(&mut self) {
        self.queue_for_all(&Event::Pause);
        self.schedules.pause(&mut self.turn);
    }

    fn queue_for_all(&mut self, event: &Event) {
        for name in self.workers.names() {
            self.turn.queue_event(&name, event.clone());
        }
    }
}
