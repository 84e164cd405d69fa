//! Loading the application.

use preforkd_worker::settings::Settings;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::failure::Failure;
use crate::{environment, names, recognise};

/// What an application is called in a module that is named without an attribute.
const USUAL: [&str; 2] = ["application", "app"];

/// The application that `module:attribute` names, or that the call `module:factory(arguments)` returns; without an attribute it
/// is the first that is there of [`USUAL`].
pub(crate) fn application<'py>(
    py: Python<'py>,
    settings: &Settings,
) -> Result<Bound<'py, PyAny>, Failure> {
    let name = settings.application.as_str();
    let (module, expression) = name.split_once(':').unwrap_or((name, USUAL[0]));
    if module.is_empty() || expression.is_empty() {
        return Err(Failure::Message(format!(
            "{name:?} does not name an application (write wsgi = \"MODULE:CALLABLE\")"
        )));
    }
    let call = Call::parse(py, name, expression)?;
    let module = names::module(py, "wsgi", name, module, &settings.interpreter)?;
    let mut path = call.as_ref().map_or(expression, |call| &call.path);
    let mut name = name.to_owned();
    if !name.contains(':') {
        let mut usual = USUAL.into_iter();
        let found = usual.find(|usual| module.hasattr(*usual).unwrap_or(true));
        path = found.unwrap_or(path);
        name = format!("{name}:{path}");
    }
    let name = name.as_str();
    let object = names::attribute(name, module, path)?;
    let object = match &call {
        Some(call) => object.call(
            call.positional.bind(py).to_tuple(),
            Some(call.named.bind(py)),
        )?,
        None => object,
    };
    let mut called = call.is_some();
    let object = match !called && recognise::is_factory(&object)? {
        true => {
            log::warn!(
                "{name} is called to make the application, as it takes no arguments (write wsgi = \"{name}()\")"
            );
            called = true;
            object.call0()?
        }
        false => object,
    };
    recognise::check(name, &object, called)?;
    environment::tell_of_patches(py, settings.threads)?;
    load_django(py).map_err(|error| {
        let module = name.split(':').next().unwrap_or_default();
        names::failed(py, "wsgi", name, module, &settings.interpreter, error)
    })?;
    Ok(object)
}

/// A call with literals for arguments.
struct Call {
    /// What is called.
    path: String,
    positional: Py<PyList>,
    named: Py<PyDict>,
}

impl Call {
    /// Reads an expression; none if it is no call.
    fn parse<'py>(py: Python<'py>, name: &str, expression: &str) -> Result<Option<Self>, Failure> {
        if !expression.contains('(') {
            return Ok(None);
        }
        let wrong = |why: &str| {
            Failure::Message(format!(
                "{name:?} does not name an application: {why} (write for example \"mysite:create_app()\", or \"mysite:create_app('production', debug=False)\")"
            ))
        };
        let ast = py.import("ast")?;
        let mode = PyDict::new(py);
        mode.set_item("mode", "eval")?;
        let Ok(tree) = ast.call_method("parse", (expression,), Some(&mode)) else {
            return Err(wrong("after the colon stands no Python expression"));
        };
        let call = tree.getattr("body")?;
        if !call.is_instance(&ast.getattr("Call")?)? {
            return Err(wrong("after the colon stands neither a name nor a call"));
        }
        let path: String = ast
            .call_method1("unparse", (call.getattr("func")?,))?
            .extract()?;
        let is_name = |part: &str| part.chars().all(|c| c == '_' || c.is_alphanumeric());
        if !path.split('.').all(is_name) {
            return Err(wrong("what is called is no name"));
        }
        let literal = |node: Bound<'py, PyAny>| {
            ast.call_method1("literal_eval", (node,))
                .map_err(|_| wrong("an argument is no literal"))
        };
        let positional = PyList::empty(py);
        for node in call.getattr("args")?.try_iter()? {
            positional.append(literal(node?)?)?;
        }
        let named = PyDict::new(py);
        for keyword in call.getattr("keywords")?.try_iter()? {
            let keyword = keyword?;
            let key = keyword.getattr("arg")?;
            if key.is_none() {
                return Err(wrong("an argument is no literal"));
            }
            named.set_item(key, literal(keyword.getattr("value")?)?)?;
        }
        Ok(Some(Self {
            path,
            positional: positional.unbind(),
            named: named.unbind(),
        }))
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
