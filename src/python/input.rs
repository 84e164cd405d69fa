//! `wsgi.input` (PEP 3333, "Input and Error Streams").

use std::io::{self, BufRead, Read};
use std::sync::{Mutex, MutexGuard};

use preforkd_http::Body;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// A request body. It is there as a whole, so reading never waits for the client.
#[pyclass(frozen, module = "_preforkd")]
pub(crate) struct Input {
    body: Mutex<Body>,
}

impl Input {
    pub fn new(body: Body) -> Self {
        Self {
            body: Mutex::new(body),
        }
    }

    fn lock(&self) -> PyResult<MutexGuard<'_, Body>> {
        self.body
            .try_lock()
            .map_err(|_| PyRuntimeError::new_err("wsgi.input is being read by another thread"))
    }

    fn line(&self, limit: Option<usize>) -> PyResult<Vec<u8>> {
        let mut line = Vec::new();
        let mut body = self.lock()?;
        match limit {
            None => body.read_until(b'\n', &mut line)?,
            Some(limit) => (&mut *body)
                .take(limit as u64)
                .read_until(b'\n', &mut line)?,
        };
        Ok(line)
    }
}

/// Negative or None stands for everything, as in Python's io module.
fn limit(size: Option<isize>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}

#[pymethods]
impl Input {
    /// Up to `size` bytes, or all.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let mut body = self.lock()?;
        if let Body::Memory(memory) = &mut *body {
            let rest = &memory.get_ref()[memory.position() as usize..];
            let n = limit(size).unwrap_or(usize::MAX).min(rest.len());
            let bytes = PyBytes::new(py, &rest[..n]);
            memory.set_position(memory.position() + n as u64);
            return Ok(bytes);
        }
        let mut data = Vec::new();
        let n = limit(size).map_or(u64::MAX, |n| n as u64);
        (&mut *body).take(n).read_to_end(&mut data)?;
        Ok(PyBytes::new(py, &data))
    }

    /// One line with its newline, cut at `size` bytes; empty at the end.
    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.line(limit(size))?))
    }

    /// The lines up to the end, or until `hint` bytes are exceeded.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let lines = PyList::empty(py);
        let mut left = limit(hint).filter(|&hint| hint > 0).unwrap_or(usize::MAX);
        while left > 0 {
            let line = self.line(None)?;
            if line.is_empty() {
                break;
            }
            left = left.saturating_sub(line.len());
            lines.append(PyBytes::new(py, &line))?;
        }
        Ok(lines)
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(None)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }

    /// The body needs no closing; some frameworks do it all the same.
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}
