//! Functions of the application that are called at the turns of a worker's life (preforkd.toml(5), `hooks`).

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
    pub fn load(py: Python<'py>, name: Option<&str>) -> Result<Self, Failure> {
        let Some(name) = name else {
            return Ok(Self(None));
        };
        let module = names::module(py, "hooks", name, name)?;
        let mut found = false;
        for hook in ALL.map(Hook::name) {
            if let Some(function) = module.getattr_opt(hook)? {
                found = true;
                if !function.is_callable() {
                    return Err(Failure::Message(format!(
                        "hooks: {name}.{hook} is no function, but {function:?}"
                    )));
                }
            }
        }
        if !found {
            let names = ALL.map(Hook::name).join(", ");
            return Err(Failure::Message(format!(
                "hooks: the module {name} has none of the functions {names}"
            )));
        }
        Ok(Self(Some(module)))
    }

    /// Calls a function, if there is one.
    ///
    /// # Errors
    /// It fails, or is asynchronous.
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
