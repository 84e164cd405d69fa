//! The program as the process that orders certificates: `preforkd-front acme`, with a [`Task`] as its input and an [`Answer`] as its output. It
//! runs as the user of the front, and what it says is checked by whoever started it.
//!
//! `exchange` is the order; `client` the way to the authority; `problem` says what its refusals mean; [`made`] are the certificates that
//! need no authority. [`look`] tells what is in a file with a certificate.

mod client;
mod exchange;
pub mod look;
pub mod made;
mod problem;

use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use preforkd_worker::acme::{Answer, Failure, Outcome, Task};

/// The first argument, which asks for this.
pub const COMMAND: &str = "acme";

/// How long a part of an exchange may take. An authority validates within seconds; a queue of its own is no reason to hold others up.
const MOST: Duration = Duration::from_secs(180);

/// Does what the input says.
///
/// # Errors
/// The input cannot be read, or the answer cannot be written; the whole message.
pub fn run() -> Result<(), String> {
    let could_not =
        |what: &str, error: &dyn std::fmt::Display| format!("could not {what}: {error}");
    let mut json = zeroize::Zeroizing::new(String::new());
    let read = io::stdin().read_to_string(&mut json);
    read.map_err(|error| could_not("read the input", &error))?;
    let task: Task =
        serde_json::from_str(&json).map_err(|error| could_not("read the input", &error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| could_not("begin", &error))?;
    let account = Arc::new(Mutex::new(task.account.clone()));
    // The clock of a runtime is there within it only.
    let part = async { tokio::time::timeout(MOST, exchange::run(&task, &account)).await };
    let ended = runtime.block_on(part);
    let outcome = ended.unwrap_or_else(|_| Outcome::Failed {
        why: format!("it took longer than {} s", MOST.as_secs()),
        failure: Failure::Unreachable,
        retry_after: None,
    });
    let account = account.lock().map(|account| account.clone());
    let answer = Answer {
        account: account.unwrap_or_default(),
        outcome,
    };
    let written = serde_json::to_string(&answer).map_err(io::Error::from);
    let written = written.and_then(|text| io::stdout().write_all(text.as_bytes()));
    // A name service may hold a thread of the runtime.
    runtime.shutdown_background();
    written.map_err(|error| could_not("write the answer", &error))
}
