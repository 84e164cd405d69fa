//! The contract between the master and its workers, as types that both sides use (preforkd-worker(7) describes it).
//!
//! [`contract`] has its version and the kinds of worker, [`mod@env`] the variables, [`settings`] the configuration of a WSGI
//! worker, [`inspection`] what is told of one that was only loaded,
//! [`messages`] the messages between master and template, [`updates`] those from the master to the front, [`notify`] those from a
//! worker to the master, and [`scoreboard`] the layout of the shared memory, behind which the front has its [`counters`] and [`gauges`], and counts
//! [`connections`] and [`running`] requests. [`census`] is what the master notes for the process that answers `/metrics`, and [`metrics`] what that makes of all. [`acme`] is about certificates that are ordered. [`access_format`] parses the form of the access log, [`proxy`] names trusted proxies,
//! [`text`] cleans texts from workers, and [`mod@temporary`] has the words about a folder for temporary files.
//!
//! [`version`] is the record by which the files of one release are known.
//!
//! [`passed`] takes over what the master passes, and [`logger`] writes log lines, for all workers of ours. Besides them only [`notify`]
//! (sends datagrams), [`lane`] (shares memory between a worker of the front and another one), [`socket`] (asks the kernel), [`stderr`] (writes lines) and [`title`] make system calls. Unsafe code is in `sys` only.
#![deny(unsafe_code)]

pub mod access_format;
pub mod acme;
pub mod census;
pub mod connections;
pub mod contract;
pub mod counters;
pub mod env;
pub mod front;
pub mod gauges;
pub mod inspection;
pub mod lane;
pub mod layers;
pub mod logger;
pub mod messages;
pub mod metrics;
pub mod notify;
pub mod passed;
pub mod proxy;
pub mod purges;
pub mod running;
pub mod scoreboard;
pub mod settings;
pub mod socket;
pub mod stderr;
mod sys;
pub mod temporary;
pub mod text;
pub mod title;
pub mod updates;
pub mod version;
