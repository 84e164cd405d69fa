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
        true => {
            load_django(py)?;
            Ok(object)
        }
        false => Err(PyTypeError::new_err(format!(
            "{name} is not callable, so it is no WSGI application: {object:?}"
        ))),
    }
}

/// Django imports the URLs of a site, and with them its views, with the first request. Here they are imported before: a
/// deploy in which that fails must fail, the workers of a template share what it takes, and the first request
/// need not wait.
fn load_django(py: Python<'_>) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    if !modules.contains("django.core.handlers.wsgi")? {
        return Ok(());
    }
    let settings = py.import("django.conf")?.getattr("settings")?;
    let ready = py
        .import("django.apps")?
        .getattr("apps")?
        .getattr("ready")?;
    let is_set_up = settings.getattr("configured")?.is_truthy()? && ready.is_truthy()?;
    // Django merely lies about when it is only a library of the application.
    let urls = settings.getattr_opt("ROOT_URLCONF")?;
    if !is_set_up || urls.is_none_or(|module| module.is_none()) {
        return Ok(());
    }
    py.import("django.urls")?
        .call_method0("get_resolver")?
        .getattr("url_patterns")?;
    // A site that renders nothing may have engines that cannot be had.
    let engines = py.import("django.template")?.getattr("engines")?;
    if let Err(error) = engines.call_method0("all") {
        log::debug!("could not load the template engines before the first request: {error}");
    }
    Ok(())
}
