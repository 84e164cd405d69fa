//! The interpreter and what it runs in.

use preforkd_worker::settings::Settings;
use pyo3::prelude::*;

/// Says which interpreter runs, and in which environment: most failed deploys have another one than they should.
pub(crate) fn tell(py: Python<'_>, settings: &Settings) -> PyResult<()> {
    let sys = py.import("sys")?;
    let text = |attribute: &str| sys.getattr(attribute).map(|value| value.to_string());
    let version = text("version")?;
    let version = version.split_whitespace().next().unwrap_or_default();
    let (prefix, base) = (text("prefix")?, text("base_prefix")?);
    let environment = match prefix == base {
        true => "in no virtual environment".to_owned(),
        false => format!("in the virtual environment {prefix}"),
    };
    log::info!(
        "Python {version}, {}, {environment}; it is {}",
        text("executable")?,
        settings.interpreter
    );
    Ok(())
}

/// Warns of a folder for temporary files that cannot be written: large request bodies would go there.
pub(crate) fn tell_of_temporary_folder() {
    // To ask for permissions says nothing to root, nor of a file system without files.
    if let Err(error) = preforkd_http::try_temporary_file() {
        let said = preforkd_worker::temporary::complaint(&std::env::temp_dir(), &error);
        log::warn!("{said}");
    }
}

/// Whether threads that Python starts are none of the system, as a library has replaced them.
pub(crate) fn has_patched_threads(py: Python<'_>) -> PyResult<bool> {
    Ok(patched_by(py)?.is_some())
}

/// Warns of libraries that have replaced parts of the standard library, or the way in which a database driver waits.
pub(crate) fn tell_of_patches(py: Python<'_>, threads: u32) -> PyResult<()> {
    let what = match patched_by(py)? {
        Some(library) => format!("the standard library is patched by {library}"),
        None if has_green_driver(py)? => "psycopg2 waits by psycogreen".to_owned(),
        None => return Ok(()),
    };
    let requests = match threads {
        1 => "one request at a time".to_owned(),
        threads => format!("{threads} requests at a time, each on a thread of the system"),
    };
    log::warn!(
        "{what}, but no worker switches between requests while one waits: it still runs {requests}, and a greenlet that a request has started runs only while the code of \
         that thread waits (remove the patch, and let `threads` be the number of requests that may run at a time)"
    );
    Ok(())
}

/// Whether psycogreen has set how psycopg2 waits.
fn has_green_driver(py: Python<'_>) -> PyResult<bool> {
    let modules = py.import("sys")?.getattr("modules")?;
    let is_there = |name: &str| modules.contains(name);
    if !is_there("psycopg2.extensions")?
        || !(is_there("psycogreen.gevent")? || is_there("psycogreen.eventlet")?)
    {
        return Ok(false);
    }
    let extensions = modules.get_item("psycopg2.extensions")?;
    Ok(!extensions.call_method0("get_wait_callback")?.is_none())
}

fn patched_by(py: Python<'_>) -> PyResult<Option<&'static str>> {
    let modules = py.import("sys")?.getattr("modules")?;
    let asked = [
        ("gevent", "gevent.monkey", "is_module_patched", "threading"),
        (
            "eventlet",
            "eventlet.patcher",
            "is_monkey_patched",
            "thread",
        ),
    ];
    for (library, module, question, part) in asked {
        if modules.contains(module)? {
            let module = modules.get_item(module)?;
            for part in [part, "socket"] {
                if module.call_method1(question, (part,))?.is_truthy()? {
                    return Ok(Some(library));
                }
            }
        }
    }
    Ok(None)
}
