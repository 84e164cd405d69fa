//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::sys;

/// An iterable over a file-like object. Returned to the server as it is, a real file is sent without passing through Python.
#[pyclass(frozen, module = "_preforkd")]
pub(crate) struct FileWrapper {
    file: Py<PyAny>,
    block_size: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size=8192, /))]
    fn new(filelike: Py<PyAny>, block_size: usize) -> Self {
        Self {
            file: filelike,
            block_size: block_size.max(1),
        }
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let data = self
            .file
            .bind(py)
            .call_method1(intern!(py, "read"), (self.block_size,))?;
        match data.is_truthy()? {
            true => Ok(data),
            false => Err(PyStopIteration::new_err(())),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.file.bind(py).getattr_opt(intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }
}

/// A regular file's rest: from `offset`, `length` bytes.
pub(crate) struct Rest {
    pub file: File,
    pub offset: u64,
    pub length: u64,
}

impl FileWrapper {
    /// The rest of the wrapped file if it is a real one. Objects of other types may have a descriptor and yet
    /// read something else than its bytes (gzip), so only the types of Python's io module are trusted.
    pub fn rest(&self, py: Python<'_>) -> Option<Rest> {
        let file = self.file.bind(py);
        let kind = file.get_type();
        let io = py.import(intern!(py, "io")).ok()?;
        let trusted = [
            intern!(py, "BufferedReader"),
            intern!(py, "BufferedRandom"),
            intern!(py, "FileIO"),
        ]
        .into_iter()
        .any(|name| io.getattr(name).is_ok_and(|class| class.is(&kind)));
        if !trusted {
            return None;
        }
        let fd: RawFd = file
            .call_method0(intern!(py, "fileno"))
            .ok()?
            .extract()
            .ok()?;
        let offset: u64 = file
            .call_method0(intern!(py, "tell"))
            .ok()?
            .extract()
            .ok()?;
        let file = File::from(sys::duplicate(fd).ok()?);
        let metadata = file.metadata().ok()?;
        let length = metadata.len().saturating_sub(offset);
        // What the kernel makes up when it is read (/proc, /sys) has a length that means nothing, and takes up no blocks.
        (metadata.is_file() && metadata.blocks() > 0).then_some(Rest {
            file,
            offset,
            length,
        })
    }
}

/// A piece of a body as bytes.
pub(crate) fn piece<'a, 'py>(data: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    data.cast::<PyBytes>()
        .map_err(|_| crate::start::not_bytes("the application's body yields", data))
}
