//! A process that loads an application, tells of it and ends: for `preforkd -t --import`, and for sites with static = "django".

use std::io::Write;

use preforkd_worker::inspection::Inspection;
use preforkd_worker::settings::Settings;
use pyo3::prelude::*;
use rustix::stdio::{dup2_stdout, stderr, stdout};

use crate::django::Django;
use crate::failure::{Failure, could_not};
use crate::import;

/// Loads the application and writes what it is to standard output. What the application prints goes to standard error.
pub(crate) fn run(py: Python<'_>, settings: &Settings) -> Result<(), Failure> {
    let answer = rustix::io::fcntl_dupfd_cloexec(stdout(), 3)
        .and_then(|answer| dup2_stdout(stderr()).map(|()| answer))
        .map_err(could_not("keep standard output for the answer"))?;
    import::application(py, settings)?;
    let version: String = py
        .import("platform")?
        .call_method0("python_version")?
        .extract()?;
    let django = Django::find(py)?;
    let inspection = Inspection {
        python: version,
        django: django.map(|django| django.inspection()).transpose()?,
    };
    let text = inspection
        .encode()
        .map_err(|error| Failure::Message(format!("could not tell of the application: {error}")))?;
    let written = std::fs::File::from(answer).write_all(text.as_bytes());
    written.map_err(could_not("tell of the application"))
}
