//! The environment that the master gives a worker (preforkd-worker(7), "Environment").

use std::fmt;

use crate::contract::Kind;

/// Number of listeners passed, from descriptor 3 on (sd_listen_fds(3)).
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// The process the listeners are meant for (sd_listen_fds(3)).
pub const LISTEN_PID: &str = "LISTEN_PID";
/// Names of the listeners, separated by colons (sd_listen_fds_with_names(3)).
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// The master's datagram socket for readiness and status (sd_notify(3)).
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Version of the contract, decimal: [`crate::contract::VERSION`] of the master.
pub const CONTRACT: &str = "PREFORKD_CONTRACT";
/// The version of the master, a space, and the path of its program; only for workers of ours. Only messages use it.
pub const MASTER: &str = "PREFORKD_MASTER";
/// What kind of worker the process is, see [`Kind`]; unset for any program.
pub const KIND: &str = "PREFORKD_KIND";
/// Name of the app the worker belongs to.
pub const APP: &str = "PREFORKD_APP";
/// The worker's slot, decimal.
pub const SLOT: &str = "PREFORKD_SLOT";
/// The process of the worker that the program of a check is to judge, decimal; only in such a program.
pub const CHECKED_PID: &str = "PREFORKD_PID";
/// Generation of the configuration the worker belongs to, decimal.
pub const GENERATION: &str = "PREFORKD_GENERATION";
/// Descriptor of the scoreboard's memory, decimal.
pub const SCOREBOARD_FD: &str = "PREFORKD_SCOREBOARD_FD";
/// Index of the worker's record in the scoreboard, decimal.
pub const SCOREBOARD_RECORD: &str = "PREFORKD_SCOREBOARD_RECORD";
/// Descriptor of the template's socket to the master, decimal; only in a template.
pub const TEMPLATE: &str = "PREFORKD_TEMPLATE";
/// Descriptor that becomes standard error when the worker (or template) is ready, decimal. Until then standard error is a
/// pipe to the master, which forwards what it reads and quotes the last output if the start fails.
pub const STDERR_FD: &str = "PREFORKD_STDERR_FD";
/// Descriptor for the access log, one line per request, decimal. A non-blocking pipe.
pub const ACCESS_LOG_FD: &str = "PREFORKD_ACCESS_LOG_FD";
/// Descriptor of the private listener over which the master checks the worker, decimal. The worker accepts on it only,
/// until it is shut down (accept(2) fails with EINVAL).
pub const CHECK_FD: &str = "PREFORKD_CHECK_FD";
/// Descriptor over which the master tells the worker to stop, decimal: the read end of a pipe, at whose end the worker drains.
/// A worker of a template gets its own with the order ([`crate::messages::Fork`]).
pub const STOP_FD: &str = "PREFORKD_STOP_FD";
/// Path of the extension module; only for Python workers.
pub const EXTENSION: &str = "PREFORKD_EXTENSION";
/// Settings of a WSGI worker as a JSON object; only for Python workers.
pub const WSGI: &str = "PREFORKD_WSGI";
/// Descriptor of a sealed memory file with the settings of a front worker as a JSON object, decimal.
pub const FRONT_FD: &str = "PREFORKD_FRONT_FD";
/// Descriptor of the socket on which a front worker gets its [`crate::updates`], decimal.
pub const UPDATES_FD: &str = "PREFORKD_UPDATES_FD";

/// Descriptor of an eventfd(2) that all workers of the front have, and by which they wake each other, decimal. Nobody reads it.
pub const WAKE_FD: &str = "PREFORKD_WAKE_FD";

/// Descriptor of a listener that only this worker has, and at which only the front can connect, decimal. A worker of a template gets its
/// own with the order ([`crate::messages::Fork`]).
pub const OWN_FD: &str = "PREFORKD_OWN_FD";

/// The name in `LISTEN_FDNAMES` of the listener at which only the front can connect.
pub const FRONT_LISTENER: &str = "front";

/// First descriptor of the listeners (SD_LISTEN_FDS_START of sd_listen_fds(3)).
pub const FIRST_LISTENER: i32 = 3;

/// Variables that an application must not see: it might take the listeners or the readiness of its server for its own.
pub const PRIVATE: [&str; 20] = [
    CONTRACT,
    MASTER,
    KIND,
    LISTEN_FDS,
    LISTEN_PID,
    LISTEN_FDNAMES,
    NOTIFY_SOCKET,
    EXTENSION,
    WSGI,
    TEMPLATE,
    SCOREBOARD_FD,
    SCOREBOARD_RECORD,
    STDERR_FD,
    ACCESS_LOG_FD,
    CHECK_FD,
    STOP_FD,
    FRONT_FD,
    OWN_FD,
    UPDATES_FD,
    WAKE_FD,
];

/// Whether the master sets a variable for its workers.
pub fn is_of_contract(name: &str) -> bool {
    let shown = [APP, SLOT, GENERATION, CHECKED_PID];
    PRIVATE.iter().chain(&shown).any(|own| *own == name)
}

/// The environment of a worker or template, read once at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Kind of the worker.
    pub kind: Kind,
    /// Name of the app; empty when the process was not started by a master.
    pub app: String,
    /// The worker's slot; `None` for a template.
    pub slot: Option<u32>,
    /// Generation of the configuration.
    pub generation: u64,
    /// Number of listeners, from [`FIRST_LISTENER`] on.
    pub listeners: u32,
    /// Names of the listeners, as many as the master has passed.
    pub listener_names: Vec<String>,
    /// Address of the master's datagram socket, as in `NOTIFY_SOCKET`.
    pub notify_socket: Option<String>,
    /// Descriptor of the scoreboard's memory.
    pub scoreboard_fd: Option<i32>,
    /// Index of the worker's record in it.
    pub scoreboard_record: Option<u32>,
    /// Descriptor of the template's socket; set only in a template.
    pub template: Option<i32>,
    /// Descriptor that becomes standard error when the process is ready.
    pub stderr_fd: Option<i32>,
    /// Descriptor of the access log.
    pub access_log_fd: Option<i32>,
    /// Descriptor of the private listener for checks.
    pub check_fd: Option<i32>,
    /// Descriptor at whose end the worker drains.
    pub stop_fd: Option<i32>,
    /// Descriptor of the settings of a front worker.
    pub front_fd: Option<i32>,
    /// Descriptor of the worker's own listener.
    pub own_fd: Option<i32>,
    /// Descriptor of the socket of its updates.
    pub updates_fd: Option<i32>,
    /// Descriptor by which workers of the front wake each other.
    pub wake_fd: Option<i32>,
}

/// A variable with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// What was expected.
    pub expected: &'static str,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}={:?}: expected {}",
            self.variable, self.value, self.expected
        )
    }
}

impl std::error::Error for Error {}

impl Environment {
    /// Reads the variables of the contract through `get`. `own_pid` is compared with `LISTEN_PID`.
    ///
    /// # Errors
    /// A variable is not a valid number, or the listeners are for another process.
    pub fn parse(get: impl Fn(&str) -> Option<String>, own_pid: u32) -> Result<Self, Error> {
        let listeners = number(&get, LISTEN_FDS)?.unwrap_or(0);
        if listeners > 0
            && let Some(pid) = number::<u32>(&get, LISTEN_PID)?
            && pid != own_pid
        {
            return Err(Error {
                variable: LISTEN_PID,
                value: pid.to_string(),
                expected: "the process id of this worker",
            });
        }
        let kind = match get(KIND) {
            None => Kind::default(),
            Some(value) => Kind::parse(&value).ok_or(Error {
                variable: KIND,
                value,
                expected: "a kind of worker",
            })?,
        };
        Ok(Self {
            kind,
            app: get(APP).unwrap_or_default(),
            slot: number(&get, SLOT)?,
            generation: number(&get, GENERATION)?.unwrap_or(0),
            listeners,
            listener_names: get(LISTEN_FDNAMES)
                .filter(|names| !names.is_empty())
                .map(|names| names.split(':').map(str::to_owned).collect())
                .unwrap_or_default(),
            notify_socket: get(NOTIFY_SOCKET).filter(|address| !address.is_empty()),
            scoreboard_fd: number(&get, SCOREBOARD_FD)?,
            scoreboard_record: number(&get, SCOREBOARD_RECORD)?,
            template: number(&get, TEMPLATE)?,
            stderr_fd: number(&get, STDERR_FD)?,
            access_log_fd: number(&get, ACCESS_LOG_FD)?,
            check_fd: number(&get, CHECK_FD)?,
            stop_fd: number(&get, STOP_FD)?,
            front_fd: number(&get, FRONT_FD)?,
            own_fd: number(&get, OWN_FD)?,
            updates_fd: number(&get, UPDATES_FD)?,
            wake_fd: number(&get, WAKE_FD)?,
        })
    }
}

fn number<T: std::str::FromStr>(
    get: impl Fn(&str) -> Option<String>,
    variable: &'static str,
) -> Result<Option<T>, Error> {
    let Some(value) = get(variable) else {
        return Ok(None);
    };
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(Error {
            variable,
            value,
            expected: "a decimal number",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(vars: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::parse(
            |name| {
                vars.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| (*v).to_owned())
            },
            77,
        )
    }

    #[test]
    fn a_full_environment_is_read() {
        let env = parse(&[
            (LISTEN_FDS, "2"),
            (LISTEN_PID, "77"),
            (LISTEN_FDNAMES, "web:admin"),
            (NOTIFY_SOCKET, "@preforkd"),
            (APP, "web"),
            (SLOT, "3"),
            (GENERATION, "12"),
            (KIND, "wsgi"),
            (SCOREBOARD_FD, "5"),
            (SCOREBOARD_RECORD, "9"),
        ])
        .unwrap();
        assert_eq!((env.kind, env.listeners), (Kind::Wsgi, 2));
        assert_eq!(env.listener_names, ["web", "admin"]);
        assert_eq!(
            (env.app.as_str(), env.slot, env.generation),
            ("web", Some(3), 12)
        );
        assert_eq!(
            (env.scoreboard_fd, env.scoreboard_record, env.template),
            (Some(5), Some(9), None)
        );
        assert_eq!(env.notify_socket.as_deref(), Some("@preforkd"));
    }

    #[test]
    fn an_empty_environment_is_a_worker_without_listeners() {
        let env = parse(&[]).unwrap();
        assert_eq!(
            (env.listeners, env.slot, env.notify_socket),
            (0, None, None)
        );
        assert_eq!(env.kind, Kind::Command);
    }

    #[test]
    fn an_unknown_kind_of_worker_is_refused() {
        let error = parse(&[(KIND, "cgi")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "PREFORKD_KIND=\"cgi\": expected a kind of worker"
        );
    }

    #[test]
    fn listeners_of_another_process_are_refused() {
        assert_eq!(
            parse(&[(LISTEN_FDS, "1"), (LISTEN_PID, "78")])
                .unwrap_err()
                .variable,
            LISTEN_PID
        );
    }

    #[test]
    fn invalid_numbers_are_refused() {
        for value in ["", "+1", "-1", "1 ", "0x1", "99999999999999999999"] {
            assert!(parse(&[(LISTEN_FDS, value)]).is_err(), "{value:?}");
        }
    }
}
