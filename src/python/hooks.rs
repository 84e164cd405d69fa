//! Functions of the application that are called at the turns of a worker's life (preforkd.toml(5), `hooks`).

use preforkd_worker::settings::Settings;
use pyo3::prelude::*;

use crate::failure::Failure;
use crate::names;

/// When a function is called; its name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    /// In the template, before it forks the first worker.
    BeforeFork,
    /// In a worker that a template has forked.
    AfterFork,
    /// In a worker, before it accepts connections.
    WorkerStart,
    /// In a worker that has answered everything.
    WorkerStop,
}

const ALL: [Hook; 4] = [
    Hook::BeforeFork,
    Hook::AfterFork,
    Hook::WorkerStart,
    Hook::WorkerStop,
];

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::BeforeFork => "before_fork",
            Self::AfterFork => "after_fork",
            Self::WorkerStart => "worker_start",
            Self::WorkerStop => "worker_stop",
        }
    }
}

/// The module with the functions, or none.
pub(crate) struct Hooks<'py>(Option<Bound<'py, PyAny>>);

impl<'py> Hooks<'py> {
    /// Imports the module.
    ///
    /// # Errors
    /// It cannot be imported, has none of the functions, or something else under one of the names.
    pub fn load(py: Python<'py>, settings: &Settings, preload: bool) -> Result<Self, Failure> {
        let name = settings.hooks.as_deref();
        let Some(name) = name else {
            return Ok(Self(None));
        };
        let module = names::module(py, "hooks", name, name, &settings.interpreter)?;
        let mut found = false;
        for hook in ALL.map(Hook::name) {
            if let Some(function) = module.getattr_opt(hook)? {
                found = true;
                if !function.is_callable() {
                    return Err(Failure::Message(format!(
                        "hooks: {name}.{hook} is no function, but {function:?}"
                    )));
                }
                check(&function, &format!("{name}.{hook}"))?;
            }
        }
        if !found {
            let names = ALL.map(Hook::name).join(", ");
            return Err(Failure::Message(format!(
                "hooks: the module {name} has none of the functions {names}"
            )));
        }
        if !preload {
            tell_of_forks(&module, name)?;
        }
        Ok(Self(Some(module)))
    }

    /// Calls a function, if there is one.
    ///
    /// # Errors
    /// It fails, or what it returns shows that it is asynchronous.
    pub fn call(&self, hook: Hook) -> Result<(), Failure> {
        let Some(module) = &self.0 else {
            return Ok(());
        };
        let Some(function) = module.getattr_opt(hook.name())? else {
            return Ok(());
        };
        let result = function.call0()?;
        if result.hasattr("__await__")? {
            let name = function.getattr_opt("__qualname__")?.unwrap_or(function);
            return Err(Failure::Message(format!(
                "hooks: {name} is asynchronous, and would not run (write a plain function; it may call asyncio.run)"
            )));
        }
        Ok(())
    }
}

/// # Errors
/// The function is asynchronous, or wants arguments.
fn check(function: &Bound<'_, PyAny>, name: &str) -> Result<(), Failure> {
    let inspect = function.py().import("inspect")?;
    let is = |what: &str| inspect.call_method1(what, (function,))?.is_truthy();
    if is("iscoroutinefunction")? || is("isasyncgenfunction")? {
        return Err(Failure::Message(format!(
            "hooks: {name} is asynchronous, and would not run (write a plain function; it may call asyncio.run)"
        )));
    }
    // Some functions of C do not tell their arguments.
    let Ok(signature) = inspect.call_method1("signature", (function,)) else {
        return Ok(());
    };
    match signature.call_method0("bind") {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::Message(format!(
            "hooks: {name}{signature} is called without arguments (give it none, or defaults)"
        ))),
    }
}

/// Warns of functions that are never called.
fn tell_of_forks(module: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
    for hook in [Hook::BeforeFork, Hook::AfterFork].map(Hook::name) {
        if module.hasattr(hook)? {
            log::warn!(
                "hooks: {name}.{hook} is never called, as no worker is forked from another process of Python (set preload = true, or use \
                 worker_start)"
            );
        }
    }
    Ok(())
}
