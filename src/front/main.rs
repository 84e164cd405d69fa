//! The program `preforkd-front`, which the master starts.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use preforkd_front::tls::check;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == check::COMMAND)
    {
        return check::main(arguments);
    }
    match preforkd_front::serve::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log::error!("{message}");
            ExitCode::FAILURE
        }
    }
}
