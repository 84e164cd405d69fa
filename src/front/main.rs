//! The program `preforkd-front`, which the master starts.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use preforkd_front::{check, tls};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    let is = |command: &str| first.as_ref().is_some_and(|first| first == command);
    if is(tls::check::COMMAND) {
        return tls::check::main(arguments);
    }
    let done = match is(check::COMMAND) {
        true => check::run(),
        false => preforkd_front::serve::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log::error!("{message}");
            ExitCode::FAILURE
        }
    }
}
