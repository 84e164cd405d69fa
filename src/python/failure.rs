//! Why a process ends before it serves, or while it does.

use std::io;

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
        Python::attach(|py| error.display(py));
        Self::Shown
    }
}

/// What could not be done, and why.
pub(crate) fn could_not<E: Into<io::Error>>(what: &str) -> impl Fn(E) -> Failure {
    move |error| Failure::Message(format!("could not {what}: {}", error.into()))
}
