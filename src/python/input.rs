//! `wsgi.input` (PEP 3333, "Input and Error Streams"): a reader as Python's `io.BufferedReader` is one, so that whatever takes such a
//! reader takes it too.

use std::io::{BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use preforkd_http::Body;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView, PySlice};

/// A request body. It is there as a whole, so reading never waits for the client.
#[pyclass(frozen, module = "_preforkd")]
pub(crate) struct Input {
    body: Mutex<Body>,
    closed: AtomicBool,
}

impl Input {
    pub fn new(body: Body) -> Self {
        Self {
            body: Mutex::new(body),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether the application has closed it, so that it cannot serve another request.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Makes the class one of Python's binary streams, to `isinstance`.
    pub fn register(py: Python<'_>) -> PyResult<()> {
        let base = py.import("io")?.getattr("BufferedIOBase")?;
        base.call_method1("register", (py.get_type::<Self>(),))?;
        Ok(())
    }

    fn lock(&self) -> PyResult<MutexGuard<'_, Body>> {
        self.check_open()?;
        self.body
            .try_lock()
            .map_err(|_| PyRuntimeError::new_err("wsgi.input is being read by another thread"))
    }

    fn check_open(&self) -> PyResult<()> {
        match self.is_closed() {
            true => Err(PyValueError::new_err("I/O operation on closed file.")),
            false => Ok(()),
        }
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

    /// Reads into a buffer of the application's; the number of bytes.
    fn fill(&self, buffer: &Bound<'_, PyAny>, once: bool) -> PyResult<usize> {
        let py = buffer.py();
        self.check_open()?;
        let view = PyMemoryView::from(buffer)?;
        if view.getattr("readonly")?.is_truthy()? {
            return Err(PyTypeError::new_err(
                "readinto() argument must be read-write bytes-like object",
            ));
        }
        let bytes = view.call_method1("cast", ("B",))?;
        let room = bytes.len()?;
        let wanted = isize::try_from(room).ok();
        let data = match once {
            true => self.read1(py, wanted)?,
            false => self.read(py, wanted)?,
        };
        let n = data.as_bytes().len();
        if n > 0 {
            bytes.set_item(PySlice::new(py, 0, n as isize, 1), data)?;
        }
        Ok(n)
    }

    fn unsupported(py: Python<'_>, what: &str) -> PyErr {
        let error = py
            .import("io")
            .and_then(|io| io.getattr("UnsupportedOperation")?.call1((what,)));
        error.map_or_else(|error| error, PyErr::from_value)
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
        if let Some(memory) = body.memory() {
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

    /// Up to `size` bytes, with at most one read of a file.
    #[pyo3(signature = (size=None, /))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let mut body = self.lock()?;
        let most = limit(size).unwrap_or(usize::MAX);
        let there = if most == 0 { &[] } else { body.fill_buf()? };
        let n = most.min(there.len());
        let bytes = PyBytes::new(py, &there[..n]);
        body.consume(n);
        Ok(bytes)
    }

    fn readinto(&self, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.fill(buffer, false)
    }

    fn readinto1(&self, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.fill(buffer, true)
    }

    /// Bytes that come next, without taking them.
    #[pyo3(signature = (size=0, /))]
    fn peek<'py>(&self, py: Python<'py>, size: isize) -> PyResult<Bound<'py, PyBytes>> {
        let _ = size; // As there, it says how many are wanted, not how many come.
        Ok(PyBytes::new(py, self.lock()?.fill_buf()?))
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

    fn __iter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        slf.check_open()?;
        Ok(slf)
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(None)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        slf.check_open()?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyAny>) {
        self.close();
    }

    /// Lets go of the body.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            let body = self.body.try_lock();
            // Another thread reads it, and comes to its end.
            if let Ok(mut body) = body {
                *body = Body::default();
            }
        }
    }

    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    fn readable(&self) -> PyResult<bool> {
        self.check_open().map(|()| true)
    }

    fn writable(&self) -> PyResult<bool> {
        self.check_open().map(|()| false)
    }

    fn seekable(&self) -> PyResult<bool> {
        self.check_open().map(|()| false)
    }

    fn isatty(&self) -> PyResult<bool> {
        self.check_open().map(|()| false)
    }

    fn flush(&self) -> PyResult<()> {
        self.check_open()
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        Err(Self::unsupported(py, "fileno"))
    }

    #[pyo3(signature = (*_arguments))]
    fn seek(&self, py: Python<'_>, _arguments: &Bound<'_, PyAny>) -> PyResult<u64> {
        Err(Self::unsupported(py, "seek"))
    }

    fn tell(&self, py: Python<'_>) -> PyResult<u64> {
        Err(Self::unsupported(py, "tell"))
    }

    #[pyo3(signature = (*_arguments))]
    fn truncate(&self, py: Python<'_>, _arguments: &Bound<'_, PyAny>) -> PyResult<u64> {
        Err(Self::unsupported(py, "truncate"))
    }

    fn write(&self, py: Python<'_>, _data: &Bound<'_, PyAny>) -> PyResult<usize> {
        Err(Self::unsupported(py, "write"))
    }

    fn writelines(&self, py: Python<'_>, _lines: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(Self::unsupported(py, "write"))
    }

    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        Err(Self::unsupported(py, "detach"))
    }
}
