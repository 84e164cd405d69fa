//! The interpreter and what it runs in.

use pyo3::prelude::*;
use rustix::fs::{Access, access};

/// Says which interpreter runs, and in which environment: most failed deploys have another one than they should.
pub(crate) fn tell(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?;
    let text = |attribute: &str| sys.getattr(attribute).map(|value| value.to_string());
    let version = text("version")?;
    let version = version.split_whitespace().next().unwrap_or_default();
    let (prefix, base) = (text("prefix")?, text("base_prefix")?);
    let environment = match prefix == base {
        true => "in no virtual environment".to_owned(),
        false => format!("in the virtual environment {prefix}"),
    };
    log::info!("Python {version}, {}, {environment}", text("executable")?);
    Ok(())
}

/// Warns of a folder for temporary files that cannot be written: large request bodies go there.
pub(crate) fn tell_of_temporary_folder() {
    let folder = std::env::temp_dir();
    if let Err(error) = access(&folder, Access::WRITE_OK | Access::EXEC_OK) {
        log::warn!(
            "cannot write to the folder for temporary files, {}: {error}; request bodies above body_in_memory will be answered with 500 or 503 (make it writable, or name \
             another one: env = {{ TMPDIR = \"PATH\" }})",
            folder.display()
        );
    }
}

/// Whether threads that Python starts are none of the system, as a library has replaced them.
pub(crate) fn has_patched_threads(py: Python<'_>) -> PyResult<bool> {
    Ok(patched_by(py)?.is_some())
}

/// Warns of libraries that have replaced parts of the standard library.
pub(crate) fn tell_of_patches(py: Python<'_>, threads: u32) -> PyResult<()> {
    if let Some(library) = patched_by(py)? {
        let own = match threads {
            1 => "each worker still runs one request at a time",
            _ => {
                "each worker still runs as many requests at a time as it has threads, which Python does not know as such"
            }
        };
        log::warn!(
            "the application has let {library} patch the standard library: {own}, and greenlets run only while a request of their thread waits \
             (remove the patch, and let `threads` be the number of requests that run at a time)"
        );
    }
    Ok(())
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
