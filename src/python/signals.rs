//! Signals of a worker. The stop order of the master does not come by signal, so the handlers are the application's own; TERM and INT
//! stop a worker for which nobody has set another handler.

use std::os::fd::{AsRawFd, OwnedFd};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::failure::{self, Failure, could_not};
use crate::forks;
use crate::sys::{self, HeldSignals};

/// What stops a worker, and Python's own handler for it.
const STOP: [(&str, &str); 2] = [("SIGTERM", "SIG_DFL"), ("SIGINT", "default_int_handler")];

/// From now on a signal that is meant for the master does nothing here, unless it is handled.
///
/// The master has executed this process with these signals ignored, so that none could end it until now. But what the application executes
/// would inherit that, and Python would tell the application that it runs under nohup(1). So they get an empty handler, of which
/// Python does not know.
pub(crate) fn disregard_orders_to_the_master(py: Python<'_>) -> Result<(), Failure> {
    let signal = py.import("signal")?;
    let default = signal.getattr("SIG_DFL")?;
    let held = HeldSignals::orders();
    for number in sys::ignored_orders() {
        signal.call_method1("signal", (number, &default))?;
    }
    sys::disregard_orders_to_the_master().map_err(could_not("handle signals"))?;
    drop(held);
    Ok(())
}

/// Prepares the process to be stopped and to run handlers of the application at any time, and what it forks to be a process like any
/// other. Returns the pipe to which a byte is written when a signal has come, unless the application uses
/// `signal.set_wakeup_fd` for itself.
pub(crate) fn prepare(
    py: Python<'_>,
    stop: &OwnedFd,
    last_resort: u32,
) -> Result<Option<OwnedFd>, Failure> {
    sys::begin_to_listen(stop, last_resort, false).map_err(could_not("handle signals"))?;
    sys::stop_when_orphaned().map_err(could_not("ask for a signal at the death of the master"))?;
    sys::let_go_in_children().map_err(could_not("prepare for forks of the application"))?;
    let signal = py.import("signal")?;
    let abort = signal.call_method1("getsignal", (signal.getattr("SIGABRT")?,))?;
    // An application that handles it itself may want to serve on.
    if abort.eq(signal.getattr("SIG_DFL")?)? {
        sys::end_connections_at_abort().map_err(could_not("handle SIGABRT"))?;
    }
    let ours = PyCFunction::new_closure(py, Some(c"stop_worker"), None, |_, _| {
        sys::request_stop();
    })?;
    set_handlers(&signal, &ours, &ours)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(could_not("make a pipe for signals"))?;
    let wakeup = writer.as_raw_fd();
    let theirs = set_wakeup(&signal, wakeup)?;
    if theirs >= 0 {
        set_wakeup(&signal, theirs)?;
    }
    // Python may write to it until the end of the process.
    preforkd_http::descriptors::own(&writer);
    std::mem::forget(writer);
    let ours = ours.unbind();
    let in_child = PyCFunction::new_closure(py, Some(c"let_go"), None, move |args, _| {
        let py = args.py();
        preforkd_worker::stderr::forget_unfinished_lines();
        let signal = py.import("signal")?;
        set_handlers_back(&signal, ours.bind(py).as_any())?;
        let theirs = set_wakeup(&signal, -1)?;
        if theirs != wakeup {
            set_wakeup(&signal, theirs)?;
        }
        PyResult::Ok(())
    })?;
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", in_child)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&hooks))?;
    Ok((theirs < 0).then_some(reader))
}

/// TERM and INT stop the worker, unless the application has set handlers, which are set again: a template had other ones in their place.
fn set_handlers(
    signal: &Bound<'_, PyModule>,
    term: &Bound<'_, PyAny>,
    int: &Bound<'_, PyAny>,
) -> PyResult<()> {
    for ((name, default), ours) in STOP.into_iter().zip([term, int]) {
        let number = signal.getattr(name)?;
        let default = signal.getattr(default)?;
        let current = signal.call_method1("getsignal", (&number,))?;
        let is_default = current.is_none() || current.eq(&default)?;
        let handler = if is_default { ours } else { &current };
        signal.call_method1("signal", (&number, handler))?;
        if is_default {
            // System calls of the application go on after it.
            signal.call_method1("siginterrupt", (&number, false))?;
        }
    }
    Ok(())
}

/// In a child of the application: where a signal would stop the worker it does what it does in any program, and where
/// the application has set a handler, that is in force again.
fn set_handlers_back(signal: &Bound<'_, PyModule>, ours: &Bound<'_, PyAny>) -> PyResult<()> {
    for (name, default) in STOP {
        let number = signal.getattr(name)?;
        let current = signal.call_method1("getsignal", (&number,))?;
        let handler = match current.is_none() || current.is(ours) {
            true => signal.getattr(default)?,
            false => current,
        };
        signal.call_method1("signal", (number, handler))?;
    }
    Ok(())
}

fn set_wakeup(signal: &Bound<'_, PyModule>, fd: i32) -> PyResult<i32> {
    let quiet = PyDict::new(signal.py());
    quiet.set_item("warn_on_full_buffer", false)?;
    signal
        .call_method("set_wakeup_fd", (fd,), Some(&quiet))?
        .extract()
}

/// Runs the Python handlers of the signals that have come; whether the worker is to stop as one of them wants to exit.
pub(crate) fn run_handlers(py: Python<'_>) -> bool {
    let ran = py.check_signals();
    forks::leave_if_forked(py, ran.as_ref().err());
    let Err(error) = ran else {
        return false;
    };
    let wants_exit =
        error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py);
    if wants_exit {
        log::info!(
            "a signal handler of the application raised {}; stopping",
            error.get_type(py)
        );
    } else {
        failure::show(py, &error);
        log::error!("a signal handler of the application failed; serving on");
    }
    wants_exit
}
