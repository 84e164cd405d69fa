//! Loading the application.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// The object that `module:attribute` names; without an attribute it is `application`.
pub(crate) fn application<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let (module, path) = name.split_once(':').unwrap_or((name, "application"));
    if module.is_empty() || path.is_empty() {
        return Err(PyValueError::new_err(format!(
            "{name:?} does not name an application; expected module:attribute"
        )));
    }
    // importlib and not __import__, which returns the topmost package.
    let module = py
        .import("importlib")?
        .call_method1("import_module", (module,))?;
    let object = path
        .split('.')
        .try_fold(module, |object, attribute| object.getattr(attribute))?;
    match object.is_callable() {
        true => Ok(object),
        false => Err(PyTypeError::new_err(format!(
            "{name} is not callable, so it is no WSGI application: {object:?}"
        ))),
    }
}
