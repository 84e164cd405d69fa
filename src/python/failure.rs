//! Why a process ends before it serves, or while it does.

use std::io;

use preforkd_worker::stderr;
use pyo3::prelude::*;

/// What went wrong.
pub(crate) enum Failure {
    /// Shown already.
    Shown,
    /// To be logged.
    Message(String),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Python::attach(|py| show(py, &error));
        Self::Shown
    }
}

/// Shows an exception as Python does; under the journal with the priority of an error.
pub(crate) fn show(py: Python<'_>, error: &PyErr) {
    const ERROR: u32 = 40;
    let before = stderr::set_level(ERROR);
    error.display(py);
    stderr::set_level(before);
}

/// What could not be done, and why.
pub(crate) fn could_not<E: Into<io::Error>>(what: &str) -> impl Fn(E) -> Failure {
    move |error| Failure::Message(format!("could not {what}: {}", error.into()))
}
