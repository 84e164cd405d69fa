//! The contract between the master and its workers, as types that both sides use (preforkd-worker(7) describes it).
//!
//! [`contract`] has its version and the kinds of worker, [`mod@env`] the variables, [`settings`] what a WSGI worker is
//! configured to do, [`messages`] what master and template say, [`notify`] what a worker tells the master, and
//! [`scoreboard`] the layout of the shared memory. [`text`] cleans what workers say.
//!
//! System calls are made by [`notify`], which sends a datagram, [`stderr`], which writes log lines, and [`title`]; the shared
//! memory of the scoreboard is mapped by whoever calls [`scoreboard::Record::new`].
#![forbid(unsafe_code)]

pub mod contract;
pub mod env;
pub mod messages;
pub mod notify;
pub mod scoreboard;
pub mod settings;
pub mod stderr;
pub mod text;
pub mod title;
