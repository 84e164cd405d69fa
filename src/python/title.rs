//! The process title that ps(1) shows.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

use preforkd_worker::env::Environment;

/// Names the process: `preforkd: web/3 gen 2` and `web/3`, or `preforkd: web template gen 2`. A process that may not write its own
/// memory keeps the old title; nothing depends on it.
pub(crate) fn set(environment: &Environment) {
    let (app, generation) = (&environment.app, environment.generation);
    let (long, short) = match environment.slot {
        Some(slot) => (
            format!("preforkd: {app}/{slot} gen {generation}"),
            format!("{app}/{slot}"),
        ),
        None => (
            format!("preforkd: {app} template gen {generation}"),
            format!("{app} template"),
        ),
    };
    if let Ok(name) = std::ffi::CString::new(short) {
        let _ = rustix::thread::set_name(&name);
    }
    let _ = write(&long);
}

/// Overwrites the argument area, whose end the kernel knows and ps reads (proc_pid_cmdline(5)). The program text of `python -c`
/// stands there and leaves room enough.
fn write(title: &str) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // proc_pid_stat(5): fields 48 and 49 are arg_start and arg_end; the second field may hold spaces and ends at the last ')'.
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(45)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    let [start, end] = fields[..] else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let room = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
    if room < 2 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut area = vec![0; room];
    let n = title.len().min(room - 2);
    area[..n].copy_from_slice(&title.as_bytes()[..n]);
    // A last byte that is not 0 tells the kernel that the area holds one title up to the first 0.
    area[room - 1] = b'.';
    fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")?
        .write_all_at(&area, start)
}
