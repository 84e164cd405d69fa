//! What signals, and those who call the control socket, ask the master for.

use std::io;
use std::time::Duration;

use log::{debug, info, warn};

use super::{App, Master, Phase};
use crate::signals::Request;
use crate::supervisor::Event;

impl Master {
    pub(super) fn obey(&mut self, from: &str, request: Request) {
        match request {
            Request::Reload => self.want_reload(from),
            Request::Stop | Request::StopNow if self.phase == Phase::Stopping => {
                info!("{from}: stopping now");
                self.tell_all(&Event::StopNow);
                self.hurry_templates(Duration::ZERO);
            }
            Request::Stop => {
                info!("{from}: stopping; workers finish what they serve");
                self.stop(&Event::Stop);
            }
            Request::StopNow => {
                info!("{from}: stopping; workers have a second (again: none)");
                self.stop(&Event::StopNow);
                self.hurry_templates(Duration::from_secs(1));
            }
            Request::More => self.scale(from, 1),
            Request::Fewer => self.scale(from, -1),
            Request::Pause if on_terminal() => debug!("{from}: the size of a terminal has changed"),
            Request::Pause => {
                info!("{from}: pausing: all workers end, the listeners stay (SIGHUP resumes)");
                self.tell_all(&Event::Pause);
            }
            Request::Reopen => match self.log_files.reopen() {
                0 => info!("{from}: no app has a log file, there is nothing to reopen"),
                number => info!("{from}: reopening {number} log files"),
            },
            Request::Upgrade => {
                warn!(
                    "{from}: replacing the program in place is not supported; restart preforkd to upgrade it"
                );
            }
        }
    }

    pub(super) fn scale(&mut self, from: &str, by: i32) {
        let listens = |app: &App| app.plans.values().any(|plan| !plan.sockets.is_empty());
        // What listens nowhere is often meant to run once (a scheduler), and a signal names no app.
        let any_listens = self.apps.values().any(listens);
        for (name, app) in &mut self.apps {
            if any_listens && !listens(app) {
                continue;
            }
            let wanted = app
                .supervisor
                .counts()
                .wanted
                .saturating_add_signed(by)
                .max(1);
            info!("{from}: app={name}: {wanted} workers wanted");
            self.facts.push_back((name.clone(), Event::Scale(by)));
        }
    }

    pub(super) fn stop(&mut self, event: &Event) {
        self.phase = Phase::Stopping;
        self.stop_following();
        let line = self.status_line();
        self.init.stopping(&line);
        self.reload = None;
        self.abandon_preparation();
        self.reload_wanted = false;
        self.dismiss_reloaders();
        self.tell_all(event);
        self.end_templates(|_| true);
    }

    pub(super) fn tell_all(&mut self, event: &Event) {
        for name in self.apps.keys() {
            self.facts.push_back((name.clone(), event.clone()));
        }
    }
}

fn on_terminal() -> bool {
    use std::io::IsTerminal;
    io::stdin().is_terminal() || io::stderr().is_terminal()
}
