//! The program `preforkd-front`, which the master starts.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use preforkd_front::{acme, check, metrics, tls};
use preforkd_worker::metrics::orders;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    let is = |command: &str| first.as_ref().is_some_and(|first| first == command);
    if is(tls::check::COMMAND) {
        return tls::check::main(arguments);
    }
    let done = match () {
        () if is(check::COMMAND) => check::run(),
        () if is(orders::COMMAND) => metrics::run(),
        () if is(acme::COMMAND) => acme::run(),
        () if is(acme::look::COMMAND) => acme::look::run(),
        () if is(acme::made::COMMAND) => acme::made::run(arguments),
        () => preforkd_front::serve::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log::error!("{message}");
            ExitCode::FAILURE
        }
    }
}
