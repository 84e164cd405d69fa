//! preforkd: a multi-process prefork worker manager.
//!
//! The map of the house:
//!
//! - [`cli`] reads the command line; [`client`] asks a running master; [`logging`] says where log lines go;
//! - [`log_writer`] is the process behind a log file, [`probe`] that behind a check;
//! - [`config`] is `app.toml` as written, [`plan`] the same checked against the host;
//! - [`supervisor`] decides what one app's workers should do, from facts alone;
//! - [`master`] is the loop between the world and the supervisors;
//! - [`effects`] acts on the world, one topic in each file; [`sys`] is the only unsafe code;
//! - [`signals`] is the table of signals.
//!
//! Three crates beside it are what runs in a worker: `preforkd-worker` (the contract with the master),
//! `preforkd-http` (HTTP/1.1) and `preforkd-python` (WSGI).

pub mod cli;
pub mod client;
pub mod config;
pub mod config_check;
pub mod effects;
pub mod launcher;
pub mod log_writer;
pub mod logging;
pub mod master;
pub mod plan;
pub mod probe;
pub mod release;
pub mod signals;
pub mod supervisor;
pub mod sys;
