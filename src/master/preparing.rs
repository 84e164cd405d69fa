//! The step before a reload: a command of each app (`before`) that must succeed before any worker is started.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Instant;

use log::{error, info};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::performing::send;
use super::reload::Opened;
use super::{Master, report};
use crate::effects::launch::{Contract, launch};
use crate::plan::{self, Plan};
use crate::signals::describe;
use crate::sys::{Progress, progress};

/// A checked plan whose listeners are open, waiting for its commands.
pub(super) struct Preparation {
    plan: Plan,
    opened: Opened,
    /// The apps whose commands are still to run.
    left: VecDeque<String>,
    running: Step,
    /// A stop came meanwhile.
    abandoned: bool,
}

struct Step {
    app: String,
    pid: Pid,
    /// How far it came on the way to its program.
    pipe: OwnedFd,
    began: Instant,
    deadline: Instant,
    overdue: bool,
}

impl Master {
    /// Runs the commands of a plan one after the other; then the workers are started.
    pub(super) fn prepare(&mut self, plan: Plan, opened: Opened) {
        let with_command = plan.apps.iter().filter(|(_, app)| app.before.is_some());
        let left = with_command.map(|(name, _)| name.clone()).collect();
        self.next_step(plan, opened, left);
    }

    fn next_step(&mut self, plan: Plan, opened: Opened, mut left: VecDeque<String>) {
        let Some(name) = left.pop_front() else {
            return self.propose(plan, opened);
        };
        match self.begin_step(&name, plan.apps.get(&name)) {
            Ok(running) => {
                let abandoned = false;
                self.preparation = Some(Preparation {
                    plan,
                    opened,
                    left,
                    running,
                    abandoned,
                });
            }
            Err(reason) => {
                self.close(&opened);
                self.refuse(&format!(
                    "app={name}: its command `before` cannot be started: {reason}"
                ));
            }
        }
    }

    fn begin_step(&mut self, name: &str, app: Option<&plan::App>) -> Result<Step, String> {
        let missing = || "there is none".to_owned();
        let app = app.ok_or_else(missing)?;
        let command = app.before.as_ref().ok_or_else(missing)?;
        let overheard = self.overhear(app);
        let contract = Contract {
            app: name,
            slot: None,
            generation: self.last_generation + 1,
            sockets: Vec::new(),
            notify_socket: self.notify.address(name).unwrap_or_default(),
            scoreboard: None,
            template: None,
            check: None,
            output: self.output(app, overheard.as_ref()),
        };
        let (pid, pipe) = launch(command, &contract).map_err(|error| error.to_string())?;
        info!("app={name} before pid={pid}: {}", command.args.join(" "));
        self.listen_to(pid, overheard);
        let began = Instant::now();
        let deadline = began + app.policy.start_timeout;
        Ok(Step {
            app: name.to_owned(),
            pid,
            pipe,
            began,
            deadline,
            overdue: false,
        })
    }

    /// When the running command has had its time.
    pub(super) fn step_deadline(&self) -> Option<Instant> {
        let step = self
            .preparation
            .as_ref()
            .map(|preparation| &preparation.running);
        step.filter(|step| !step.overdue).map(|step| step.deadline)
    }

    /// Ends the command when it has had its time.
    pub(super) fn end_overdue_step(&mut self, now: Instant) {
        if let Some(preparation) = &mut self.preparation
            && preparation.running.deadline <= now
            && !preparation.running.overdue
        {
            preparation.running.overdue = true;
            send(preparation.running.pid, Signal::SIGKILL);
        }
    }

    /// Whether a process was the running command; if so, what follows from its end is done.
    pub(super) fn step_ended(&mut self, pid: Pid, status: WaitStatus, words: Option<&str>) -> bool {
        let Some(preparation) = self.preparation.take_if(|p| p.running.pid == pid) else {
            return false;
        };
        let Preparation {
            plan,
            opened,
            left,
            running,
            abandoned,
        } = preparation;
        let name = &running.app;
        let time = report::short(running.began.elapsed());
        if abandoned {
            return true;
        }
        if matches!(status, WaitStatus::Exited(_, 0)) {
            info!("app={name} before pid={pid}: succeeded after {time}");
            self.next_step(plan, opened, left);
            return true;
        }
        let why = match progress(&running.pipe) {
            Progress::Failed(stage, error) => {
                format!("failed at {}: {error}", report::stage(stage))
            }
            _ if running.overdue => {
                format!("was killed, as it had not ended within start_timeout ({time})")
            }
            _ => format!("{} after {time}", describe(status)),
        };
        let why = why + &report::last_words(words);
        error!("app={name} before pid={pid}: {why}");
        self.close(&opened);
        self.refuse(&format!("app={name}: its command `before` {why}"));
        true
    }

    /// The master stops: the command is of no use any more.
    pub(super) fn abandon_preparation(&mut self) {
        if let Some(preparation) = &mut self.preparation {
            preparation.abandoned = true;
            send(preparation.running.pid, Signal::SIGKILL);
        }
    }
}
