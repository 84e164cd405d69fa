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

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Message(error.to_string())
    }
}
