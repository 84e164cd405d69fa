//! What a process has from its master: settings and descriptors.

use std::os::fd::OwnedFd;

use preforkd_worker::env::{self, Environment};
use preforkd_worker::scoreboard::Record;
use preforkd_worker::settings::Settings;
use pyo3::prelude::*;

use crate::failure::{Failure, could_not};
use crate::{logger, sys};

/// Everything that the master passes.
pub(crate) struct Inheritance {
    pub environment: Environment,
    pub settings: Settings,
    pub listeners: Vec<OwnedFd>,
    pub scoreboard: Option<OwnedFd>,
    /// A template's socket to the master.
    pub template: Option<OwnedFd>,
    /// What becomes standard error when the process is ready.
    pub stderr: Option<OwnedFd>,
    pub access_log: Option<OwnedFd>,
    /// The listener over which the master probes the first worker.
    pub check: Option<OwnedFd>,
    /// At its end the worker drains.
    pub stop: Option<OwnedFd>,
}

impl Inheritance {
    /// Reads the variables through `get`, and takes over the descriptors that they name.
    pub fn take(get: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let environment = Environment::parse(&get, std::process::id()).map_err(|error| {
            Failure::Message(format!(
                "could not read the environment of the worker: {error} (only preforkd can start it)"
            ))
        })?;
        logger::set_process(&environment);
        let settings = Settings::parse(&get(env::WSGI).unwrap_or_default())
            .map_err(|error| Failure::Message(format!("could not read {}: {error}", env::WSGI)))?;
        let adopt = |fd| sys::adopt(fd).map_err(could_not(&format!("take over descriptor {fd}")));
        let stderr = environment.stderr_fd.map(adopt).transpose()?;
        if let Some(end) = &stderr {
            logger::look_at_stderr(end);
        }
        Ok(Self {
            settings,
            listeners: (0..environment.listeners as i32)
                .map(|n| adopt(env::FIRST_LISTENER + n))
                .collect::<Result<_, _>>()?,
            scoreboard: environment.scoreboard_fd.map(adopt).transpose()?,
            template: environment.template.map(adopt).transpose()?,
            stderr,
            access_log: environment.access_log_fd.map(adopt).transpose()?,
            check: environment.check_fd.map(adopt).transpose()?,
            stop: environment.stop_fd.map(adopt).transpose()?,
            environment,
        })
    }

    /// Goes over from the pipe on which the master reads during a start to the standard error of a ready process.
    pub fn take_stderr_over(&mut self, py: Python<'_>) -> Result<(), Failure> {
        let Some(stderr) = self.stderr.take() else {
            return Ok(());
        };
        // What is buffered belongs to the start. An application may have put anything in its place.
        let stream = py.import("sys")?.getattr("stderr")?;
        if let Err(error) = stream.call_method0("flush") {
            log::debug!("could not flush standard error: {error}");
        }
        rustix::stdio::dup2_stderr(&stderr).map_err(could_not("change standard error"))?;
        logger::look_at_stderr(std::io::stderr());
        Ok(())
    }

    /// Takes the worker's record of the scoreboard, if there is one.
    pub fn begin_record(&self) -> Result<Option<Record>, Failure> {
        let (Some(memory), Some(index)) = (&self.scoreboard, self.environment.scoreboard_record)
        else {
            return Ok(None);
        };
        let what = format!("map record {index} of the scoreboard");
        let words = sys::map_record(memory, index).map_err(could_not(&what))?;
        let record = Record::new(words);
        record.begin(std::process::id());
        Ok(Some(record))
    }
}
