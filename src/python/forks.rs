//! Processes that the application has forked and that come back into the server.

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use crate::failure;
use crate::sys;

/// Ends a process that the application has forked and that comes back from its code, with what it raised, if anything: two
/// processes would go on with the same requests.
pub(crate) fn leave_if_forked(py: Python<'_>, raised: Option<&PyErr>) {
    if sys::is_forked() {
        leave(py, raised);
    }
}

#[cold]
fn leave(py: Python<'_>, raised: Option<&PyErr>) {
    let status = match raised {
        Some(error) if error.is_instance_of::<PySystemExit>(py) => exit_status(py, error),
        Some(error) => {
            failure::show(py, error);
            1
        }
        None => {
            log::warn!(
                "a process that the application has forked returned to the server; ending it (a child has to end with os._exit())"
            );
            0
        }
    };
    // Like at any exit; but the exit handlers are the worker's.
    for name in ["stdout", "stderr"] {
        let flushed = py
            .import("sys")
            .and_then(|sys| sys.getattr(name)?.call_method0("flush"));
        if let Err(error) = flushed {
            log::debug!("could not flush {name}: {error}");
        }
    }
    let _ = py
        .import("os")
        .and_then(|os| os.call_method1("_exit", (status,)));
}

/// The status that an interpreter would exit with (`sys.exit`).
fn exit_status(py: Python<'_>, exit: &PyErr) -> i32 {
    let code = exit.value(py).getattr("code");
    match code {
        Ok(code) if code.is_none() => 0,
        Ok(code) => code.extract().unwrap_or_else(|_| {
            eprintln!("{code}");
            1
        }),
        Err(_) => 1,
    }
}
