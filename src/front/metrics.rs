//! The program as the process that answers `/metrics`, `/healthz` and `/readyz`: `preforkd-front metrics`.
//!
//! It reads what the master and its workers have in memory (`gather`), and asks neither of them. It has no rights and no secrets. `queues` asks
//! the kernel how many connections wait at a listener.

mod gather;
mod queues;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use preforkd_http::{
    Body, Config, Exchange, Files, FrontListeners, Handler, HeadError, Life, Limits, Observer,
    Origin, Request, phrase, serve_inline,
};
use preforkd_worker::logger;
use preforkd_worker::metrics::orders::{COMMAND, Orders};
use preforkd_worker::metrics::text;
use preforkd_worker::passed;
use preforkd_worker::title::{self, Room};

use self::gather::{Gatherer, Verdict};
use crate::serve::{Signals, could_not, signals};

/// The media type of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Runs the process to its end.
///
/// # Errors
/// It cannot start, or cannot go on; the whole message.
pub fn run() -> Result<(), String> {
    logger::init();
    let could_not_read = could_not("read the orders (only preforkd can start this process)");
    let file = passed::descriptor(0).map_err(&could_not_read)?;
    let json = crate::updates::read_shared(file).map_err(&could_not_read)?;
    let orders: Orders =
        serde_json::from_str(&json).map_err(|error| could_not_read(std::io::Error::from(error)))?;
    let _ = title::set(&format!("preforkd: {COMMAND}"), Room::Arguments);
    drop_rights()?;
    let take = |number: u32| {
        let taken = passed::descriptor(number);
        taken.map_err(could_not(format!(
            "take over descriptor {number} of this process"
        )))
    };
    let census = take(1)?.into();
    let last = 2 + orders.listeners;
    let listeners: Vec<OwnedFd> = (2..last).map(take).collect::<Result<_, _>>()?;
    let apps = u32::try_from(orders.apps.len()).unwrap_or_default();
    let boards = (last..last + apps).map(|number| take(number).map(File::from));
    let boards = boards.collect::<Result<_, _>>()?;
    let (pipe, ends) = signals().map_err(could_not("handle signals"))?;
    let config = Config {
        limits: Arc::new(limits()),
        listeners,
        private: false,
        front: FrontListeners::default(),
        proxy_protocol: None,
        files: Files::default(),
        layers: Vec::new(),
        stop: Vec::new(),
        signals: Some(pipe),
    };
    let mut answers = Answers(Gatherer::new(orders, census, boards));
    serve_inline(config, &mut answers, End(ends)).map_err(could_not("go on serving"))
}

/// Whoever finds a fault in this process finds nothing to gain by it.
fn drop_rights() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(could_not("give up privileges"))?;
    // A kernel that does not know them has not given any either.
    let _ = rustix::thread::clear_ambient_capability_set();
    Ok(())
}

/// Questions are short, and so is the time that a client may take.
fn limits() -> Limits {
    Limits {
        max_head: 8 * 1024,
        max_body: 1024,
        max_connections: 64,
        header_timeout: Duration::from_secs(5),
        body_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// Ends the process when the master says so.
struct End(Signals);

impl Observer for End {
    fn interrupted(&mut self) -> bool {
        self.0.interrupted()
    }
}

/// What answers requests.
struct Answers(Gatherer);

impl Handler for Answers {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let answer = self.answer(request.method(), request.path());
        // Connections that stay open would delay the end of this process.
        exchange.close();
        if answer.send(&mut exchange).is_err() {
            exchange.fail(500, "500 Internal Server Error\n");
        }
        exchange
    }
}

/// An answer.
struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn plain(status: u16, body: impl Into<String>) -> Self {
        let (kind, body) = (PLAIN, body.into());
        Self { status, kind, body }
    }

    fn send(&self, exchange: &mut Exchange) -> Result<(), HeadError> {
        exchange.begin(format!("{} {}", self.status, phrase(self.status)).as_bytes())?;
        exchange.field(b"Content-Type", self.kind.as_bytes())?;
        exchange.field(b"Cache-Control", b"no-store")?;
        if self.status == 405 {
            exchange.field(b"Allow", b"GET, HEAD")?;
        }
        exchange.finish(Some(self.body.len() as u64));
        exchange.write(self.body.as_bytes());
        exchange.end();
        Ok(())
    }
}

impl Answers {
    fn answer(&mut self, method: &[u8], path: &[u8]) -> Answer {
        let known = matches!(path, b"/metrics" | b"/healthz" | b"/readyz");
        if known && !matches!(method, b"GET" | b"HEAD") {
            return Answer::plain(405, "405 Method Not Allowed\n");
        }
        match path {
            b"/metrics" => match self.0.metrics() {
                Ok(metrics) => Answer {
                    status: 200,
                    kind: TEXT,
                    body: text(&metrics),
                },
                Err(error) => Answer::plain(503, format!("the counters cannot be read: {error}\n")),
            },
            b"/healthz" => match self.0.lives() {
                true => Answer::plain(200, "ok\n"),
                false => {
                    Answer::plain(503, "the master does not run: it was stopped by a signal\n")
                }
            },
            b"/readyz" => match self.0.verdict() {
                Ok(Verdict::Ready) => Answer::plain(200, "ready\n"),
                Ok(Verdict::Not(why)) => Answer::plain(503, why + "\n"),
                Err(error) => Answer::plain(503, format!("the census cannot be read: {error}\n")),
            },
            _ => Answer::plain(
                404,
                "404 Not Found: there are /metrics, /healthz and /readyz\n",
            ),
        }
    }
}
