//! The Python extension module: WSGI (PEP 3333) between the HTTP server and the interpreter.
//!
//! `bootstrap.py` loads it, compares its version of the contract with the master's, and calls `main`, which reads the
//! environment, loads the application and either serves or, as a template, forks workers that serve. Unsafe code is in
//! `sys` only.
#![deny(unsafe_code)]

mod django;
mod environ;
mod environment;
mod failure;
mod file;
mod forks;
mod hooks;
mod import;
mod inheritance;
mod inherited;
mod input;
mod inspect;
mod life;
mod line;
mod names;
mod process;
mod recognise;
mod serve;
mod settings;
mod signals;
mod start;
mod sys;
mod template;
mod text;
mod title;
mod unserved;
mod wsgi;

use preforkd_worker::stderr::{self, Stream};
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
    use super::{level, say, say_begun};

    /// The version of the contract that the extension speaks; `bootstrap.py` compares it with the master's.
    #[pymodule_export]
    const CONTRACT: u32 = preforkd_worker::contract::VERSION;

    #[pymodule_export]
    use super::start::{StartResponse, Write};
}

/// Writes to standard output (1) or error (2) the lines that are complete with this; see [`stderr::write_output`].
#[pyfunction]
fn say(py: Python<'_>, stream: i32, data: &[u8]) -> usize {
    let stream = stream_of(stream);
    let lines = stderr::complete_lines(stream, data);
    if !lines.is_empty() {
        py.detach(|| stderr::say_lines(stream, &lines));
    }
    data.len()
}

/// Writes what the thread has begun to say, without the end of the line.
#[pyfunction]
fn say_begun(py: Python<'_>, stream: i32) {
    let stream = stream_of(stream);
    let begun = stderr::begun_line(stream);
    if !begun.is_empty() {
        py.detach(|| stderr::say_lines(stream, &begun));
    }
}

fn stream_of(number: i32) -> Stream {
    match number {
        1 => Stream::Output,
        _ => Stream::Error,
    }
}

/// Sets the level, of Python's `logging`, of what the thread says from now on, 0 for none. Returns the one before.
#[pyfunction]
fn level(level: u32) -> u32 {
    stderr::set_level(level)
}

/// Runs the worker or template that the environment describes. Returns the exit status of the process.
#[pyfunction]
fn main(py: Python<'_>) -> i32 {
    process::run(py)
}
