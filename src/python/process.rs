//! The life of a process: it takes what its master passes, and becomes a template or a worker.

use preforkd_worker::contract::{self, Kind};
use preforkd_worker::{env, logger};
use pyo3::prelude::*;

use crate::failure::Failure;
use crate::hooks::Hooks;
use crate::inheritance::Inheritance;
use crate::input::Input;
use crate::serve::serve;
use crate::{environment, import, inspect, signals, template, title};

/// Runs worker or template to its end; the exit status.
pub(crate) fn run(py: Python<'_>) -> i32 {
    logger::init();
    match prepare_and_run(py) {
        Ok(()) => 0,
        Err(Failure::Shown) => 1,
        Err(Failure::Message(message)) => {
            log::error!("{message}");
            1
        }
    }
}

fn prepare_and_run(py: Python<'_>) -> Result<(), Failure> {
    let get = |name: &str| std::env::var(name).ok();
    // Nothing else that another version has set may be understood.
    let path = get(env::EXTENSION);
    let file = format!("the extension {}", path.as_deref().unwrap_or("unknown"));
    contract::check(get, &file).map_err(|mismatch| Failure::Message(mismatch.to_string()))?;
    let mut inheritance = Inheritance::take(get)?;
    if let Some(warning) = contract::other_release(get, &file) {
        log::warn!("{warning}");
    }
    hide_environment(py)?;
    signals::disregard_orders_to_the_master(py)?;
    // The master sends SIGABRT to a worker that hangs: it shows the stack of each thread.
    py.import("faulthandler")?.call_method0("enable")?;
    title::set(&inheritance.passed.environment);
    Input::register(py)?;
    if inheritance
        .passed
        .environment
        .slot
        .is_none_or(|slot| slot == 0)
    {
        environment::tell(py, &inheritance.settings)?;
        environment::tell_of_temporary_folder();
    }
    match (
        inheritance.passed.environment.kind,
        inheritance.passed.template.take(),
    ) {
        (Kind::Template, Some(socket)) => template::run(py, socket, inheritance),
        (Kind::Wsgi, None) => {
            let record = inheritance.begin_record()?;
            let application = import::application(py, &inheritance.settings)?;
            let hooks = Hooks::load(py, &inheritance.settings, false)?;
            serve(py, inheritance, &application, &hooks, record)
        }
        (Kind::Inspection, None) => inspect::run(py, &inheritance.settings),
        (kind, socket) => Err(Failure::Message(format!(
            "could not start: {}={}, but {} is {} (a defect of preforkd)",
            env::KIND,
            kind.name(),
            env::TEMPLATE,
            if socket.is_some() { "set" } else { "unset" },
        ))),
    }
}

fn hide_environment(py: Python<'_>) -> PyResult<()> {
    let environ = py.import("os")?.getattr("environ")?;
    for name in env::PRIVATE {
        environ.call_method1("pop", (name, py.None()))?;
    }
    Ok(())
}
