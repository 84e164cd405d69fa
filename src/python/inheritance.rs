//! What a process has from its master: settings, variables and descriptors.

use preforkd_worker::env;
use preforkd_worker::passed::Passed;
use preforkd_worker::scoreboard::Record;
use preforkd_worker::settings::Settings;
use pyo3::prelude::*;

use crate::failure::Failure;

/// Everything that the master passes.
pub(crate) struct Inheritance {
    pub settings: Settings,
    pub passed: Passed,
}

impl Inheritance {
    /// Reads the variables through `get`, and takes over the descriptors that they name.
    pub fn take(get: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let passed = Passed::take(&get).map_err(Failure::Message)?;
        let settings = Settings::parse(&get(env::WSGI).unwrap_or_default())
            .map_err(|error| Failure::Message(format!("could not read {}: {error}", env::WSGI)))?;
        Ok(Self { settings, passed })
    }

    /// Goes over from the pipe on which the master reads during a start to the standard error of a ready process.
    pub fn take_stderr_over(&mut self, py: Python<'_>) -> Result<(), Failure> {
        if self.passed.stderr.is_none() {
            return Ok(());
        }
        // What is buffered belongs to the start. An application may have put anything in its place.
        let stream = py.import("sys")?.getattr("stderr")?;
        if let Err(error) = stream.call_method0("flush") {
            log::debug!("could not flush standard error: {error}");
        }
        self.passed.take_stderr_over().map_err(Failure::Message)
    }

    /// Takes the worker's record of the scoreboard, if there is one.
    pub fn begin_record(&self) -> Result<Option<Record>, Failure> {
        self.passed.begin_record().map_err(Failure::Message)
    }
}
