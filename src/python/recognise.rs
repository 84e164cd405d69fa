//! Whether an object is a WSGI application (PEP 3333, "The Application/Framework Side"). What is none would answer each request
//! with 500, so it must not start.

use pyo3::prelude::*;
use pyo3::types::{PyModule, PyType};

use crate::failure::Failure;

/// Looks at what `name` names, or what the call in it has returned.
///
/// # Errors
/// It is no WSGI application; what it is instead, and what to do.
pub(crate) fn check(name: &str, object: &Bound<'_, PyAny>, called: bool) -> Result<(), Failure> {
    if is_plain(object)? {
        return Ok(());
    }
    let what = match called {
        true => format!("what {name} returns is"),
        false => format!("{name} is"),
    };
    match complaint(name, object, called)? {
        None => Ok(()),
        Some(complaint) => Err(Failure::Message(format!("{what} {complaint}"))),
    }
}

/// Whether an object is a function that takes no arguments, and cannot be called with those of an application.
pub(crate) fn is_factory(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if is_plain(object)?
        || attribute(object, "__code__").is_none()
        || object.is_instance_of::<PyType>()
    {
        return Ok(false);
    }
    let inspect = object.py().import("inspect")?;
    Ok(!is_async(&inspect, object)?
        && takes(&inspect, object, 2)? == Some(false)
        && takes(&inspect, object, 0)? == Some(true))
}

/// Whether an object seems to make applications, and be none.
pub(crate) fn makes_applications(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let inspect = object.py().import("inspect")?;
    Ok(is_factory(object)?
        || (attribute(object, "__code__").is_some()
            && !is_plain(object)?
            && has_defaults_of_a_factory(&inspect, object)?))
}

/// Whether it is what most applications are, a function of two arguments or an object whose class has such a method; found without
/// `inspect`, whose import takes longer than that of a small application.
fn is_plain(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let is_bound = attribute(object, "__func__").is_some();
    let (function, arguments) = match attribute(object, "__code__") {
        Some(_) => (object.clone(), if is_bound { 3 } else { 2 }),
        None => match attribute(&object.get_type(), "__call__") {
            Some(method) => (method, 3),
            None => return Ok(false),
        },
    };
    let Some(code) = attribute(&function, "__code__") else {
        return Ok(false);
    };
    let number = |attribute: &str| code.getattr(attribute)?.extract::<u32>();
    let has_defaults = function
        .getattr_opt("__defaults__")?
        .is_some_and(|defaults| !defaults.is_none());
    Ok(number("co_argcount")? == arguments
        && number("co_kwonlyargcount")? == 0
        && number("co_flags")? & ASYNC == 0
        && !has_defaults
        && !object.is_instance_of::<PyType>())
}

/// An attribute of an object that may answer for another one, and raise what it likes.
fn attribute<'py>(object: &Bound<'py, PyAny>, name: &str) -> Option<Bound<'py, PyAny>> {
    object.getattr(name).ok()
}

/// Flags of a code object: coroutine and asynchronous generator.
const ASYNC: u32 = 0x80 | 0x200;

/// What is wrong with an object, in words that follow "is".
fn complaint(name: &str, object: &Bound<'_, PyAny>, called: bool) -> PyResult<Option<String>> {
    let py = object.py();
    let inspect = py.import("inspect")?;
    let kind = object.get_type();
    let shown = kind.qualname()?;
    if inspect
        .call_method1("iscoroutine", (object,))?
        .is_truthy()?
    {
        object.call_method0("close")?;
        return Ok(Some(
            "a coroutine, as the function is async: no WSGI application, which must be made by a plain function"
                .to_owned(),
        ));
    }
    if !object.is_callable() {
        let hint = if called && object.is_none() {
            "does it end without \"return application\"?".to_owned()
        } else if object.cast::<PyModule>().is_ok() {
            format!("name an object in the module, for example {name}.application")
        } else {
            "name the object that the framework calls the application".to_owned()
        };
        return Ok(Some(format!(
            "of type {shown} and is not callable, so it is no WSGI application ({hint})"
        )));
    }
    if is_async(&inspect, object)? || asks_for_scope(&inspect, object)? {
        return Ok(Some(format!(
            "an ASGI application, and `wsgi` serves WSGI applications only (if the framework makes both, name the other one, for Django \
             \"PROJECT.wsgi:application\"; otherwise run an ASGI server: command = [\"uvicorn\", \"--fd\", \"{{fd}}\", \"{name}\"] and ready = \"2s\")"
        )));
    }
    if let Ok(class) = object.cast::<PyType>() {
        let is_iterable = ["__iter__", "__getitem__"]
            .iter()
            .any(|method| class.hasattr(*method).unwrap_or(false));
        let takes_request = takes(&inspect, object, 2)?.unwrap_or(true);
        // PEP 3333 allows one whose instances are the responses. What a constructor of its own returns can be anything.
        let may_respond = is_iterable || constructs_otherwise(class)?;
        return Ok((!may_respond || !takes_request).then(|| {
            let hint = match called {
                true => String::new(),
                false => format!("name an instance of it, or write \"{name}()\" to make one"),
            };
            format!("a class, which makes no responses, so it is no WSGI application ({hint})")
        }));
    }
    let signature = signature(&inspect, object)?;
    let shown = signature.map_or(String::new(), |signature| signature.to_string());
    if takes(&inspect, object, 2)? == Some(false) {
        let is_factory =
            attribute(object, "__code__").is_some() && takes(&inspect, object, 1)? == Some(true);
        let hint = match !called && is_factory {
            true => format!(
                "if it makes the application, write a call with literals for arguments, \"{name}(…)\""
            ),
            false => "name the object that the framework calls the application".to_owned(),
        };
        return Ok(Some(format!(
            "called with the arguments {shown} and not with (environ, start_response), so it is no WSGI application ({hint})"
        )));
    }
    if has_defaults_of_a_factory(&inspect, object)? {
        let hint = match called {
            true => "return what it makes".to_owned(),
            false => format!("write \"{name}()\""),
        };
        return Ok(Some(format!(
            "called with the arguments {shown}, none of which it needs, so it makes the application and is none ({hint}; an application has the \
             arguments (environ, start_response))"
        )));
    }
    Ok(None)
}

/// Whether calling a class need not make an instance of it, as its metaclass or its `__new__` decides.
fn constructs_otherwise(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let call = class.get_type().getattr("__call__")?;
    let new = class.getattr("__new__")?;
    Ok(!call.is(py.get_type::<PyType>().getattr("__call__")?)
        || !new.is(py.get_type::<PyAny>().getattr("__new__")?))
}

/// Whether calling it makes something to be awaited.
fn is_async(inspect: &Bound<'_, PyModule>, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let mut functions = vec![object.clone()];
    if object.is_instance_of::<PyType>() {
        // Its instances, then.
        functions.push(object.getattr("__call__")?);
    } else {
        functions.extend(attribute(&object.get_type(), "__call__"));
    }
    for function in functions {
        for test in ["iscoroutinefunction", "isasyncgenfunction"] {
            if let Ok(answer) = inspect.call_method1(test, (&function,))
                && answer.is_truthy()?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether it has the arguments of an ASGI application, by their names in the specification.
fn asks_for_scope(inspect: &Bound<'_, PyModule>, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Some(signature) = signature(inspect, object)? else {
        return Ok(false);
    };
    let names: Vec<String> = signature
        .getattr("parameters")?
        .try_iter()?
        .map(|name| name?.extract())
        .collect::<PyResult<_>>()?;
    Ok(names == ["scope", "receive", "send"] || names == ["scope"])
}

/// Its signature, if Python can tell it; not that of what it wraps.
fn signature<'py>(
    inspect: &Bound<'py, PyModule>,
    object: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = inspect.py();
    let options = pyo3::types::PyDict::new(py);
    options.set_item("follow_wrapped", false)?;
    // `inspect` takes every `__call__` of a class for a function with `self`.
    let kind = object.get_type();
    let call = inspect.call_method1("getattr_static", (&kind, "__call__", py.None()))?;
    let is_function = inspect.call_method1("isfunction", (&call,))?.is_truthy()?;
    let is_builtin = attribute(&call, "__objclass__").is_some_and(|class| class.is(&kind));
    let called = match is_function || is_builtin || object.is_instance_of::<PyType>() {
        true => Some(object.clone()),
        false => attribute(object, "__call__"),
    };
    Ok(called.and_then(|called| {
        inspect
            .call_method("signature", (called,), Some(&options))
            .ok()
    }))
}

/// Whether it can be called with so many arguments; none if Python cannot tell.
fn takes(
    inspect: &Bound<'_, PyModule>,
    object: &Bound<'_, PyAny>,
    number: usize,
) -> PyResult<Option<bool>> {
    let Some(signature) = signature(inspect, object)? else {
        return Ok(None);
    };
    let arguments = pyo3::types::PyTuple::new(inspect.py(), vec![0; number])?;
    Ok(Some(signature.call_method1("bind", arguments).is_ok()))
}

/// Whether it has two arguments or more, a default for each, and no names of an application's: `create_app(config=None, testing=False)`.
fn has_defaults_of_a_factory(
    inspect: &Bound<'_, PyModule>,
    object: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    let Some(signature) = signature(inspect, object)? else {
        return Ok(false);
    };
    let empty = inspect.getattr("Parameter")?.getattr("empty")?;
    let parameters = signature.getattr("parameters")?.call_method0("values")?;
    let mut names = Vec::new();
    for parameter in parameters.try_iter()? {
        let parameter = parameter?;
        let name: String = parameter.getattr("name")?.extract()?;
        if !parameter.getattr("default")?.is(&empty) {
            names.push(name);
        }
    }
    let is_of_application = |name: &String| {
        let name = name.to_ascii_lowercase();
        name == "e" || name.contains("env") || name.contains("start") || name.contains("resp")
    };
    // Arguments of which all could be left out may be just passed on: `def application(*args, **kwargs)`.
    Ok(names.len() > 1
        && takes(inspect, object, 0)? == Some(true)
        && !names.iter().take(2).any(is_of_application))
}
