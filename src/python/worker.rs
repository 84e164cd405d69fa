//! The life of a worker: environment, application, serving, end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use preforkd_http::server::{Config, serve_inline, serve_pool};
use preforkd_http::{Files, pool};
use preforkd_worker::env::{self, Environment};
use preforkd_worker::notify::{self, Notifier};
use preforkd_worker::scoreboard::Record;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SocketAddrAny, getsockname};

use crate::board::Board;
use crate::environ::Local;
use crate::settings::Settings;
use crate::wsgi::Wsgi;
use crate::{import, logger, sys, template, title};

/// Threads of the pool have as much stack as the main thread mostly has: deep recursion must not depend on where a request runs.
const STACK: usize = 8 * 1024 * 1024;

/// What went wrong before or in serving.
pub(crate) enum Failure {
    /// Shown already.
    Shown,
    /// To be logged.
    Message(String),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Python::attach(|py| error.display(py));
        Self::Shown
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Message(error.to_string())
    }
}

/// Everything a worker has from its master.
pub(crate) struct Inheritance {
    pub environment: Environment,
    pub settings: Settings,
    pub listeners: Vec<OwnedFd>,
    pub scoreboard: Option<OwnedFd>,
    /// What becomes standard error when the process is ready.
    pub stderr: Option<OwnedFd>,
    pub access_log: Option<OwnedFd>,
    /// The listener over which the first worker is probed.
    pub check: Option<OwnedFd>,
}

impl Inheritance {
    /// Goes over from the pipe on which the master hears a start to the standard error of a ready process.
    pub fn take_stderr_over(&mut self, py: Python<'_>) -> Result<(), Failure> {
        let Some(stderr) = self.stderr.take() else {
            return Ok(());
        };
        // What is buffered belongs to the start. An application may have put anything in its place.
        let stream = py.import("sys")?.getattr("stderr")?;
        if let Err(error) = stream.call_method0("flush") {
            log::debug!("could not flush standard error: {error}");
        }
        rustix::stdio::dup2_stderr(&stderr).map_err(io::Error::from)?;
        logger::look_at_stderr();
        Ok(())
    }
}

/// Runs worker or template to its end; the exit status.
pub(crate) fn run(py: Python<'_>) -> i32 {
    match prepare_and_run(py) {
        Ok(()) => 0,
        Err(Failure::Shown) => 1,
        Err(Failure::Message(message)) => {
            log::error!("{message}");
            1
        }
    }
}

fn prepare_and_run(py: Python<'_>) -> Result<(), Failure> {
    let get = |name: &str| std::env::var(name).ok();
    let environment = Environment::parse(get, std::process::id()).map_err(|error| {
        Failure::Message(format!(
            "could not read the environment of the worker: {error}; it is to be started by preforkd"
        ))
    });
    if let Ok(environment) = &environment {
        logger::init(environment);
    }
    let environment = environment?;
    let settings = Settings::parse(&get(env::WSGI).unwrap_or_default())
        .map_err(|error| Failure::Message(format!("could not read {}: {error}", env::WSGI)))?;
    let adopt = |fd| {
        sys::adopt(fd).map_err(|error| {
            Failure::Message(format!("could not take over descriptor {fd}: {error}"))
        })
    };
    let listeners = (0..environment.listeners as i32)
        .map(|n| adopt(env::FIRST_LISTENER + n))
        .collect::<Result<_, _>>()?;
    let scoreboard = environment.scoreboard_fd.map(adopt).transpose()?;
    let template = environment.template.map(adopt).transpose()?;
    let stderr = environment.stderr_fd.map(adopt).transpose()?;
    let access_log = environment.access_log_fd.map(adopt).transpose()?;
    let check = environment.check_fd.map(adopt).transpose()?;
    hide_environment(py)?;
    // SIGABRT, which the master sends to a worker that hangs, shows where each thread is.
    py.import("faulthandler")?.call_method0("enable")?;
    title::set(&environment);
    let inheritance = Inheritance {
        environment,
        settings,
        listeners,
        scoreboard,
        stderr,
        access_log,
        check,
    };
    match template {
        Some(socket) => template::run(py, socket, inheritance),
        None => {
            let record = begin_record(&inheritance)?;
            let application = import::application(py, &inheritance.settings.application)?;
            serve(py, inheritance, &application, record)
        }
    }
}

fn hide_environment(py: Python<'_>) -> PyResult<()> {
    let environ = py.import("os")?.getattr("environ")?;
    for name in env::PRIVATE {
        environ.call_method1("pop", (name, py.None()))?;
    }
    Ok(())
}

/// Takes the worker's record of the scoreboard, if there is one.
pub(crate) fn begin_record(inheritance: &Inheritance) -> Result<Option<Record>, Failure> {
    let (Some(memory), Some(index)) = (
        &inheritance.scoreboard,
        inheritance.environment.scoreboard_record,
    ) else {
        return Ok(None);
    };
    let words = sys::map_record(memory, index).map_err(|error| {
        Failure::Message(format!(
            "could not map record {index} of the scoreboard: {error}"
        ))
    })?;
    let record = Record::new(words);
    record.begin(std::process::id());
    Ok(Some(record))
}

/// Serves until it is asked to stop and everything is answered.
pub(crate) fn serve<'py>(
    py: Python<'py>,
    mut inheritance: Inheritance,
    application: &Bound<'py, PyAny>,
    record: Option<Record>,
) -> Result<(), Failure> {
    inheritance.take_stderr_over(py)?;
    let Inheritance {
        environment,
        settings,
        mut listeners,
        access_log,
        check,
        ..
    } = inheritance;
    let private = check.is_some();
    listeners.extend(check);
    let stop =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
    sys::stop_on_signal(&stop, settings.last_resort(), false)?;
    let locals: Vec<Local> = listeners.iter().map(local).collect::<io::Result<_>>()?;
    let folders = settings
        .r#static
        .iter()
        .map(|(prefix, path)| (prefix.as_str(), path));
    let files = Files::new(folders).map_err(|error| {
        Failure::Message(format!("could not open a folder of static files: {error}"))
    })?;
    let config = Config {
        limits: Arc::new(settings.limits()),
        listeners,
        private,
        files,
        access_log,
        stop,
    };
    let notifier = environment
        .notify_socket
        .as_deref()
        .map(Notifier::new)
        .transpose()?;
    let mut board = Board {
        record,
        notifier,
        draining: false,
        left: settings.lifetime(),
    };
    if settings.threads > 1 {
        let (pool, seats) = pool(settings.threads)?;
        let threads = seats
            .into_iter()
            .enumerate()
            .map(|(index, seat)| {
                let (application, locals) = (application.clone().unbind(), locals.clone());
                thread::Builder::new()
                    .name(format!("request-{index}"))
                    .stack_size(STACK)
                    .spawn(move || {
                        Python::attach(|py| {
                            match Wsgi::new(py, application.into_bound(py), &locals, true) {
                                Ok(mut wsgi) => seat.run(&mut wsgi),
                                Err(error) => error.display(py),
                            }
                        });
                    })
            })
            .collect::<io::Result<Vec<_>>>()?;
        board.ready();
        py.detach(|| {
            let result = serve_pool(config, pool, board);
            for thread in threads {
                // A thread that panicked has said so.
                let _ = thread.join();
            }
            result
        })?;
    } else {
        let mut wsgi = Wsgi::new(py, application.clone(), &locals, false)?;
        board.ready();
        serve_inline(config, &mut wsgi, board)?;
    }
    Ok(())
}

fn local(listener: &OwnedFd) -> io::Result<Local> {
    let address: SocketAddrAny = getsockname(listener)?;
    Ok(address.try_into().ok())
}

impl Board {
    /// The worker accepts requests from now on.
    fn ready(&mut self) {
        use preforkd_http::Observer as _;
        self.idle();
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.send(notify::READY)
        {
            log::error!("could not tell the master that the worker is ready: {error}");
        }
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.set_nonblocking()
        {
            log::warn!("the worker may have to wait for its master: {error}");
        }
    }
}
