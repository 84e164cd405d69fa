//! System calls of the master, one topic per file. They know neither the supervisor nor the master. They do not know each
//! other either, except the ones they are built on: `paths`, `socket_file` and `launch`.

pub mod addresses;
pub mod alarm;
pub mod beacon;
pub mod config_check;
pub mod control;
pub mod data_file;
pub mod guard;
pub mod host;
pub mod init;
pub mod interpreter;
pub mod launch;
pub mod listen;
pub mod log_files;
pub mod memory;
pub mod notify;
pub mod path_watch;
pub mod paths;
pub mod pid_file;
pub mod private;
pub mod probe;
pub mod process;
pub mod ready_fd;
pub mod rights;
pub mod scoreboard;
pub mod sealed;
pub mod signals;
pub mod socket_file;
pub mod spawn;
pub mod stop_orders;
pub mod tail;
pub mod template;
pub mod temporary;
pub mod terminal;
mod time_zone;
pub mod updates;
