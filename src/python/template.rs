//! The template: has loaded the application and forks workers from it, which share its memory (copy on write).
//!
//! It forks a process in between, which forks the workers and ends, so that they become children of the master (which is a
//! subreaper): see preforkd-worker(7), "Templates".

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use pyo3::prelude::*;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};

use self::between::Between;
use crate::worker::{Failure, Inheritance, begin_record, serve};
use crate::{import, inherited, logger, sys, title};

mod between;

/// Workers that one process in between forks: enough for its own cost to be shared, few enough that the first of them, which
/// serves when that process has ended, does not wait long for the others.
const BATCH: usize = 8;
/// Longer than the kernel takes from the first to the last step of a process's end.
const MOMENT: Duration = Duration::from_secs(1);
/// How often a new worker looks whether the master has become its parent; that takes microseconds.
const ADOPTION_LOOK: Duration = Duration::from_micros(200);
/// The template ends within so many seconds of being told to, whatever the application does; a master that is alive does not wait
/// for as long.
const LAST_RESORT: u32 = 12;
/// After so long the master is taken for dead.
const ADOPTION_WAIT: Duration = Duration::from_secs(5);

/// `FORK <ticket> <slot> <record>`.
struct Order {
    ticket: u64,
    slot: u32,
    record: Option<u32>,
}

impl Order {
    fn parse(message: &str) -> Option<Self> {
        let order = Self::read(message);
        if order.is_none() {
            log::error!("could not understand the master's message {message:?}; ignoring it");
        }
        order
    }

    fn read(message: &str) -> Option<Self> {
        let mut words = message.split_ascii_whitespace();
        let (fork, ticket, slot, record) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let record = match record {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        let order = Self {
            ticket: ticket.parse().ok()?,
            slot: slot.parse().ok()?,
            record,
        };
        (fork == "FORK" && words.next().is_none()).then_some(order)
    }
}

/// Loads the application and forks workers until the master closes the socket or says TERM. In a worker it serves
/// and returns when that is over.
pub(crate) fn run(
    py: Python<'_>,
    socket: OwnedFd,
    mut inheritance: Inheritance,
) -> Result<(), Failure> {
    let master = getppid();
    let application = import::application(py, &inheritance.settings.application)?;
    prepare(py, &inheritance)?;
    inheritance.take_stderr_over(py)?;
    let stop =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
    sys::stop_on_signal(&stop, LAST_RESORT, true)?;
    tell(&socket, "READY")?;
    let mut between = Between::default();
    while let Some(message) = py.detach(|| next_message(&socket, &stop, &mut between))? {
        let mut orders: Vec<Order> = Order::parse(&message).into_iter().collect();
        // The first worker is probed, and nobody else is wanted before it has passed.
        while orders.len() < BATCH
            && inheritance.check.is_none()
            && let Received::Message(message) = receive(&socket)?
        {
            orders.extend(Order::parse(&message));
        }
        if orders.is_empty() {
            continue;
        }
        if let Some(order) = fork(py, &socket, &orders, &mut between)? {
            drop(stop);
            drop(between);
            return work(py, socket, inheritance, &application, order, master);
        }
        inheritance.check = None;
    }
    py.detach(|| between.end(&socket));
    if py.detach(|| has_died(master, &stop)) {
        // What hangs at its fork would outlive all others, with the listeners; it is still in this group.
        sys::end_group();
    }
    Ok(())
}

/// A worker: tells the master, waits to become its child, serves.
fn work<'py>(
    py: Python<'py>,
    socket: OwnedFd,
    mut inheritance: Inheritance,
    application: &Bound<'py, PyAny>,
    order: &Order,
    master: Option<Pid>,
) -> Result<(), Failure> {
    match tell(&socket, &format!("FORKED {}", order.ticket)) {
        // The master has given its template up meanwhile, and the worker with it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        told => told?,
    }
    drop(socket);
    let waited = py.detach(|| wait_for_parent(master));
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)?;
    // The master may have died before it was asked to be told of.
    if !waited || getppid() != master {
        return Ok(());
    }
    let environment = &mut inheritance.environment;
    environment.slot = Some(order.slot);
    environment.scoreboard_record = order.record;
    logger::set_slot(environment.slot);
    title::set(environment);
    py.import("os")?
        .getattr("environ")?
        .set_item(preforkd_worker::env::SLOT, order.slot.to_string())?;
    let record = begin_record(&inheritance)?;
    serve(py, inheritance, application, record)
}

/// What has to be so before the first fork.
fn prepare(py: Python<'_>, inheritance: &Inheritance) -> PyResult<()> {
    inherited::close_databases(py)?;
    // What is buffered at a fork comes out once for each process.
    let sys = py.import("sys")?;
    for stream in ["stdout", "stderr"] {
        let stream = sys.getattr(stream)?;
        if !stream.is_none() {
            stream.call_method0("flush")?;
        }
    }
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    // The collector writes to every object it looks at; frozen ones it leaves alone, so that their pages stay shared.
    gc.call_method0("freeze")?;
    inherited::tell_of_threads(py)?;
    inherited::tell_of_connections(&[&inheritance.stderr, &inheritance.access_log]);
    Ok(())
}

/// Forks a process that forks the workers; the order in a worker, none in the template. By os.fork, so that what modules have
/// registered for a fork is run (also what gives `random` a new seed).
fn fork<'a>(
    py: Python<'_>,
    socket: &OwnedFd,
    orders: &'a [Order],
    between: &mut Between,
) -> Result<Option<&'a Order>, Failure> {
    let os = py.import("os")?;
    let fork = || os.call_method0("fork")?.extract::<i32>();
    match fork() {
        Ok(0) => {}
        Ok(child) => {
            between.add(child, tickets(orders));
            return Ok(None);
        }
        Err(error) => {
            fail(socket, tickets(orders), &error)?;
            return Ok(None);
        }
    }
    for order in orders {
        match fork() {
            Ok(0) => {
                // Like every worker it leads a session: the master ends what it started with it.
                setsid().map_err(io::Error::from)?;
                return Ok(Some(order));
            }
            Ok(_) => {}
            Err(error) => {
                if fail(socket, [order.ticket].into_iter(), &error).is_err() {
                    return Err(leave(&os, 1));
                }
            }
        }
    }
    Err(leave(&os, 0))
}

fn tickets(orders: &[Order]) -> impl Iterator<Item = u64> {
    orders.iter().map(|order| order.ticket)
}

/// Says of each order that no worker comes of it.
fn fail(
    socket: &OwnedFd,
    tickets: impl Iterator<Item = u64>,
    reason: &dyn Display,
) -> io::Result<()> {
    let mut tickets = tickets;
    tickets.try_for_each(|ticket| tell(socket, &format!("FAILED {ticket} {reason}")))
}

/// Ends the process in between without its exit handlers, which are the template's.
fn leave(os: &Bound<'_, PyModule>, status: i32) -> Failure {
    match os.call_method1("_exit", (status,)) {
        Ok(_) => Failure::Shown,
        Err(error) => error.into(),
    }
}

fn tell(socket: &OwnedFd, message: &str) -> io::Result<()> {
    send(socket, message.as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What there is to receive.
enum Received {
    Message(String),
    /// Nothing now.
    Nothing,
    /// The master has closed the socket.
    End,
}

fn receive(socket: &OwnedFd) -> io::Result<Received> {
    let mut buffer = [0; 256];
    match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Ok(Received::End),
        Ok((n, _)) => Ok(Received::Message(
            String::from_utf8_lossy(&buffer[..n]).into_owned(),
        )),
        Err(Errno::INTR | Errno::AGAIN) => Ok(Received::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// The next message; none at the end. Looks after the processes in between as long as there is none.
fn next_message(
    socket: &OwnedFd,
    stop: &OwnedFd,
    between: &mut Between,
) -> io::Result<Option<String>> {
    loop {
        let mut both = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        let look = Timespec::try_from(between::LOOK).ok();
        let timeout = look.as_ref().filter(|_| !between.is_empty());
        match poll(&mut both, timeout) {
            Err(Errno::INTR) => continue,
            Ok(0) => {
                between.look(socket)?;
                continue;
            }
            other => other?,
        };
        if !both[1].revents().is_empty() {
            return Ok(None);
        }
        match receive(socket)? {
            Received::Message(message) => return Ok(Some(message)),
            Received::End => return Ok(None),
            Received::Nothing => {}
        }
    }
}

/// Whether the master has died, and has not just told the template to end. A process that dies closes its sockets a moment before its
/// children get another parent, and the signal for that.
fn has_died(master: Option<Pid>, stop: &OwnedFd) -> bool {
    let mut told = [PollFd::new(stop, PollFlags::IN)];
    let moment = Timespec::try_from(MOMENT).ok();
    // An interruption is by the signal.
    let _ = poll(&mut told, moment.as_ref());
    getppid() != master
}

/// The process in between has ended when the master is the parent. Whether that came about.
fn wait_for_parent(master: Option<Pid>) -> bool {
    let mut left = ADOPTION_WAIT;
    while getppid() != master {
        let Some(rest) = left.checked_sub(ADOPTION_LOOK) else {
            return false;
        };
        left = rest;
        std::thread::sleep(ADOPTION_LOOK);
    }
    true
}
