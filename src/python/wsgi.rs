//! Calling the application (PEP 3333, "The Server/Gateway Side").

use std::sync::Arc;

use preforkd_http::{Body, Exchange, Handler, Origin, Request, Sent};
use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyTuple};

use crate::environ::{Environs, Served};
use crate::failure;
use crate::file::{self, FileWrapper};
use crate::forks;
use crate::input::Input;
use crate::line::Line;
use crate::start::{StartResponse, put};
use crate::unserved::Unserved;

/// Calls the application for one thread.
pub(crate) struct Wsgi<'py> {
    py: Python<'py>,
    application: Bound<'py, PyAny>,
    environs: Environs<'py>,
    /// The input of requests without a body.
    empty: Bound<'py, Input>,
    /// The input of the request that is running, if that has a body.
    input: Option<Bound<'py, Input>>,
    /// One that no application holds any more.
    spare: Option<Bound<'py, StartResponse>>,
    /// What to say of responses with 404.
    unserved: Option<Arc<Unserved>>,
}

impl<'py> Wsgi<'py> {
    pub fn new(
        py: Python<'py>,
        application: Bound<'py, PyAny>,
        served: &Served,
        threads: bool,
        unserved: Option<Arc<Unserved>>,
    ) -> PyResult<Self> {
        let empty = Bound::new(py, Input::new(Body::default()))?;
        Ok(Self {
            py,
            application,
            environs: Environs::new(py, served, threads, &empty)?,
            empty,
            input: None,
            spare: None,
            unserved,
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
            let input = Bound::new(py, Input::new(body))?;
            environ.set_item(intern!(py, "wsgi.input"), &input)?;
            self.input = Some(input);
        } else if self.empty.get().is_closed() {
            let empty = Bound::new(py, Input::new(Body::default()))?;
            environ.set_item(intern!(py, "wsgi.input"), empty)?;
        }
        let result = self.application.call1((environ, start));
        forks::leave_if_forked(py, result.as_ref().err());
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

    /// Sends what the application returned, to its end and to the end of its `close`.
    fn answer(
        &self,
        result: &Bound<'py, PyAny>,
        start: &StartResponse,
        mut exchange: Exchange,
        line: Line<'_>,
    ) -> Exchange {
        match whole(result, &mut exchange) {
            Some(Ok(())) => return exchange,
            Some(Err(error)) => {
                self.failed(&error, line, &mut exchange);
                return exchange;
            }
            None => {}
        }
        if !send_file(result, &mut exchange) {
            let iterator = result.try_iter();
            forks::leave_if_forked(self.py, iterator.as_ref().err());
            exchange = match iterator {
                Ok(iterator) => self.iterate(&iterator, start, exchange, line),
                Err(error) => {
                    self.failed(&error, line, &mut exchange);
                    exchange
                }
            };
        }
        self.close_iterable(result, line);
        exchange
    }

    /// Takes one piece of the body after the other, each on its way to the client before the next is made.
    fn iterate(
        &self,
        iterator: &Bound<'py, PyIterator>,
        start: &StartResponse,
        mut exchange: Exchange,
        line: Line<'_>,
    ) -> Exchange {
        let py = self.py;
        let mut iterator = iterator.clone();
        loop {
            // Nothing of the body goes out, so there is nothing to run the application for.
            if exchange.started() && exchange.is_bodyless() {
                exchange.end();
                return exchange;
            }
            start.current().open(exchange);
            let item = iterator.next();
            forks::leave_if_forked(py, item.as_ref().and_then(|item| item.as_ref().err()));
            exchange = start.current().close(py);
            let sent = match &item {
                None => no_head(&exchange).map(|()| {
                    exchange.finish(Some(0));
                    exchange.end();
                    None
                }),
                Some(Ok(data)) => file::piece(data).and_then(|data| {
                    let data = data.as_bytes();
                    if data.is_empty() {
                        return Ok(Some(exchange.alive()));
                    }
                    no_head(&exchange)?;
                    exchange.finish(None);
                    Ok(Some(put(py, &mut exchange, data)))
                }),
                Some(Err(error)) => Err(error.clone_ref(py)),
            };
            match sent {
                Ok(Some(Sent::Gone)) => {
                    exchange.cut();
                    return exchange;
                }
                Ok(Some(_)) => {}
                Ok(None) => return exchange,
                Err(error) => {
                    self.failed(&error, line, &mut exchange);
                    return exchange;
                }
            }
        }
    }

    fn close_iterable(&self, iterable: &Bound<'py, PyAny>, line: Line<'_>) {
        let closed = match iterable.getattr_opt(intern!(self.py, "close")) {
            Ok(Some(close)) => close.call0().map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        forks::leave_if_forked(self.py, closed.as_ref().err());
        if let Err(error) = closed {
            failure::show(self.py, &error);
            log::error!("close() of the response to {line} raised; the response was sent");
        }
    }

    /// Shows the traceback and answers 500, or cuts a response that has begun. Also for SystemExit and
    /// KeyboardInterrupt: a request must not end the worker.
    fn failed(&self, error: &PyErr, line: Line<'_>, exchange: &mut Exchange) {
        if exchange.is_gone() && error.is_instance_of::<PyBrokenPipeError>(self.py) {
            // It has passed on what `write` raised: there is nobody to answer.
            return exchange.cut();
        }
        failure::show(self.py, error);
        match exchange.started() {
            true => log::error!(
                "the application failed in the middle of its response to {line}: closing the connection"
            ),
            false => log::error!("the application failed in {line}: answering 500"),
        }
        exchange.discard();
        exchange.fail(500, "Internal Server Error\n");
    }
}

/// The whole body at once, if the application returned it so; it has no `close` then.
fn whole(result: &Bound<'_, PyAny>, exchange: &mut Exchange) -> Option<PyResult<()>> {
    if let Ok(list) = result.cast_exact::<PyList>() {
        return Some(match list.len() {
            1 => list.get_item(0).and_then(|item| single(&item, exchange)),
            _ => several(list.iter(), exchange),
        });
    }
    let tuple = result.cast_exact::<PyTuple>().ok()?;
    Some(match tuple.len() {
        1 => tuple.get_item(0).and_then(|item| single(&item, exchange)),
        _ => several(tuple.iter(), exchange),
    })
}

fn single(item: &Bound<'_, PyAny>, exchange: &mut Exchange) -> PyResult<()> {
    let data = file::piece(item)?.as_bytes();
    no_head(exchange)?;
    exchange.finish(Some(data.len() as u64));
    if data.len() <= Exchange::SLICE {
        exchange.write(data);
        exchange.end();
    } else {
        put_all(item.py(), exchange, [data]);
    }
    Ok(())
}

fn several<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    exchange: &mut Exchange,
) -> PyResult<()> {
    let items = items
        .map(|item| file::piece(&item).cloned())
        .collect::<PyResult<Vec<_>>>()?;
    no_head(exchange)?;
    let length = items
        .iter()
        .map(|item| item.as_bytes().len())
        .sum::<usize>();
    exchange.finish(Some(length as u64));
    match items.first() {
        Some(first) if length > Exchange::SLICE => {
            let pieces = items.iter().map(|item| item.as_bytes());
            put_all(first.py(), exchange, pieces);
        }
        _ => {
            for item in &items {
                exchange.write(item.as_bytes());
            }
            exchange.end();
        }
    }
    Ok(())
}

/// Sends a whole body that is too large to be copied at once.
fn put_all<'a>(
    py: Python<'_>,
    exchange: &mut Exchange,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) {
    if exchange.is_bodyless() {
        return exchange.end();
    }
    match pieces
        .into_iter()
        .all(|piece| put(py, exchange, piece) != Sent::Gone)
    {
        true => exchange.end(),
        false => exchange.cut(),
    }
}

/// Leaves the rest of a file to the server, if the application returned a wrapper around a real one.
fn send_file(result: &Bound<'_, PyAny>, exchange: &mut Exchange) -> bool {
    let Ok(wrapper) = result.cast_exact::<FileWrapper>() else {
        return false;
    };
    if !exchange.has_head() {
        return false;
    }
    let Some(rest) = wrapper.get().rest(result.py()) else {
        return false;
    };
    exchange.finish(Some(rest.length));
    let plain = exchange.is_plain();
    if plain {
        exchange.send_file(rest.file, rest.offset, rest.length);
    }
    plain
}

fn no_head(exchange: &Exchange) -> PyResult<()> {
    match exchange.has_head() {
        true => Ok(()),
        false => Err(PyAssertionError::new_err(
            "the application did not call start_response",
        )),
    }
}

impl Handler for Wsgi<'_> {
    fn idle<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        forks::leave_if_forked(self.py, None);
        self.py.detach(wait)
    }

    fn call(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        body: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let line = Line(request);
        let start = match self.start() {
            Ok(start) => start,
            Err(error) => {
                self.failed(&error, line, &mut exchange);
                return exchange;
            }
        };
        start.get().current().open(exchange);
        let result = self.run(request, origin, body, &start);
        let mut exchange = start.get().current().close(self.py);
        match result {
            Ok(result) => exchange = self.answer(&result, start.get(), exchange, line),
            Err(error) => self.failed(&error, line, &mut exchange),
        }
        self.keep(start);
        if let Some(input) = self.input.take() {
            // An application that keeps it must not keep the room that its body takes.
            input.get().close();
        }
        if exchange.status() == 404
            && let Some(unserved) = &self.unserved
        {
            unserved.note(request);
        }
        exchange
    }
}
