//! What the master does to the world: one topic of system calls in each file. They know neither each other
//! (but those that `launch`) nor the supervisor nor the master.

pub mod config_check;
pub mod control;
pub mod host;
pub mod init;
pub mod launch;
pub mod listen;
pub mod log_files;
pub mod memory;
pub mod notify;
pub mod pid_file;
pub mod private;
pub mod probe;
pub mod scoreboard;
pub mod signals;
pub mod tail;
pub mod template;
