//! The process that becomes a worker, a template or a job: it takes its descriptors, its session, its user and its folder, and
//! executes the program.
//!
//! It is this program, started by the master as `preforkd launch FIRST NUMBER`. The master does not fork for that, which would copy
//! the tables of all its memory and take longer with each worker that it has; and it does not wait for the disks of the
//! folder and of the program, as this process does. From descriptor FIRST on stand NUMBER descriptors for the program, then a
//! memory file with the [`Orders`], then a pipe that tells the master of a failure.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::unistd::Pid;

use crate::sys::{self, Process};

/// The first argument of such a process.
pub const COMMAND: &str = "launch";

/// What the process is to become, but for its descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// Who gives them: without this parent the process ends.
    pub master: i32,
    /// User id, group id and supplementary groups, unless the master's.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// File mode creation mask, unless the master's.
    pub umask: Option<u32>,
    /// Whether the descriptors begin with one for standard output, and with one for standard error.
    pub output: (bool, bool),
    /// The file to execute.
    pub program: CString,
    /// Where it starts.
    pub chdir: CString,
    /// Its arguments, its own name first.
    pub args: Vec<CString>,
    /// Its environment.
    pub env: Vec<CString>,
}

impl Orders {
    /// As bytes: fields that end with NUL, which none of them can hold.
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
            number(uid),
            number(gid),
            groups.join(","),
            number(self.umask),
            u8::from(self.output.0).to_string(),
            u8::from(self.output.1).to_string(),
            self.args.len().to_string(),
        ];
        let mut bytes = Vec::with_capacity(16 * 1024);
        for head in heads {
            bytes.extend_from_slice(head.as_bytes());
            bytes.push(0);
        }
        let texts = [&self.program, &self.chdir].into_iter();
        for text in texts.chain(&self.args).chain(&self.env) {
            bytes.extend_from_slice(text.as_bytes_with_nul());
        }
        bytes
    }

    /// Reads them again; none if they were cut or are no orders.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.split_inclusive(|&byte| byte == 0);
        let mut text = || CStr::from_bytes_with_nul(fields.next()?).ok();
        let mut word = || text()?.to_str().ok();
        let master = word()?.parse().ok()?;
        let (uid, gid) = (optional(word()?)?, optional(word()?)?);
        let groups = word()?.split(',').filter(|group| !group.is_empty());
        let groups = groups
            .map(|group| group.parse().ok())
            .collect::<Option<_>>()?;
        let umask = optional(word()?)?;
        let output = (word()? == "1", word()? == "1");
        let number: usize = word()?.parse().ok()?;
        let (program, chdir) = (text()?.to_owned(), text()?.to_owned());
        let args = (0..number)
            .map(|_| Some(text()?.to_owned()))
            .collect::<Option<_>>()?;
        let env = fields.map(|field| Some(CStr::from_bytes_with_nul(field).ok()?.to_owned()));
        Some(Self {
            master,
            user: uid.zip(gid).map(|(uid, gid)| (uid, gid, groups)),
            umask,
            output,
            program,
            chdir,
            args,
            env: env.collect::<Option<_>>()?,
        })
    }
}

/// A number that may be left out; none if it is none.
fn optional(word: &str) -> Option<Option<u32>> {
    match word {
        "" => Some(None),
        word => word.parse().ok().map(Some),
    }
}

/// Becomes what the orders say. Returns only when it was not started by a master, with what is wrong.
pub fn run(arguments: &[String]) -> io::Error {
    let wrong = || io::Error::other("preforkd launch: this is started by the master only");
    let numbers = arguments.iter().map(|argument| argument.parse().ok());
    let Some([first, number]) = numbers
        .collect::<Option<Vec<RawFd>>>()
        .and_then(|numbers| <[RawFd; 2]>::try_from(numbers).ok())
    else {
        return wrong();
    };
    let adopted = (0..number.saturating_add(2)).map(|n| sys::adopt(first.saturating_add(n)));
    let mut fds: Vec<OwnedFd> = match adopted.collect() {
        Ok(fds) => fds,
        Err(_) => return wrong(),
    };
    let (Some(report), Some(orders)) = (fds.pop(), fds.pop()) else {
        return wrong();
    };
    let orders = match read(orders.into()) {
        Ok(bytes) => Orders::decode(&bytes),
        Err(error) => return error,
    };
    let Some(orders) = orders else {
        return wrong();
    };
    let mut fds = fds.iter().map(AsFd::as_fd);
    let mut output = |wanted: bool| wanted.then(|| fds.next()).flatten();
    let (stdout, stderr) = (output(orders.output.0), output(orders.output.1));
    let process = Process {
        program: orders.program,
        args: orders.args,
        env: orders.env,
        chdir: orders.chdir,
        user: orders
            .user
            .as_ref()
            .map(|(uid, gid, groups)| (*uid, *gid, &groups[..])),
        umask: orders.umask,
        stdout,
        stderr,
        fds: fds.collect(),
    };
    sys::become_process(&process, &report, Pid::from_raw(orders.master))
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

    fn texts(all: &[&str]) -> Vec<CString> {
        all.iter()
            .map(|text| CString::new(*text).expect("no NUL"))
            .collect()
    }

    #[test]
    fn orders_come_as_they_were_given_or_not_at_all() {
        let all = Orders {
            master: 7,
            user: Some((33, 34, vec![1, 2])),
            umask: Some(0o27),
            output: (false, true),
            program: c"/bin/sh".into(),
            chdir: c"/srv/\xff".into(),
            args: texts(&["sh", "-c", "", "a\nb"]),
            env: texts(&["A=1", "B="]),
        };
        let few = Orders {
            user: None,
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
