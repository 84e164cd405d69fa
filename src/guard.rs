//! The guard of a master: a process that ends what the master has started if it dies without having done so itself.
//!
//! It is this program, started by the master as `preforkd guard` with a pipe as descriptor 3, the [`table`] as descriptor 4, and the
//! queue of [`sockets`] as descriptor 5. It waits for the end of the pipe, which only the master holds open, and has no listener and no
//! file. When the master was killed or has crashed, it does what a stop would have done (`ending`), and keeps the listeners that its
//! processes still have for the next master (`handing`), whose apps wait for what must not run beside theirs (`waiting`).

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use nix::sys::signal::Signal;
use preforkd_worker::title::{self, Room};

use crate::effects::signals::Signals;
use crate::logging;
use crate::sys;

mod ending;
mod handing;
pub mod orphans;
pub mod sockets;
pub mod table;
pub mod waiting;

use ending::Ending;
use handing::Handing;
use table::Table;

/// The first argument of a guard.
pub const COMMAND: &str = "guard";

/// The descriptor of the pipe.
const PIPE: i32 = 3;
/// The descriptor of the table.
const TABLE: i32 = 4;

/// The descriptor of the queue of sockets.
const SOCKETS: i32 = 5;

/// Signals that end or stop a process by default. A guard ends when nothing is left to do.
const IGNORED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Waits for the end of the master, and ends what it has left.
///
/// # Errors
/// It was not started by a master, or no descriptor is available.
pub fn run() -> io::Result<()> {
    let mut pipe = File::from(sys::adopt(PIPE)?);
    let table = Table::inherited(sys::adopt(TABLE)?);
    let queue = sys::adopt(SOCKETS)?;
    // An init system may send them to all processes of the service.
    let _signals = Signals::catch(IGNORED.map(|signal| signal as i32))?;
    let room = match sys::move_environment() {
        Ok(()) => Room::Environment,
        Err(_) => Room::Arguments,
    };
    // It was executed as /proc/self/exe, so its name would be `exe`.
    nix::sys::prctl::set_name(c"preforkd")?;
    let master = table.master().ok_or(ErrorKind::InvalidData)?;
    // The title is not essential.
    let _ = title::set(&format!("preforkd: guard of pid {master}"), room);
    while let Err(error) = pipe.read_exact(&mut [0]) {
        match error.kind() {
            ErrorKind::Interrupted => {}
            ErrorKind::UnexpectedEof => break,
            _ => return Err(error),
        }
    }
    if !table.is_stopped() {
        logging::begin(false);
        let handing = Handing::new(sockets::left(queue));
        Ending::new(table, master, handing).run();
    }
    Ok(())
}

/// A number of processes in words.
fn processes(number: usize) -> String {
    match number {
        1 => "1 process".into(),
        number => format!("{number} processes"),
    }
}
