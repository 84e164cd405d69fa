//! The program as the process that checks certificates for the configuration: `preforkd-front check`, with the settings as its input.

use std::io::{self, Read as _, Write as _};

use preforkd_worker::front::Settings;

use crate::terms::flaws;

/// The first argument, which asks for this.
pub const COMMAND: &str = "check";

/// Reads settings, and writes a line for each flaw: `error` or `warning`, the site and the reason, with tabs between them.
///
/// # Errors
/// The settings cannot be read, or the answer cannot be written; the whole message.
pub fn run() -> Result<(), String> {
    let mut json = zeroize::Zeroizing::new(String::new());
    let read = io::stdin().read_to_string(&mut json);
    read.map_err(|error| format!("could not read the settings: {error}"))?;
    let settings = Settings::parse(&json);
    let settings = settings.map_err(|error| format!("could not read the settings: {error}"))?;
    let mut answer = String::new();
    for flaw in flaws(&settings) {
        let kind = if flaw.is_warning { "warning" } else { "error" };
        answer.push_str(&format!("{kind}\t{}\t{}\n", flaw.site, flaw.why));
    }
    let written = io::stdout().write_all(answer.as_bytes());
    written.map_err(|error| format!("could not write the answer: {error}"))
}
