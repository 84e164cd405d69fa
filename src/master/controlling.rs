//! What the control socket is asked for: status, reload, scale, stop, reopen.
//!
//! An answer begins with a line `ok` or `error REASON`; what was asked for follows.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use log::{debug, info};
use serde_json::{Value, json};

use super::children::Name;
use super::{App, Master, Phase, report};
use crate::effects::control::CallerId;
use crate::signals::Request;
use crate::supervisor::Event;

/// How often those who call are taken in when there was no descriptor left for them.
const CALLERS_RETRY: Duration = Duration::from_millis(200);

/// Those who wait for the end of a reload or of the master.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// For the reload that starts next.
    next_reload: Vec<CallerId>,
    /// For the one under way.
    reload: Vec<CallerId>,
    /// For an app to have as many workers as are wanted.
    scaled: Vec<(CallerId, Name)>,
    stop: Vec<CallerId>,
}

impl Master {
    /// Whoever calls for the first time.
    pub(super) fn accept_callers(&mut self) {
        let Some(control) = &mut self.control else {
            return;
        };
        let (callers, more) = control.accept();
        self.callers_at = more.then(|| Instant::now() + CALLERS_RETRY);
        for fd in callers {
            if self.watch_both(fd).is_ok() {
                self.hear_caller(fd);
            } else if let Some(control) = &mut self.control {
                control.dismiss(fd);
            }
        }
    }

    /// A caller's socket is ready.
    pub(super) fn hear_caller(&mut self, fd: RawFd) {
        let request = self.control.as_mut().and_then(|control| control.ready(fd));
        if let Some((caller, request)) = request {
            debug!("control: {request}");
            self.serve_caller(caller, &request);
        }
    }

    fn serve_caller(&mut self, caller: CallerId, request: &str) {
        let words: Vec<&str> = request.split_whitespace().collect();
        match words[..] {
            ["status"] => {
                let status = self.status_json();
                self.answer(caller, &format!("ok\n{status}\n"));
            }
            ["reload"] if self.phase == Phase::Stopping => {
                self.answer(caller, "error the master is stopping\n")
            }
            ["reload"] => {
                self.waiting.next_reload.push(caller);
                self.want_reload("control");
            }
            ["stop"] => {
                self.waiting.stop.push(caller);
                self.obey("control", Request::Stop);
            }
            ["reopen"] => {
                self.obey("control", Request::Reopen);
                self.answer(caller, "ok\n");
            }
            ["scale", what] => match self.scale_to(what) {
                Ok(name) => self.waiting.scaled.push((caller, name)),
                Err(reason) => self.answer(caller, &format!("error {reason}\n")),
            },
            _ => self.answer(caller, &format!("error unknown request \"{request}\"\n")),
        }
    }

    /// `web=4`, `web=+1`, `web=-1`.
    fn scale_to(&mut self, what: &str) -> Result<Name, String> {
        let (name, number) = what.split_once('=').ok_or("say APP=NUMBER, as web=4")?;
        let Some((name, app)) = self
            .apps
            .get_key_value(name)
            .filter(|(_, app)| !app.removed)
        else {
            let names: Vec<_> = self.apps.keys().map(|name| &**name).collect();
            return Err(format!(
                "there is no app \"{name}\" (there is: {})",
                names.join(", ")
            ));
        };
        let given: i32 = number
            .parse()
            .map_err(|_| format!("\"{number}\" is no number of workers"))?;
        let wanted = app.supervisor.counts().wanted as i32;
        let by = if number.starts_with(['+', '-']) {
            given
        } else {
            given - wanted
        };
        let goal = wanted.saturating_add(by);
        if !(1..=10_000).contains(&goal) {
            return Err(format!(
                "{name} would have {goal} workers; between 1 and 10000 are possible"
            ));
        }
        info!("control: app={name}: {goal} workers wanted");
        self.facts.push_back((name.clone(), Event::Scale(by)));
        Ok(name.clone())
    }

    /// Answers those who wait for a number of workers, where it is there or will not come.
    pub(super) fn answer_scaled(&mut self) {
        for (caller, name) in std::mem::take(&mut self.waiting.scaled) {
            let app = self.apps.get(&name).filter(|app| !app.removed);
            let Some(app) = app.filter(|_| self.phase != Phase::Stopping) else {
                self.answer(caller, &format!("error {name} is being stopped\n"));
                continue;
            };
            let (supervisor, counts) = (&app.supervisor, app.supervisor.counts());
            let ready = format!("{name} {}/{} ready", counts.ready, counts.wanted);
            if supervisor.is_settled() {
                self.answer(caller, &format!("ok\n{ready}\n"));
            } else if supervisor.is_paused() {
                self.answer(caller, &format!("ok\n{ready}, paused\n"));
            } else if supervisor.is_in_trouble() {
                self.answer(
                    caller,
                    &format!("error {ready}: its workers fail, see the log\n"),
                );
            } else {
                self.waiting.scaled.push((caller, name));
            }
        }
    }

    /// A reload begins: who has asked until now waits for it.
    pub(super) fn reload_begins(&mut self) {
        let asked = std::mem::take(&mut self.waiting.next_reload);
        self.waiting.reload.extend(asked);
    }

    /// A reload is over; `error` says why it failed.
    pub(super) fn reload_ends(&mut self, error: Option<&str>) {
        let answer = match (error, &self.current) {
            (Some(reason), _) => format!("error {reason}\n"),
            (None, Some((generation, _))) => {
                format!("ok\ngeneration {generation}: {}\n", self.status)
            }
            (None, None) => "ok\n".into(),
        };
        for caller in std::mem::take(&mut self.waiting.reload) {
            self.answer(caller, &answer);
        }
    }

    /// The stop has begun: no reload will end any more.
    pub(super) fn dismiss_reloaders(&mut self) {
        self.reload_begins();
        for caller in std::mem::take(&mut self.waiting.reload) {
            self.answer(caller, "error the master is stopping\n");
        }
    }

    /// Everything has ended.
    pub(super) fn stop_ends(&mut self) {
        for caller in std::mem::take(&mut self.waiting.stop) {
            self.answer(caller, "ok\n");
        }
    }

    fn answer(&mut self, caller: CallerId, answer: &str) {
        if let Some(control) = &mut self.control {
            control.answer(caller, answer);
        }
    }

    fn status_json(&self) -> Value {
        let apps = self.apps.iter().filter(|(_, app)| !app.removed);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "generation": self.current.as_ref().map(|(generation, _)| generation),
            "phase": match self.phase {
                Phase::Starting => "starting",
                Phase::Ready => "ready",
                Phase::Reloading => "reloading",
                Phase::Stopping => "stopping",
            },
            "refused": self.refused,
            "apps": apps.map(|(name, app)| self.app_json(name, app)).collect::<Vec<_>>(),
        })
    }

    fn app_json(&self, name: &str, app: &App) -> Value {
        let mut workers: Vec<_> = self
            .children
            .iter()
            .filter(|(_, child)| *child.app == *name)
            .collect();
        workers.sort_by_key(|(_, child)| (child.generation, child.slot));
        let worker = |(pid, child): &(nix::unistd::Pid, &super::children::Child)| {
            let seen = self.noted(child).filter(|seen| seen.pid != 0);
            let state = match (&child.told, child.ready) {
                (Some((_, reason)), _) => format!("leaving: {}", report::reason_text(*reason)),
                (None, true) => "ready".into(),
                (None, false) => "starting".into(),
            };
            let busy = seen.as_ref().and_then(|seen| seen.busy);
            json!({
                "slot": child.slot,
                "generation": child.generation,
                "pid": pid.as_raw(),
                "state": state,
                "said": child.said,
                "age": Instant::now().saturating_duration_since(child.asked_for).as_secs_f64(),
                "memory": crate::effects::memory::share(*pid),
                "requests": seen.as_ref().map(|seen| seen.requests),
                "errors": seen.as_ref().map(|seen| seen.errors),
                "bytes": seen.as_ref().map(|seen| seen.bytes_out),
                "connections": seen.as_ref().map(|seen| seen.connections),
                "busy": busy.map(|busy| busy.as_secs_f64()),
                "request": busy.and(seen.as_ref().map(|seen| seen.line.clone())),
            })
        };
        let counts = app.supervisor.counts();
        json!({
            "name": name,
            "wanted": counts.wanted,
            "ready": counts.ready,
            "starting": counts.starting,
            "leaving": counts.leaving,
            "given_up": app.supervisor.is_given_up(),
            "paused": app.supervisor.is_paused(),
            "workers": workers.iter().map(worker).collect::<Vec<_>>(),
        })
    }
}
