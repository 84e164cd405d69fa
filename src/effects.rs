//! What the master does to the world: one topic of system calls in each file. They know neither the
//! supervisor nor the master, nor each other, but what others are made of: `paths`, `socket_file` and `launch`.

pub mod config_check;
pub mod control;
pub mod host;
pub mod init;
pub mod interpreter;
pub mod launch;
pub mod listen;
pub mod log_files;
pub mod memory;
pub mod notify;
pub mod paths;
pub mod pid_file;
pub mod private;
pub mod probe;
pub mod scoreboard;
pub mod signals;
pub mod socket_file;
pub mod spawn;
pub mod tail;
pub mod template;
