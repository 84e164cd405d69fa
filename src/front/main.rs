//! The program `preforkd-front`, which the master starts.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use preforkd_worker::contract;

fn main() -> ExitCode {
    let message = match contract::check(|name| std::env::var(name).ok()) {
        Ok(()) => "preforkd-front: this release serves no sites".to_owned(),
        Err(mismatch) => format!("preforkd-front: {mismatch}"),
    };
    // Nobody may read standard error.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
