//! Serving: the HTTP server with an application behind it, on one thread or on several.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use preforkd_http::{Board, Config, FrontListeners, serve_inline, serve_pool};
use preforkd_http::{Files, Seat, descriptors, layer, pool};
use preforkd_worker::inspection::StaticFiles;
use preforkd_worker::notify::Notifier;
use preforkd_worker::passed::Passed;
use preforkd_worker::scoreboard::Record;
use preforkd_worker::settings::{Mapping, Settings};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SocketAddrAny, getsockname};

use crate::django::{self, Django};
use crate::environ::Served;
use crate::environment;
use crate::failure::{self, Failure, could_not};
use crate::hooks::{Hook, Hooks};
use crate::inheritance::Inheritance;
use crate::life::Life;
use crate::settings::{last_resort, lifetime};
use crate::signals;
use crate::sys::HeldSignals;
use crate::unserved::Unserved;
use crate::wsgi::Wsgi;

/// Threads of the pool have as much stack as the main thread mostly has: deep recursion must not depend on where a request runs.
const STACK: usize = 8 * 1024 * 1024;

/// Serves until it is asked to stop and everything is answered.
pub(crate) fn serve<'py>(
    py: Python<'py>,
    mut inheritance: Inheritance,
    application: &Bound<'py, PyAny>,
    hooks: &Hooks<'py>,
    record: Option<Record>,
) -> Result<(), Failure> {
    // While the master still listens: why it fails, if it does, is why the worker does not start.
    hooks.call(Hook::WorkerStart)?;
    inheritance.take_stderr_over(py)?;
    let served = serve_until_stop(py, inheritance, application, record);
    // What was served was served, whatever becomes of this.
    match hooks.call(Hook::WorkerStop) {
        Err(Failure::Message(message)) => log::error!("{message}"),
        Ok(()) | Err(Failure::Shown) => {}
    }
    served
}

fn serve_until_stop<'py>(
    py: Python<'py>,
    inheritance: Inheritance,
    application: &Bound<'py, PyAny>,
    record: Option<Record>,
) -> Result<(), Failure> {
    let Inheritance { settings, passed } = inheritance;
    let Passed {
        environment,
        mut listeners,
        access_log,
        check,
        stop: order,
        scoreboard,
        own,
        ..
    } = passed;
    let private = check.is_some();
    listeners.extend(check);
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(could_not("create an eventfd"))?;
    let signals = signals::prepare(py, &stop, last_resort(&settings))?;
    scoreboard.iter().for_each(descriptors::own);
    let locals = listeners.iter().map(local).collect::<io::Result<_>>();
    let served = Served {
        listeners: locals.map_err(could_not("find the address of a listener"))?,
        prefix: settings.prefix.clone(),
    };
    let files = static_files(py, &settings, environment.slot == Some(0))?;
    let unserved = Unserved::find(py, &settings).map(Arc::new);
    if environment.slot == Some(0) {
        django::tell_of_logging(py)?;
    }
    let http = &settings.http;
    let layers = layer::Options::new(http, &environment, access_log).map_err(Failure::Message)?;
    let config = Config {
        limits: Arc::new(http.into()),
        listeners,
        private,
        front: FrontListeners {
            all: layers.front.clone(),
            own,
        },
        proxy_protocol: http.proxy_protocol.then(|| http.trusted_proxies[..].into()),
        files,
        layers: layer::standard(layers),
        stop: std::iter::once(stop).chain(order).collect(),
        signals,
    };
    let notifier = environment
        .notify_socket
        .as_deref()
        .map(Notifier::new)
        .transpose()
        .map_err(could_not("make a socket to the master"))?;
    notifier.iter().for_each(descriptors::own);
    let mut board = Board::new(Life, record, notifier, lifetime(&settings));
    if settings.threads > 1 {
        let (pool, seats) =
            pool(settings.threads as usize).map_err(could_not("make a pool of threads"))?;
        let threads = start_threads(py, seats, application, &served, unserved.as_ref())?;
        board.ready();
        // A request that the loop has read would be neither answered nor served, if the signal came before it is noted.
        let held = HeldSignals::abort();
        let result = py.detach(|| serve_pool(config, pool, board));
        drop(held);
        for thread in threads {
            thread.join(py)?;
        }
        result.map_err(could_not("go on serving"))?;
    } else {
        let mut wsgi = Wsgi::new(py, application.clone(), &served, false, unserved)?;
        board.ready();
        serve_inline(config, &mut wsgi, board).map_err(could_not("go on serving"))?;
    }
    Ok(())
}

/// Opens the folders. Without any nothing is asked of Python. One worker of an app tells what Django has said.
fn static_files(py: Python<'_>, settings: &Settings, tells: bool) -> Result<Files, Failure> {
    let mut mappings = settings.static_files.clone();
    if settings.django_static {
        mappings.extend(of_django(py, tells)?);
    }
    if mappings.is_empty() {
        return Ok(Files::default());
    }
    let user = user_name(py);
    let what = format!("enter a folder of static files as user {user}");
    Files::new(&mappings, &settings.prefix, user).map_err(could_not(&what))
}

/// The mappings for the static files of a Django site.
fn of_django(py: Python<'_>, tells: bool) -> Result<Vec<(String, Mapping)>, Failure> {
    let Some(django) = Django::find(py)? else {
        return Err(Failure::Message(
            "static = \"django\": the application is no Django site (write the folders: static = { \"/static/\" = \"FOLDER\" })"
                .into(),
        ));
    };
    let found = django.static_files()?;
    if tells {
        tell_of_static_files(&found);
    }
    Ok(found.mappings().collect())
}

fn tell_of_static_files(found: &StaticFiles) {
    if let Some(missing) = &found.missing {
        log::warn!("static = \"django\": {missing}");
    }
    for (prefix, folders) in &found.folders {
        let by = match found.by_finders {
            true => "as DEBUG is on, by the finders",
            false => "STATIC_ROOT",
        };
        let folders: Vec<_> = folders
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        log::info!(
            "static files below {prefix} are served from {} ({by})",
            folders.join(", ")
        );
    }
}

/// The name of the user of this process, or its number if it has none.
fn user_name(py: Python<'_>) -> String {
    let number = rustix::process::geteuid().as_raw();
    let entry = py
        .import("pwd")
        .and_then(|pwd| pwd.call_method1("getpwuid", (number,)))
        .and_then(|entry| entry.getattr("pw_name")?.extract());
    entry.unwrap_or_else(|_| number.to_string())
}

/// A thread of the pool.
enum Thread<'py> {
    Python(Bound<'py, PyAny>),
    /// Unknown to Python, where a library has replaced its threads by something that runs on this one.
    Native(std::thread::JoinHandle<()>),
}

impl Thread<'_> {
    fn join(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Python(thread) => thread.call_method0("join").map(drop),
            Self::Native(thread) => {
                // One that panicked has said so.
                let _ = py.detach(|| thread.join());
                Ok(())
            }
        }
    }
}

/// Threads of Python, so that its debuggers, profilers and coverage tools see them.
fn start_threads<'py>(
    py: Python<'py>,
    seats: Vec<Seat>,
    application: &Bound<'py, PyAny>,
    served: &Served,
    unserved: Option<&Arc<Unserved>>,
) -> Result<Vec<Thread<'py>>, Failure> {
    let native = environment::has_patched_threads(py)?;
    let threading = py.import("threading")?;
    let size = threading.call_method1("stack_size", (STACK,))?;
    let mut threads = Vec::new();
    for (index, seat) in seats.into_iter().enumerate() {
        let (application, served) = (application.clone().unbind(), served.clone());
        let unserved = unserved.cloned();
        let seat = Mutex::new(Some(seat));
        let run = move |py: Python<'_>| {
            let seat = seat.lock().unwrap_or_else(PoisonError::into_inner).take();
            let application = application.bind(py).clone();
            let mut wsgi = Wsgi::new(py, application, &served, true, unserved.clone())?;
            if let Some(seat) = seat {
                seat.run(&mut wsgi);
            }
            PyResult::Ok(())
        };
        let name = format!("preforkd-{index}");
        threads.push(match native {
            true => std::thread::Builder::new()
                .name(name)
                .stack_size(STACK)
                .spawn(move || {
                    Python::attach(|py| {
                        if let Err(error) = run(py) {
                            failure::show(py, &error);
                        }
                    });
                })
                .map(Thread::Native)
                .map_err(could_not("start a thread"))?,
            false => {
                let run = PyCFunction::new_closure(py, Some(c"serve"), None, move |args, _| {
                    run(args.py())
                });
                let options = PyDict::new(py);
                options.set_item("target", run?)?;
                options.set_item("name", name)?;
                let thread = threading.call_method("Thread", (), Some(&options))?;
                thread.call_method0("start")?;
                Thread::Python(thread)
            }
        });
    }
    threading.call_method1("stack_size", (size,))?;
    Ok(threads)
}

fn local(listener: &OwnedFd) -> io::Result<Option<SocketAddr>> {
    let address: SocketAddrAny = getsockname(listener)?;
    Ok(address.try_into().ok())
}
