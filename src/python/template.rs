//! The template: it loads the application and forks workers, which share its memory (copy on write).
//!
//! It forks an intermediate process, which forks the workers and exits, so that they become children of the master, which
//! is a subreaper: preforkd-worker(7), "Templates".

use std::fmt::Display;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use preforkd_worker::contract::Kind;
use preforkd_worker::logger;
use preforkd_worker::messages::{Along, BATCH, Fork, Reply};
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};

use self::intermediate::Intermediates;
use crate::failure::{Failure, could_not};
use crate::hooks::{Hook, Hooks};
use crate::inheritance::Inheritance;
use crate::serve::serve;
use crate::{import, inherited, sys, title};

mod intermediate;

/// Longer than the kernel takes from the first to the last step of a process's end.
const MOMENT: Duration = Duration::from_secs(1);
/// How often a new worker checks whether the master has become its parent; that takes microseconds.
const ADOPTION_LOOK: Duration = Duration::from_micros(200);
/// Seconds after SIGTERM until the template ends itself, whatever the application does. A master that is alive kills it
/// before that.
const LAST_RESORT: u32 = 12;
/// How long a new worker waits for the master to become its parent; after that it takes the master for dead.
const ADOPTION_WAIT: Duration = Duration::from_secs(5);

const ANSWER: &str = "send a message to the master";
const HEAR: &str = "receive a message of the master";

/// Loads the application and forks workers until the master closes the socket or sends SIGTERM. In a worker it serves,
/// and returns when that is over.
pub(crate) fn run(
    py: Python<'_>,
    socket: OwnedFd,
    mut inheritance: Inheritance,
) -> Result<(), Failure> {
    let master = getppid();
    let application = import::application(py, &inheritance.settings)?;
    let hooks = Hooks::load(py, &inheritance.settings, true)?;
    hooks.call(Hook::BeforeFork)?;
    prepare(py, &inheritance)?;
    inheritance.take_stderr_over(py)?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(could_not("create an eventfd"))?;
    sys::begin_to_listen(&stop, LAST_RESORT, true).map_err(could_not("handle signals"))?;
    sys::stop_on_signals().map_err(could_not("handle SIGTERM"))?;
    tell(&socket, &Reply::Ready).map_err(could_not(ANSWER))?;
    let mut intermediates = Intermediates::default();
    while let Some(packet) = py
        .detach(|| next_packet(&socket, &stop, &mut intermediates))
        .map_err(could_not(HEAR))?
    {
        let mut orders: Vec<Order> = order(packet).into_iter().collect();
        // The master probes the first worker, and wants no other before that has passed.
        while orders.len() < BATCH
            && inheritance.passed.check.is_none()
            && let Received::Packet(packet) = receive(&socket).map_err(could_not(HEAR))?
        {
            orders.extend(order(packet));
        }
        if orders.is_empty() {
            continue;
        }
        if let Some(order) = fork(py, &socket, orders, &mut intermediates)? {
            drop(stop);
            drop(intermediates);
            return work(
                py,
                socket,
                inheritance,
                (&application, &hooks),
                order,
                master,
            );
        }
        inheritance.passed.check = None;
    }
    py.detach(|| intermediates.end(&socket));
    if py.detach(|| has_died(master, &stop)) {
        // An intermediate process that hangs would outlive all others and keep the listeners open; it is still in this group.
        sys::end_group();
    }
    Ok(())
}

/// What the master wants.
struct Order {
    fork: Fork,
    /// Where the worker is told to stop.
    stop: Option<OwnedFd>,
    /// The listener that only the worker has.
    own: Option<OwnedFd>,
}

/// The order in a packet.
fn order(packet: Packet) -> Option<Order> {
    let order = Fork::parse(&packet.bytes);
    if order.is_none() {
        let packet = packet.bytes.escape_ascii();
        log::error!("could not understand the master's message \"{packet}\"; ignoring it");
    }
    let mut descriptors = packet.descriptors.into_iter();
    order.map(|fork| Order {
        fork,
        stop: fork.along.stop.then(|| descriptors.next()).flatten(),
        own: fork.along.own.then(|| descriptors.next()).flatten(),
    })
}

/// A worker: introduces itself to the master, waits to become its child, serves.
fn work<'py>(
    py: Python<'py>,
    socket: OwnedFd,
    mut inheritance: Inheritance,
    (application, hooks): (&Bound<'py, PyAny>, &Hooks<'py>),
    order: Order,
    master: Option<Pid>,
) -> Result<(), Failure> {
    let Order {
        fork: order,
        stop,
        own,
    } = order;
    inheritance.passed.stop = stop;
    if let Some(own) = own {
        inheritance.passed.add_own(own);
    }
    let ticket = order.ticket;
    match tell(&socket, &Reply::Forked { ticket }) {
        // Meanwhile the master has given up the template, and the worker with it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        told => told.map_err(could_not(ANSWER))?,
    }
    drop(socket);
    let waited = py.detach(|| wait_for_parent(master));
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(could_not("ask for a signal at the death of the master"))?;
    // The master may have died before the kernel was asked for the signal.
    if !waited || getppid() != master {
        return Ok(());
    }
    let environment = &mut inheritance.passed.environment;
    environment.kind = Kind::Wsgi;
    environment.slot = Some(order.slot);
    environment.scoreboard_record = order.record;
    logger::set_slot(environment.slot);
    title::set(environment);
    py.import("os")?
        .getattr("environ")?
        .set_item(preforkd_worker::env::SLOT, order.slot.to_string())?;
    let record = inheritance.begin_record()?;
    hooks.call(Hook::AfterFork)?;
    serve(py, inheritance, application, hooks, record)
}

/// What must be done before the first fork.
fn prepare(py: Python<'_>, inheritance: &Inheritance) -> PyResult<()> {
    inherited::close_databases(py)?;
    // What is buffered at a fork is written once by each process.
    let sys = py.import("sys")?;
    for stream in ["stdout", "stderr"] {
        let stream = sys.getattr(stream)?;
        if !stream.is_none() {
            stream.call_method0("flush")?;
        }
    }
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    // The collector writes to every object that it visits. It does not visit frozen ones, so that their pages stay shared.
    gc.call_method0("freeze")?;
    inherited::tell_of_threads(py)?;
    inherited::tell_of_connections(&[&inheritance.passed.stderr, &inheritance.passed.access_log]);
    Ok(())
}

/// Forks an intermediate process that forks the workers; returns the order in a worker, none in the template. By os.fork, so
/// that the hooks of os.register_at_fork run (among them the one that gives `random` a new seed).
fn fork(
    py: Python<'_>,
    socket: &OwnedFd,
    orders: Vec<Order>,
    intermediates: &mut Intermediates,
) -> Result<Option<Order>, Failure> {
    let os = py.import("os")?;
    let fork = || os.call_method0("fork")?.extract::<i32>();
    match fork() {
        Ok(0) => {}
        Ok(child) => {
            intermediates.add(child, tickets(&orders));
            return Ok(None);
        }
        Err(error) => {
            fail(socket, tickets(&orders), &error).map_err(could_not(ANSWER))?;
            return Ok(None);
        }
    }
    for order in orders {
        match fork() {
            Ok(0) => {
                // Like every worker it leads a session: the master ends with it what it has started.
                setsid().map_err(could_not("make a session"))?;
                return Ok(Some(order));
            }
            Ok(_) => {}
            Err(error) => {
                if fail(socket, [order.fork.ticket].into_iter(), &error).is_err() {
                    return Err(leave(&os, 1));
                }
            }
        }
    }
    Err(leave(&os, 0))
}

fn tickets(orders: &[Order]) -> impl Iterator<Item = u64> {
    orders.iter().map(|order| order.fork.ticket)
}

/// Reports for each order that its worker was not forked.
fn fail(
    socket: &OwnedFd,
    mut tickets: impl Iterator<Item = u64>,
    reason: &dyn Display,
) -> io::Result<()> {
    tickets.try_for_each(|ticket| {
        let reason = reason.to_string();
        tell(socket, &Reply::Failed { ticket, reason })
    })
}

/// Ends the intermediate process without the exit handlers, which are the template's.
fn leave(os: &Bound<'_, PyModule>, status: i32) -> Failure {
    match os.call_method1("_exit", (status,)) {
        Ok(_) => Failure::Shown,
        Err(error) => error.into(),
    }
}

fn tell(socket: &OwnedFd, reply: &Reply) -> io::Result<()> {
    send(socket, reply.encode().as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A message of the master, and the descriptors that came along.
struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// What there is to receive.
enum Received {
    Packet(Packet),
    /// Nothing now.
    Nothing,
    /// The master has closed the socket.
    End,
}

fn receive(socket: &OwnedFd) -> io::Result<Received> {
    let mut buffer = [0; 256];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Along::MOST))];
    let mut along = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    match recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut along,
        flags,
    ) {
        Ok(message) if message.bytes == 0 => Ok(Received::End),
        Ok(message) => {
            let fds = along.drain().filter_map(|along| match along {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            Ok(Received::Packet(Packet {
                descriptors: fds.flatten().collect(),
                bytes: buffer[..message.bytes].to_vec(),
            }))
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(Received::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// The next packet; none at the end. Looks after the intermediate processes as long as there is none.
fn next_packet(
    socket: &OwnedFd,
    stop: &OwnedFd,
    intermediates: &mut Intermediates,
) -> io::Result<Option<Packet>> {
    loop {
        let mut both = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        let look = Timespec::try_from(intermediate::LOOK).ok();
        let timeout = look.as_ref().filter(|_| !intermediates.is_empty());
        match poll(&mut both, timeout) {
            Err(Errno::INTR) => continue,
            Ok(0) => {
                intermediates.look(socket)?;
                continue;
            }
            other => other?,
        };
        if !both[1].revents().is_empty() {
            return Ok(None);
        }
        match receive(socket)? {
            Received::Packet(packet) => return Ok(Some(packet)),
            Received::End => return Ok(None),
            Received::Nothing => {}
        }
    }
}

/// Whether the master has died, rather than just told the template to end. A process that dies closes its sockets a moment
/// before its children get another parent and the signal for that.
fn has_died(master: Option<Pid>, stop: &OwnedFd) -> bool {
    let mut told = [PollFd::new(stop, PollFlags::IN)];
    let until = Instant::now() + MOMENT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        // What is meant for the master interrupts it too.
        if poll(&mut told, left.as_ref()) != Err(Errno::INTR) {
            break;
        }
    }
    getppid() != master
}

/// Waits until the intermediate process has ended, and so the master is the parent. Whether that happened in time.
fn wait_for_parent(master: Option<Pid>) -> bool {
    let until = Instant::now() + ADOPTION_WAIT;
    while getppid() != master {
        if Instant::now() >= until {
            return false;
        }
        pause(ADOPTION_LOOK);
    }
    true
}

/// Waits for so long, or until a signal comes: a sleep that goes on after each one does not end while they keep coming.
fn pause(time: Duration) {
    let time = Timespec::try_from(time).ok();
    let _ = poll(&mut [], time.as_ref());
}
