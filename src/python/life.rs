//! What happens to the process while it serves.

use preforkd_http::Life as OfWorker;
use pyo3::Python;

use crate::{signals, sys};

/// A worker with an interpreter.
pub(crate) struct Life;

impl OfWorker for Life {
    fn interrupted(&mut self) -> bool {
        Python::attach(signals::run_handlers)
    }

    fn draining(&mut self) {
        sys::arm_last_resort();
    }
}
