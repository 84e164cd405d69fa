//! What a key such as `wsgi = "mysite.wsgi:application"` names: a module and an attribute of it. A wrong name is the most frequent
//! mistake of a first start, so the message says what is there instead.

use pyo3::exceptions::{PyAttributeError, PyModuleNotFoundError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule};

use crate::failure::{self, Failure};
use crate::recognise;

/// What frameworks call the application or its factory.
const USUAL: [&str; 7] = [
    "application",
    "app",
    "wsgi_app",
    "wsgi",
    "create_app",
    "make_app",
    "get_wsgi_application",
];

/// How many names a message lists.
const LISTED: usize = 5;

/// Imports the module `module`, which `key = "written"` names. `interpreter` says why this interpreter was taken.
///
/// # Errors
/// It does not exist; it imports one that does not; it ends the process; or it raises, which is shown.
pub(crate) fn module<'py>(
    py: Python<'py>,
    key: &str,
    written: &str,
    module: &str,
    interpreter: &str,
) -> Result<Bound<'py, PyAny>, Failure> {
    let error = match py.import(module) {
        Ok(module) => return Ok(module.into_any()),
        Err(error) => error,
    };
    Err(failed(py, key, written, module, interpreter, error))
}

/// Why `module`, which `key = "written"` names, or what it imports later, cannot be imported.
pub(crate) fn failed(
    py: Python<'_>,
    key: &str,
    written: &str,
    module: &str,
    interpreter: &str,
    error: PyErr,
) -> Failure {
    let explain = || {
        let error = trimmed(py, error)?;
        let said = match &error {
            error if is_missing(py, error, module)? => {
                Some(no_module(py, key, written, module, interpreter)?)
            }
            error if error.is_instance_of::<PyModuleNotFoundError>(py) => {
                let why = imports_missing(py, error, module, interpreter)?;
                why.map(|why| format!("{key} = \"{written}\": {why}"))
            }
            error if error.is_instance_of::<PySystemExit>(py) => {
                let status = error.value(py).getattr("code")?.repr()?;
                failure::show(py, error);
                Some(format!(
                    "{key} = \"{written}\": the import of {module} calls sys.exit({status}), so there is nothing to serve (call it below `if __name__ == \"__main__\":` only, \
                     or find out above why the application gives up)"
                ))
            }
            _ => None,
        };
        PyResult::Ok(said.map_or_else(|| error.into(), Failure::Message))
    };
    explain().unwrap_or_else(Failure::from)
}

/// An error of an import, without the frames of importlib.
fn trimmed(py: Python<'_>, error: PyErr) -> PyResult<PyErr> {
    let value = error.value(py).clone();
    let mut entry = value.getattr("__traceback__")?;
    let mut last: Option<Bound<'_, PyAny>> = None;
    value.setattr("__traceback__", py.None())?;
    while !entry.is_none() {
        let next = entry.getattr("tb_next")?;
        if !is_of_importlib(&file_of(&entry)?) {
            match &last {
                Some(last) => last.setattr("tb_next", &entry)?,
                None => value.setattr("__traceback__", &entry)?,
            }
            last = Some(entry);
        }
        entry = next;
    }
    if let Some(last) = last {
        last.setattr("tb_next", py.None())?;
    }
    Ok(PyErr::from_value(value.into_any()))
}

/// The file with the code of an entry of a traceback.
fn file_of(entry: &Bound<'_, PyAny>) -> PyResult<String> {
    let code = entry.getattr("tb_frame")?.getattr("f_code")?;
    code.getattr("co_filename")?.extract()
}

fn is_of_importlib(file: &str) -> bool {
    file.starts_with("<frozen importlib") || file.ends_with("/importlib/__init__.py")
}

/// Why a module that is there cannot be imported, if that is because another one is missing.
fn imports_missing(
    py: Python<'_>,
    error: &PyErr,
    module: &str,
    interpreter: &str,
) -> PyResult<Option<String>> {
    let value = error.value(py);
    let Some(missing) = value.getattr("name")?.extract::<Option<String>>()? else {
        return Ok(None);
    };
    let mut entry = value.getattr("__traceback__")?;
    // None if it was asked for by its name, as the addresses of a Django site are.
    let mut place = String::new();
    while !entry.is_none() {
        let line: u32 = entry.getattr("tb_lineno")?.extract()?;
        place = format!(": {}, line {line}", file_of(&entry)?);
        entry = entry.getattr("tb_next")?;
    }
    let modules = py.import("sys")?.getattr("modules")?;
    let package = missing.rsplit_once('.').map(|(package, _)| package);
    let folders = match package {
        Some(package) if modules.contains(package)? => {
            let path = modules.get_item(package)?.getattr_opt("__path__")?;
            path.map(|path| {
                py.get_type::<PyList>()
                    .call1((path,))?
                    .extract::<Vec<String>>()
            })
            .transpose()?
        }
        _ => None,
    };
    let executable = py.import("sys")?.getattr("executable")?;
    let hint = match folders {
        Some(folders) => format!("looked in {}", folders.join(", ")),
        None => {
            let top = missing.split('.').next().unwrap_or_default();
            format!(
                "install what has it, mostly by {executable} -m pip install {top}, or let `python` be the interpreter that has it: this one is {interpreter}"
            )
        }
    };
    Ok(Some(format!(
        "{module} is there, and imports {missing}, which is missing{place} ({hint})"
    )))
}

/// Whether this module, or a package that it is in, is missing, and not one that the module imports.
fn is_missing(py: Python<'_>, error: &PyErr, module: &str) -> PyResult<bool> {
    let value = error.value(py);
    // An import in the module has a frame of the module.
    if !error.is_instance_of::<PyModuleNotFoundError>(py)
        || !value.getattr("__traceback__")?.is_none()
    {
        return Ok(false);
    }
    let name: Option<String> = value.getattr("name")?.extract()?;
    Ok(name.is_some_and(|name| {
        let rest = module.strip_prefix(&name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }))
}

fn no_module(
    py: Python<'_>,
    key: &str,
    written: &str,
    module: &str,
    interpreter: &str,
) -> PyResult<String> {
    let rest = &written[module.len()..];
    let hint = match module.strip_suffix(".py") {
        Some(module) => format!("write the module without \".py\": {key} = \"{module}{rest}\""),
        None => {
            let folder = py.import("os")?.call_method0("getcwd")?;
            let executable = py.import("sys")?.getattr("executable")?;
            format!(
                "looked in {folder} and in the packages of {executable}, which is {interpreter}; `chdir` must be the folder of the project, and `python` the interpreter that has its packages"
            )
        }
    };
    Ok(format!(
        "{key} = \"{written}\": there is no module {module} ({hint})"
    ))
}

/// The attribute `path` of `module`, such as `application` or `site.application`, which `wsgi = "written"` names.
///
/// # Errors
/// It does not exist.
pub(crate) fn attribute<'py>(
    written: &str,
    module: Bound<'py, PyAny>,
    path: &str,
) -> Result<Bound<'py, PyAny>, Failure> {
    let mut object = module;
    let mut before = String::new();
    for name in path.split('.') {
        object = match object.getattr(name) {
            Ok(found) => found,
            Err(error)
                if error.is_instance_of::<PyAttributeError>(object.py())
                    && error.traceback(object.py()).is_none() =>
            {
                return Err(Failure::Message(no_attribute(
                    written, &object, &before, name,
                )?));
            }
            Err(error) => return Err(error.into()),
        };
        before.push_str(name);
        before.push('.');
    }
    Ok(object)
}

fn no_attribute(
    written: &str,
    object: &Bound<'_, PyAny>,
    before: &str,
    name: &str,
) -> PyResult<String> {
    let module = written.split(':').next().unwrap_or_default();
    let owner = match before.trim_end_matches('.') {
        "" => format!("the module {module}"),
        path => format!("{module}:{path}"),
    };
    let there = callables(object)?;
    let shown = |name: &String| -> PyResult<String> {
        let call = match recognise::makes_applications(&object.getattr(name.as_str())?)? {
            true => "()",
            false => "",
        };
        Ok(format!("\"{module}:{before}{name}{call}\""))
    };
    let close = nearest(object.py(), name, &there)?;
    let usual = USUAL
        .iter()
        .find_map(|usual| there.iter().find(|name| name == usual));
    let hint = match close.as_ref().or(usual) {
        Some(name) => format!("did you mean {}?", shown(name)?),
        None if there.is_empty() => {
            "it defines nothing that can be called; name the module that makes the application"
                .to_owned()
        }
        None => {
            let names: Vec<&str> = there.iter().map(String::as_str).take(LISTED).collect();
            let more = match there.len() > LISTED {
                true => ", …",
                false => "",
            };
            format!("what it has: {}{more}", names.join(", "))
        }
    };
    Ok(format!(
        "wsgi = \"{written}\": {owner} has no attribute {name} ({hint})"
    ))
}

/// The names of what can be called; of a module, what it defines itself first.
fn callables(object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let own = object.getattr_opt("__name__")?;
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for name in object.dir()?.iter() {
        let name: String = name.extract()?;
        if name.starts_with('_') {
            continue;
        }
        // A property, or a lazy module, may raise what it likes.
        let Ok(value) = object.getattr(name.as_str()) else {
            continue;
        };
        if !value.is_callable() || value.is_instance_of::<PyModule>() {
            continue;
        }
        let from = value.getattr("__module__").ok();
        match (&own, &from) {
            (Some(own), Some(from)) if !own.eq(from)? => rest.push(name),
            _ => first.push(name),
        }
    }
    first.append(&mut rest);
    Ok(first)
}

fn nearest(py: Python<'_>, name: &str, names: &[String]) -> PyResult<Option<String>> {
    let options = PyDict::new(py);
    options.set_item("n", 1)?;
    let found =
        py.import("difflib")?
            .call_method("get_close_matches", (name, names), Some(&options))?;
    Ok(found.extract::<Vec<String>>()?.pop())
}
