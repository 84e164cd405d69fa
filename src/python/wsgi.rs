//! Calling the application (PEP 3333, "The Server/Gateway Side").

use preforkd_http::{Body, Handler, Next, Origin, Reply, Request, Response};
use pyo3::exceptions::PyAssertionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::environ::{Environs, Local};
use crate::file::{self, FileWrapper};
use crate::forks;
use crate::input::Input;
use crate::start::StartResponse;
use crate::stream::{Line, Stream};

/// Calls the application for one thread.
pub(crate) struct Wsgi<'py> {
    py: Python<'py>,
    application: Bound<'py, PyAny>,
    environs: Environs<'py>,
    /// The input of requests without a body.
    empty: Bound<'py, Input>,
    /// One that no application holds any more.
    spare: Option<Bound<'py, StartResponse>>,
}

impl<'py> Wsgi<'py> {
    pub fn new(
        py: Python<'py>,
        application: Bound<'py, PyAny>,
        listeners: &[Local],
        threads: bool,
    ) -> PyResult<Self> {
        let empty = Bound::new(py, Input::new(Body::default()))?;
        Ok(Self {
            py,
            application,
            environs: Environs::new(py, listeners, threads, &empty)?,
            empty,
            spare: None,
        })
    }

    fn run(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        body: Body,
        start: &Bound<'py, StartResponse>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let environ = self.environs.make(request, origin)?;
        if request.body_length().is_some_and(|length| length > 0) {
            environ.set_item(intern!(py, "wsgi.input"), Bound::new(py, Input::new(body))?)?;
        } else if self.empty.get().is_closed() {
            let empty = Bound::new(py, Input::new(Body::default()))?;
            environ.set_item(intern!(py, "wsgi.input"), empty)?;
        }
        let result = self.application.call1((environ, start));
        forks::leave_if_forked(py, &result);
        result
    }

    fn start(&mut self) -> PyResult<Bound<'py, StartResponse>> {
        self.spare
            .take()
            .map_or_else(|| StartResponse::new(self.py), Ok)
    }

    fn keep(&mut self, start: Bound<'py, StartResponse>) {
        if StartResponse::is_unshared(&start) {
            self.spare = Some(start);
        }
    }

    /// What the application returned becomes a response, whole or the beginning of one.
    fn begin(
        &mut self,
        request: Request<'_>,
        result: Bound<'py, PyAny>,
        start: Bound<'py, StartResponse>,
        mut response: Response,
    ) -> Reply<Stream> {
        match whole(&result, &mut response) {
            Some(Ok(())) => {
                self.keep(start);
                return done(response);
            }
            Some(Err(error)) => {
                self.failed(&error, &Line::of(request), &mut response);
                return done(response);
            }
            None => {}
        }
        let mut stream = Stream {
            iterable: result.clone().unbind(),
            iterator: None,
            start: start.unbind(),
            line: Line::of(request),
        };
        if let Ok(wrapper) = result.cast_exact::<FileWrapper>()
            && response.has_head()
            && let Some(rest) = wrapper.get().rest(self.py)
        {
            response.finish(Some(rest.length));
            if response.is_plain() {
                let file::Rest {
                    file,
                    offset,
                    length,
                } = rest;
                return Reply {
                    response,
                    next: Next::File {
                        file,
                        offset,
                        length,
                        stream,
                    },
                };
            }
        }
        match result.try_iter() {
            Ok(iterator) => {
                stream.iterator = Some(iterator.unbind());
                self.step(stream, response)
            }
            Err(error) => {
                self.failed(&error, &stream.line, &mut response);
                self.over(stream, response)
            }
        }
    }

    /// Takes the next piece of the body that is not empty.
    fn step(&mut self, stream: Stream, response: Response) -> Reply<Stream> {
        let py = self.py;
        let mut response = response;
        let Some(iterator) = &stream.iterator else {
            response.end();
            return self.over(stream, response);
        };
        let mut iterator = iterator.bind(py).clone();
        let exchange = stream.start.bind(py).get().exchange();
        loop {
            // Nothing of the body goes out, so there is nothing to run the application for.
            if response.started() && response.is_bodyless() {
                response.end();
                return self.over(stream, response);
            }
            exchange.open(response);
            let item = iterator.next();
            // It is there, as only this function takes it out.
            let Some(back) = exchange.close() else {
                unreachable!("the response was taken by someone else")
            };
            response = back;
            let written = match &item {
                None => no_head(&response).map(|()| {
                    response.finish(Some(0));
                    response.end();
                    false
                }),
                Some(Ok(data)) => file::piece(data).and_then(|data| {
                    if !data.as_bytes().is_empty() {
                        no_head(&response)?;
                        response.finish(None);
                        response.write(data.as_bytes());
                    }
                    Ok(true)
                }),
                Some(Err(error)) => Err(error.clone_ref(py)),
            };
            match written {
                // What there is goes out before the next piece is made, which may take long.
                Ok(true) if response.buffered() > 0 && response.started() => {
                    return Reply {
                        response,
                        next: Next::More(stream),
                    };
                }
                Ok(true) => {}
                Ok(false) => return self.over(stream, response),
                Err(error) => {
                    self.failed(&error, &stream.line, &mut response);
                    return self.over(stream, response);
                }
            }
        }
    }

    /// The body has ended, one way or the other.
    fn over(&mut self, stream: Stream, response: Response) -> Reply<Stream> {
        self.close_iterable(&stream);
        self.keep(stream.start.into_bound(self.py));
        done(response)
    }

    fn close_iterable(&self, stream: &Stream) {
        let py = self.py;
        let closed = match stream.iterable.bind(py).getattr_opt(intern!(py, "close")) {
            Ok(Some(close)) => close.call0().map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = closed {
            error.display(py);
            log::error!(
                "close() of the response to {} raised; the response was sent",
                stream.line
            );
        }
    }

    /// Shows the traceback and answers 500, or cuts a response that has begun. Also for SystemExit and
    /// KeyboardInterrupt: a request must not end the worker.
    fn failed(&self, error: &PyErr, line: &Line, response: &mut Response) {
        error.display(self.py);
        match response.started() {
            true => log::error!(
                "the application failed in the middle of its response to {line}: closing the connection"
            ),
            false => log::error!("the application failed in {line}: answering 500"),
        }
        response.discard();
        response.fail(500, "Internal Server Error\n");
    }
}

/// The whole body at once, if the application returned it so; it has no `close` then.
fn whole(result: &Bound<'_, PyAny>, response: &mut Response) -> Option<PyResult<()>> {
    if let Ok(list) = result.cast_exact::<PyList>() {
        return Some(match list.len() {
            1 => list.get_item(0).and_then(|item| single(&item, response)),
            _ => several(list.iter(), response),
        });
    }
    let tuple = result.cast_exact::<PyTuple>().ok()?;
    Some(match tuple.len() {
        1 => tuple.get_item(0).and_then(|item| single(&item, response)),
        _ => several(tuple.iter(), response),
    })
}

fn single(item: &Bound<'_, PyAny>, response: &mut Response) -> PyResult<()> {
    let data = file::piece(item)?.as_bytes();
    no_head(response)?;
    response.finish(Some(data.len() as u64));
    response.write(data);
    response.end();
    Ok(())
}

fn several<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    response: &mut Response,
) -> PyResult<()> {
    let items = items
        .map(|item| file::piece(&item).cloned())
        .collect::<PyResult<Vec<_>>>()?;
    no_head(response)?;
    response.finish(Some(
        items.iter().map(|item| item.as_bytes().len() as u64).sum(),
    ));
    for item in &items {
        response.write(item.as_bytes());
    }
    response.end();
    Ok(())
}

fn no_head(response: &Response) -> PyResult<()> {
    match response.has_head() {
        true => Ok(()),
        false => Err(PyAssertionError::new_err(
            "the application did not call start_response",
        )),
    }
}

fn done(response: Response) -> Reply<Stream> {
    Reply {
        response,
        next: Next::Done,
    }
}

impl Handler for Wsgi<'_> {
    type Stream = Stream;

    fn idle<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        // In the middle of a response, perhaps.
        forks::leave_if_forked(self.py, &Ok(()));
        self.py.detach(wait)
    }

    fn call(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        body: Body,
        mut response: Response,
    ) -> Reply<Stream> {
        let start = match self.start() {
            Ok(start) => start,
            Err(error) => {
                self.failed(&error, &Line::of(request), &mut response);
                return done(response);
            }
        };
        start.get().exchange().open(response);
        let result = self.run(request, origin, body, &start);
        let Some(mut response) = start.get().exchange().close() else {
            unreachable!("the response was taken by someone else")
        };
        match result {
            Ok(result) => self.begin(request, result, start, response),
            Err(error) => {
                self.failed(&error, &Line::of(request), &mut response);
                done(response)
            }
        }
    }

    fn pull(&mut self, stream: Stream, response: Response) -> Reply<Stream> {
        self.step(stream, response)
    }

    fn close(&mut self, stream: Stream) {
        self.close_iterable(&stream);
    }
}
