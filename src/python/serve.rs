//! Serving: the HTTP server with an application behind it, on one thread or on several.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use preforkd_http::server::{Config, serve_inline, serve_pool};
use preforkd_http::{Files, pool};
use preforkd_worker::notify::{Notice, Notifier};
use preforkd_worker::scoreboard::Record;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SocketAddrAny, getsockname};

use crate::board::Board;
use crate::environ::Local;
use crate::failure::{Failure, could_not};
use crate::inheritance::Inheritance;
use crate::settings::{last_resort, lifetime, limits};
use crate::sys;
use crate::wsgi::Wsgi;

/// Threads of the pool have as much stack as the main thread mostly has: deep recursion must not depend on where a request runs.
const STACK: usize = 8 * 1024 * 1024;

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
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(could_not("create an eventfd"))?;
    sys::stop_on_signal(&stop, last_resort(&settings), false)
        .map_err(could_not("handle SIGTERM"))?;
    let locals = listeners.iter().map(local).collect::<io::Result<_>>();
    let locals: Vec<Local> = locals.map_err(could_not("find the address of a listener"))?;
    let folders = settings
        .static_files
        .iter()
        .map(|(prefix, path)| (prefix.as_str(), path));
    let files = Files::new(folders).map_err(could_not("open a folder of static files"))?;
    let config = Config {
        limits: Arc::new(limits(&settings)),
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
        .transpose()
        .map_err(could_not("make a socket to the master"))?;
    let mut board = Board {
        record,
        notifier,
        draining: false,
        left: lifetime(&settings),
    };
    if settings.threads > 1 {
        let (pool, seats) =
            pool(settings.threads as usize).map_err(could_not("make a pool of threads"))?;
        let threads: io::Result<Vec<_>> = seats
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
            .collect();
        let threads = threads.map_err(could_not("start a thread"))?;
        board.ready();
        py.detach(|| {
            let result = serve_pool(config, pool, board);
            for thread in threads {
                // A thread that panicked has said so.
                let _ = thread.join();
            }
            result
        })
        .map_err(could_not("go on serving"))?;
    } else {
        let mut wsgi = Wsgi::new(py, application.clone(), &locals, false)?;
        board.ready();
        serve_inline(config, &mut wsgi, board).map_err(could_not("go on serving"))?;
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
            && let Err(error) = notifier.notify(&Notice::Ready)
        {
            log::error!(
                "could not tell the master that the worker is ready: {error}; the master will abort it after start_timeout"
            );
        }
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.set_nonblocking()
        {
            log::warn!(
                "could not make the socket to the master non-blocking: {error}; a master that does not read delays requests"
            );
        }
    }
}
