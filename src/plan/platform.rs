//! `PORT` and `WEB_CONCURRENCY`: with these variables hosting platforms say where an application has to listen, and how many workers
//! suit the machine. They count where the configuration says nothing, for one app with `wsgi`.

use std::net::{Ipv4Addr, SocketAddr};

use super::Draft;
use crate::config::{Address, App, Listen, MAX_WORKERS, Place};

/// The TCP port to listen on. A platform sends requests from outside, so the address is that of every interface.
const PORT: &str = "PORT";
/// The number of workers.
const WORKERS: &str = "WEB_CONCURRENCY";

impl Draft<'_> {
    /// The listener that `PORT` asks for, if the app has none.
    pub(super) fn port(&self, notices: &mut Vec<String>) -> Result<Option<Listen>, Place> {
        let lacks = |app: &App| app.listen.place().is_none();
        if self.reached.has(self.name) {
            return Ok(None);
        }
        let Some(port) = self.for_the_only(PORT, lacks).map_err(|names| {
            self.wrong(format!(
                "no listener: the variable {PORT} is for one app, but {names} have no `listen` (add it)"
            ))
        })? else {
            return Ok(None);
        };
        let Some(number) = port.parse::<u16>().ok().filter(|port| *port > 0) else {
            return Err(self.wrong(format!(
                "[app.{}] has no `listen`, and the variable {PORT} must be a number from 1 to 65535, not {port:?} (set it so, or add `listen`)",
                self.name
            )));
        };
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, number));
        notices.push(format!(
            "listens on {address}, from the variable {PORT}, because `listen` is not given"
        ));
        Ok(Some(Listen::on(Address::Tcp(address))))
    }

    /// The number of workers that `WEB_CONCURRENCY` asks for, if the app has none.
    pub(super) fn concurrency(&self, notices: &mut Vec<String>) -> Result<Option<u32>, Place> {
        let lacks = |app: &App| app.workers.place().is_none();
        let number = match self.for_the_only(WORKERS, lacks) {
            Ok(None) => return Ok(None),
            Ok(Some(number)) => number,
            Err(names) => {
                notices.push(format!(
                    "the variable {WORKERS} does not count: it is for one app, but {names} have no `workers`"
                ));
                return Ok(None);
            }
        };
        let workers = number.parse().ok();
        let Some(workers) = workers.filter(|workers| (1..=MAX_WORKERS).contains(workers)) else {
            return Err(self.wrong(format!(
                "[app.{}] has no `workers`, and the variable {WORKERS} must be a number from 1 to {MAX_WORKERS}, not {number:?} (set it so, or add `workers`)",
                self.name
            )));
        };
        notices.push(format!(
            "has {workers} worker{}, from the variable {WORKERS}, because `workers` is not given",
            if workers == 1 { "" } else { "s" }
        ));
        Ok(Some(workers))
    }

    /// The value of a variable that is for this app: one with `wsgi` that lacks a key. The error is the names of several of them.
    fn for_the_only(
        &self,
        variable: &str,
        lacks: impl Fn(&App) -> bool,
    ) -> Result<Option<String>, String> {
        let is_one = |app: &App| app.wsgi.is_some() && lacks(app);
        if !is_one(self.written) {
            return Ok(None);
        }
        let value = self.host.variable(variable);
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let all = self.all.iter().filter(|(_, app)| is_one(app));
        let names: Vec<_> = all
            .map(|(name, _)| format!("[app.{}]", name.get_ref()))
            .collect();
        match &names[..] {
            [_] => Ok(Some(value)),
            _ => Err(names.join(", ")),
        }
    }
}
