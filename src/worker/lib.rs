//! The worker side of the contract between master and worker, and the layout of the scoreboard.
//!
//! The contract itself is described in preforkd-worker(7). System calls are made by [`notify`], which sends a
//! datagram, [`stderr`], which writes log lines, and [`title`]; the shared memory of the scoreboard is mapped by whoever calls [`scoreboard::Record::new`].
#![forbid(unsafe_code)]

pub mod env;
pub mod notify;
pub mod scoreboard;
pub mod stderr;
pub mod title;
