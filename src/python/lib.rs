//! The Python extension module: WSGI (PEP 3333) between the HTTP server and the interpreter.
//!
//! `bootstrap.py` loads it, compares its version of the contract with the master's, and calls `main`, which reads the
//! environment, loads the application and either serves or, as a template, forks workers that serve. Unsafe code is in
//! `sys` only.
#![deny(unsafe_code)]

mod board;
mod environ;
mod failure;
mod file;
mod import;
mod inheritance;
mod inherited;
mod input;
mod line;
mod logger;
mod process;
mod serve;
mod settings;
mod start;
mod sys;
mod template;
mod text;
mod title;
mod wsgi;

use pyo3::prelude::*;

/// The module as Python sees it.
#[pymodule]
#[pyo3(name = "_preforkd")]
mod extension {
    #[pymodule_export]
    use super::file::FileWrapper;
    #[pymodule_export]
    use super::input::Input;
    #[pymodule_export]
    use super::main;
    #[pymodule_export]
    use super::say;

    /// The version of the contract that the extension speaks; `bootstrap.py` compares it with the master's.
    #[pymodule_export]
    const CONTRACT: u32 = preforkd_worker::contract::VERSION;

    #[pymodule_export]
    use super::start::{StartResponse, Write};
}

/// Writes to standard output (1) or error (2) what finds a reader; see [`preforkd_worker::stderr::write_output`].
#[pyfunction]
fn say(py: Python<'_>, stream: i32, data: &[u8]) -> usize {
    py.detach(|| match stream {
        1 => preforkd_worker::stderr::write_output(std::io::stdout(), data),
        _ => preforkd_worker::stderr::write_output(std::io::stderr(), data),
    });
    data.len()
}

/// Runs the worker or template that the environment describes. Returns the exit status of the process.
#[pyfunction]
fn main(py: Python<'_>) -> i32 {
    process::run(py)
}
