//! `start_response` and the `write` it returns (PEP 3333, "The start_response() Callable").

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use preforkd_http::{Exchange, HeadError, Response, Sent};
use pyo3::exceptions::{
    PyAssertionError, PyBrokenPipeError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use rustix::io::Errno;

use crate::{sys, text};

/// The response while application code runs; none when the application has no request.
#[derive(Default)]
pub(crate) struct Current {
    exchange: Mutex<Option<Exchange>>,
}

impl Current {
    fn lock(&self) -> PyResult<MutexGuard<'_, Option<Exchange>>> {
        // A finaliser that the garbage collector runs in the middle of a call must not wait for itself.
        self.exchange
            .try_lock()
            .map_err(|_| PyRuntimeError::new_err("the response is being written by another call"))
    }

    /// Lets the application write to the response.
    pub fn open(&self, exchange: Exchange) {
        *self.exchange.lock().unwrap_or_else(PoisonError::into_inner) = Some(exchange);
    }

    /// Ends that.
    pub fn close(&self, py: Python<'_>) -> Exchange {
        let taken = match self.exchange.try_lock() {
            Ok(mut exchange) => exchange.take(),
            // Another thread of the application writes, and needs the interpreter to come to an end.
            Err(_) => py.detach(|| {
                self.exchange
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
            }),
        };
        // It is there, as only this function takes it out.
        let Some(exchange) = taken else {
            unreachable!("the response was taken by someone else")
        };
        exchange
    }
}

/// Hands a piece of the body over, in slices where it is large; waits, without the interpreter, where the client has to read first.
pub(crate) fn put(py: Python<'_>, exchange: &mut Exchange, data: &[u8]) -> Sent {
    if exchange.is_bodyless() {
        return Sent::Taken;
    }
    if data.len() <= Exchange::SLICE {
        exchange.write(data);
        return hand_over(py, exchange);
    }
    exchange.begin_piece(data.len());
    let mut slices = data.chunks(Exchange::SLICE).peekable();
    while let Some(slice) = slices.next() {
        exchange.slice(slice);
        if slices.peek().is_none() {
            exchange.end_piece();
        }
        if hand_over(py, exchange) == Sent::Gone {
            return Sent::Gone;
        }
    }
    Sent::Taken
}

fn hand_over(py: Python<'_>, exchange: &mut Exchange) -> Sent {
    match exchange.send() {
        Sent::Full => py.detach(|| exchange.wait()),
        sent => sent,
    }
}

/// The second argument of the application.
#[pyclass(frozen, module = "_preforkd")]
pub(crate) struct StartResponse {
    current: Arc<Current>,
    write: Py<Write>,
}

/// What `start_response` returns.
#[pyclass(frozen, module = "_preforkd")]
pub(crate) struct Write {
    current: Arc<Current>,
}

impl StartResponse {
    pub fn new(py: Python<'_>) -> PyResult<Bound<'_, Self>> {
        let current = Arc::new(Current::default());
        let write = Py::new(
            py,
            Write {
                current: current.clone(),
            },
        )?;
        Bound::new(py, Self { current, write })
    }

    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Whether nobody else could call it or its `write` any more, so that it can serve the next request.
    pub fn is_unshared(slf: &Bound<'_, Self>) -> bool {
        sys::is_only_reference(slf.as_any())
            && sys::is_only_reference(slf.get().write.bind(slf.py()).as_any())
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None, /))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Py<Write>> {
        let mut guard = self.current.lock()?;
        let response = guard.as_mut().ok_or_else(no_request)?;
        match exc_info {
            Some(exc_info) if response.started() => {
                drop(guard);
                return Err(reraise(exc_info)?);
            }
            None if response.has_head() => {
                return Err(PyAssertionError::new_err(
                    "start_response was called a second time, without exc_info",
                ));
            }
            _ => {}
        }
        let result = write_head(response, status, headers);
        if result.is_err() {
            response.discard();
        }
        result.map(|()| self.write.clone_ref(py))
    }
}

#[pymethods]
impl Write {
    #[pyo3(signature = (data, /))]
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = data
            .cast::<PyBytes>()
            .map_err(|_| not_bytes("write() was called with", data))?
            .as_bytes();
        // Nobody would take what it hands over.
        if sys::is_forked() {
            return Err(PyRuntimeError::new_err(
                "this process was forked in a request, and the response is made by its parent",
            ));
        }
        let mut guard = self.current.lock()?;
        let exchange = guard.as_mut().ok_or_else(no_request)?;
        if !exchange.has_head() {
            return Err(PyAssertionError::new_err(
                "write() was called before start_response",
            ));
        }
        exchange.finish(None);
        let sent = match data.is_empty() {
            _ if exchange.is_gone() => Sent::Gone,
            true => exchange.alive(),
            false => put(py, exchange, data),
        };
        match sent {
            Sent::Gone => Err(PyBrokenPipeError::new_err((
                Errno::PIPE.raw_os_error(),
                "the client has left",
            ))),
            Sent::Taken | Sent::Full => Ok(()),
        }
    }
}

fn no_request() -> PyErr {
    PyRuntimeError::new_err("the request that this start_response belongs to is over")
}

/// The error for a value that should have been bytes.
pub(crate) fn not_bytes(what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{what} {}, not bytes", type_name(value)))
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value
        .get_type()
        .name()
        .map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

/// The exception of an `exc_info` tuple, to be raised again (PEP 3333, "Error Handling").
fn reraise(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    Ok(PyErr::from_value(value))
}

fn write_head(
    response: &mut Response,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let status = status.cast::<PyString>().map_err(|_| {
        PyTypeError::new_err(format!("the status is {}, not str", type_name(status)))
    })?;
    let bytes =
        text::encode(status).ok_or_else(|| PyValueError::new_err("the status is not latin-1"))?;
    response
        .begin(&bytes)
        .map_err(|error| PyValueError::new_err(format!("invalid status {status:?}: {error}")))?;
    let headers = headers.cast::<PyList>().map_err(|_| {
        PyTypeError::new_err(format!(
            "the headers are {}, not a list",
            type_name(headers)
        ))
    })?;
    for header in headers.iter() {
        let pair = header.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let pair = pair.ok_or_else(|| {
            PyTypeError::new_err(format!("a header is not a tuple (name, value): {header:?}"))
        })?;
        let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
        let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) else {
            return Err(PyTypeError::new_err(format!(
                "header name and value must be str: {header:?}"
            )));
        };
        let (Some(name_bytes), Some(value_bytes)) = (text::encode(&name), text::encode(&value))
        else {
            return Err(PyValueError::new_err(format!(
                "a header is not latin-1: {header:?}"
            )));
        };
        match response.field(&name_bytes, &value_bytes) {
            Ok(()) => {}
            Err(HeadError::HopByHop) => tell_of_hop_by_hop(&name_bytes),
            Err(error) => {
                let words = format!("invalid header {header:?}: {error}");
                return Err(PyValueError::new_err(words));
            }
        }
    }
    Ok(())
}

/// Says once that a field is left out. An application that passes on the answer of another server often has such fields.
#[cold]
fn tell_of_hop_by_hop(name: &[u8]) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        log::warn!(
            "left the field {} out of a response: it concerns one connection only, and is the server's own (PEP 3333, \"Other HTTP \
             Features\"); further ones are left out silently",
            name.escape_ascii()
        );
    }
}
