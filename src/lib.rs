//! preforkd: a multi-process prefork worker manager.
//!
//! The modules:
//!
//! - [`cli`] reads the command line; [`client`] sends requests to a running master; [`logging`] writes the master's log;
//! - [`certificate_watch`] is the process that watches certificates, [`certificate_keeper`] the one that has them issued, [`log_writer`]
//!   the one that writes a log file, [`probe`] the one that checks a new worker, [`config_check`] the one that checks the configuration,
//!   [`launcher`] the one that executes the program of a worker, template or job, [`guard`] the one
//!   that ends what a killed master has left;
//! - [`config`] is `app.toml` as written, [`plan`] is the configuration checked against the host;
//! - [`parts`] says where the files of this release lie that are not this program;
//! - [`supervisor`] decides what one app's workers should do, from facts alone;
//! - [`master`] is the event loop;
//! - [`effects`] makes the system calls, one topic in each file; [`sys`] is the only unsafe code;
//! - [`release`] decides how a new generation is brought in;
//! - [`schedule`] finds the times of a cron expression;
//! - [`signals`] is the table of signals.
//!
//! Three crates beside it run in workers: `preforkd-worker` (the contract with the master),
//! `preforkd-http` (HTTP/1.1) and `preforkd-python` (WSGI).

pub mod certificate_keeper;
pub mod certificate_watch;
pub mod cli;
pub mod client;
pub mod config;
pub mod config_check;
pub mod effects;
pub mod guard;
pub mod launcher;
pub mod log_writer;
pub mod logging;
pub mod master;
pub mod parts;
pub mod plan;
pub mod probe;
pub mod release;
pub mod schedule;
pub mod signals;
pub mod supervisor;
pub mod sys;

#[cfg(test)]
#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../tests/common/programs.rs"]
mod programs;
