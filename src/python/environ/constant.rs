//! What is the same for every request of a listener.

use std::net::SocketAddr;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::file::FileWrapper;
use crate::input::Input;
use crate::text;

/// The environ of a listener: what each request copies, and most replace some values of.
pub(super) fn constant<'py>(
    py: Python<'py>,
    local: Option<&SocketAddr>,
    prefix: &[u8],
    threads: bool,
    empty: &Bound<'py, Input>,
) -> PyResult<Bound<'py, PyDict>> {
    let (name, port) = match local {
        // A wildcard is no name that anyone could use.
        Some(address) if address.ip().is_unspecified() => (
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            address.port(),
        ),
        Some(address) => (address.ip().to_canonical().to_string(), address.port()),
        // A unix socket has neither; PEP 3333 wants both not empty.
        None => ("localhost".to_owned(), 80),
    };
    let environ = PyDict::new(py);
    let set =
        |key: &str, value: Bound<'py, PyAny>| environ.set_item(PyString::intern(py, key), value);
    let text = |text: &str| PyString::intern(py, text).into_any();
    set("SERVER_SOFTWARE", text("preforkd"))?;
    set("SERVER_NAME", text(&name))?;
    set("SERVER_PORT", text(&port.to_string()))?;
    set("SERVER_PROTOCOL", text("HTTP/1.1"))?;
    set("SCRIPT_NAME", text::decode(py, prefix).into_any())?;
    set("QUERY_STRING", text(""))?;
    // What nearly every request has: to replace a value costs less than to add a key.
    set("REQUEST_METHOD", text("GET"))?;
    set("PATH_INFO", text("/"))?;
    // The target as sent, under the names of gunicorn and of Apache httpd and uWSGI: in PATH_INFO, %2F cannot be told from a slash.
    set("RAW_URI", text("/"))?;
    set("REQUEST_URI", text("/"))?;
    if local.is_some() {
        set("REMOTE_PORT", text(""))?;
    }
    set("REMOTE_ADDR", text(""))?;
    set("wsgi.version", (1, 0).into_pyobject(py)?.into_any())?;
    set("wsgi.url_scheme", text("http"))?;
    set("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
    set(
        "wsgi.multithread",
        threads.into_pyobject(py)?.to_owned().into_any(),
    )?;
    set(
        "wsgi.multiprocess",
        true.into_pyobject(py)?.to_owned().into_any(),
    )?;
    set(
        "wsgi.run_once",
        false.into_pyobject(py)?.to_owned().into_any(),
    )?;
    set("wsgi.file_wrapper", py.get_type::<FileWrapper>().into_any())?;
    set("wsgi.input", empty.clone().into_any())?;
    set(
        "wsgi.input_terminated",
        true.into_pyobject(py)?.to_owned().into_any(),
    )?;
    grow(&environ)?;
    Ok(environ)
}

/// Makes room for the fields of a request. A copy has as much room as its original, and to make room costs as much as to copy.
fn grow(environ: &Bound<'_, PyDict>) -> PyResult<()> {
    // Keys of another type than str would make each look-up slower for good.
    let names = ["a", "b", "c", "d"];
    for name in names {
        environ.set_item(name, name)?;
    }
    for name in names {
        environ.del_item(name)?;
    }
    Ok(())
}
