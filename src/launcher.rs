//! The launcher: a process that sets up descriptors, session, user and working directory, and executes the program of a worker, a
//! template or a job.
//!
//! It is this program, started by the master as `preforkd launch FIRST NUMBER`. The master does not fork itself, because fork
//! copies the page tables of all its memory and takes longer with each worker; nor does it wait for the disks of the working
//! directory and the program, as the launcher does. From descriptor FIRST on there are NUMBER descriptors for the program, then a
//! memory file with the [`Orders`], then a pipe to report to the master: see [`progress`].

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::plan::Rights;
use crate::sys::{self, Failure, Process, Stage};

pub mod confinement;
pub mod progress;
mod release;
pub mod rights;

/// The first argument of a launcher.
pub const COMMAND: &str = "launch";

/// The process to set up, without its descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The process id of the master. Without this parent the process ends, unless it outlives it.
    pub master: i32,
    /// The signal that it gets when the master dies; 0 if it outlives it.
    pub on_master_death: i32,
    /// Whether the signals that are meant for the master are ignored in its program: [`Process::ignores_orders`].
    pub ignores_orders: bool,
    /// User id, group id and supplementary groups; the master's if `None`.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// What it may do, and how much.
    pub rights: Rights,
    /// File mode creation mask; the master's if `None`.
    pub umask: Option<u32>,
    /// Whether the first descriptors are one for standard input, one for standard output and one for standard error.
    pub streams: [bool; 3],
    /// The file to execute.
    pub program: CString,
    /// Its working directory.
    pub chdir: CString,
    /// The folder behind that when the configuration was read; empty if it is the same path.
    pub release: CString,
    /// Its arguments, starting with its own name.
    pub args: Vec<CString>,
    /// Its environment.
    pub env: Vec<CString>,
}

impl Orders {
    /// Encodes them as fields that end with NUL, which no field can contain.
    pub fn encode(&self) -> Vec<u8> {
        let number =
            |number: Option<u32>| number.map_or(String::new(), |number| number.to_string());
        let (uid, gid, groups) = match &self.user {
            Some((uid, gid, groups)) => (Some(*uid), Some(*gid), groups.as_slice()),
            None => (None, None, &[][..]),
        };
        let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
        let heads = [
            self.master.to_string(),
            self.on_master_death.to_string(),
            u8::from(self.ignores_orders).to_string(),
            number(uid),
            number(gid),
            groups.join(","),
            // They have no value without a form in JSON.
            serde_json::to_string(&self.rights).unwrap_or_default(),
            number(self.umask),
            self.streams
                .map(|given| if given { "1" } else { "0" })
                .join(","),
            self.args.len().to_string(),
        ];
        let texts = [&self.program, &self.chdir, &self.release]
            .into_iter()
            .chain(&self.args)
            .chain(&self.env);
        let heads = heads.map(|head| head + "\0");
        let room = heads.iter().map(String::len).sum::<usize>()
            + texts
                .clone()
                .map(|text| text.count_bytes() + 1)
                .sum::<usize>();
        let mut bytes = Vec::with_capacity(room);
        for head in heads {
            bytes.extend_from_slice(head.as_bytes());
        }
        for text in texts {
            bytes.extend_from_slice(text.as_bytes_with_nul());
        }
        bytes
    }

    /// Decodes them; `None` if they are incomplete or invalid.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.split_inclusive(|&byte| byte == 0);
        let mut text = || CStr::from_bytes_with_nul(fields.next()?).ok();
        let mut word = || text()?.to_str().ok();
        let master = word()?.parse().ok()?;
        let on_master_death = word()?.parse().ok()?;
        let ignores_orders = word()? == "1";
        let (uid, gid) = (optional(word()?)?, optional(word()?)?);
        let groups = word()?.split(',').filter(|group| !group.is_empty());
        let groups = groups
            .map(|group| group.parse().ok())
            .collect::<Option<_>>()?;
        let rights = serde_json::from_str(word()?).ok()?;
        let umask = optional(word()?)?;
        let streams = word()?.split(',').map(|given| given == "1");
        let streams = streams.collect::<Vec<_>>().try_into().ok()?;
        let number: usize = word()?.parse().ok()?;
        let (program, chdir) = (text()?.to_owned(), text()?.to_owned());
        let release = text()?.to_owned();
        let args = (0..number)
            .map(|_| Some(text()?.to_owned()))
            .collect::<Option<_>>()?;
        let env = fields.map(|field| Some(CStr::from_bytes_with_nul(field).ok()?.to_owned()));
        Some(Self {
            master,
            on_master_death,
            ignores_orders,
            user: uid.zip(gid).map(|(uid, gid)| (uid, gid, groups)),
            rights,
            umask,
            streams,
            program,
            chdir,
            release,
            args,
            env: env.collect::<Option<_>>()?,
        })
    }
}

/// An optional number; `None` if it is invalid.
fn optional(word: &str) -> Option<Option<u32>> {
    match word {
        "" => Some(None),
        word => word.parse().ok().map(Some),
    }
}

/// Sets up and executes the process. Returns only an error that cannot be reported to the master: this process was not started by
/// one, or its descriptors are not as the master passes them.
pub fn run(arguments: &[String]) -> io::Error {
    let wrong = || io::Error::other("preforkd launch: launchers are started by the master only");
    let numbers = arguments.iter().map(|argument| argument.parse().ok());
    let Some([first, number]) = numbers
        .collect::<Option<Vec<RawFd>>>()
        .and_then(|numbers| <[RawFd; 2]>::try_from(numbers).ok())
    else {
        return wrong();
    };
    let adopt = |n| sys::adopt(first.saturating_add(n));
    // First, because it takes the report of every other failure.
    let report = match adopt(number.saturating_add(1)) {
        Ok(report) => report,
        Err(error) => return explained(error),
    };
    let inherited = adopt(number).and_then(|orders| {
        let fds = (0..number)
            .map(adopt)
            .collect::<io::Result<Vec<OwnedFd>>>()?;
        Ok((read(orders.into())?, fds))
    });
    let (orders, fds) = match inherited {
        Ok((bytes, fds)) => (Orders::decode(&bytes), fds),
        Err(error) => match error.raw_os_error() {
            Some(errno) => {
                let failure = Failure::new(Stage::Descriptors, Errno::from_raw(errno));
                sys::report_failure(&report, failure)
            }
            None => return explained(error),
        },
    };
    let Some(mut orders) = orders else {
        return wrong();
    };
    release::keep(&mut orders, Path::is_dir);
    let mut fds = fds.iter().map(AsFd::as_fd);
    let streams = orders.streams;
    let [stdin, stdout, stderr] = streams.map(|given| given.then(|| fds.next()).flatten());
    let process = Process {
        program: orders.program,
        args: orders.args,
        env: orders.env,
        chdir: orders.chdir,
        release: None,
        ignores_orders: orders.ignores_orders,
        user: orders
            .user
            .as_ref()
            .map(|(uid, gid, groups)| (*uid, *gid, &groups[..])),
        rights: orders.rights,
        umask: orders.umask,
        on_parent_death: Signal::try_from(orders.on_master_death).ok(),
        stdin,
        stdout,
        stderr,
        fds: fds.collect(),
    };
    sys::become_process(&process, &report, Pid::from_raw(orders.master))
}

fn explained(error: io::Error) -> io::Error {
    io::Error::other(format!(
        "preforkd launch: cannot adopt its descriptors: {error} (launchers are started by the master only)"
    ))
}

fn read(mut orders: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    orders.seek(SeekFrom::Start(0))?;
    orders.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use crate::plan::{Landlock, Reach, Resource};

    fn texts(all: &[&str]) -> Vec<CString> {
        all.iter()
            .map(|text| CString::new(*text).expect("no NUL"))
            .collect()
    }

    #[test]
    fn orders_survive_encoding_and_incomplete_ones_are_refused() {
        let all = Orders {
            master: 7,
            on_master_death: 3,
            ignores_orders: true,
            user: Some((33, 34, vec![1, 2])),
            rights: Rights {
                no_new_privs: true,
                capabilities: Some(1 << 10),
                limits: [(Resource::Nofile, (Some(7), None))].into(),
                oom_score_adj: Some(-5),
                nice: Some(-1),
                cpus: [0, 3].into(),
                landlock: Some(Landlock {
                    paths: vec![Reach {
                        path: OsStr::from_bytes(b"/srv/\xff").into(),
                        write: true,
                        must_exist: false,
                    }],
                    connect: Some([443].into()),
                    bind: None,
                    required: true,
                }),
            },
            umask: Some(0o27),
            streams: [true, false, true],
            program: c"/bin/sh".into(),
            chdir: c"/srv/\xff".into(),
            release: c"/srv/1".into(),
            args: texts(&["sh", "-c", "", "a\nb"]),
            env: texts(&["A=1", "B="]),
        };
        let few = Orders {
            ignores_orders: false,
            release: c"".into(),
            user: None,
            rights: Rights::default(),
            umask: None,
            args: texts(&["sh"]),
            env: Vec::new(),
            ..all.clone()
        };
        for orders in [all, few] {
            let bytes = orders.encode();
            assert_eq!(Orders::decode(&bytes).as_ref(), Some(&orders));
            assert_eq!(Orders::decode(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(Orders::decode(b""), None);
        assert_eq!(Orders::decode(b"x\0\0\0\0\0"), None);
    }
}
