//! Runs the process that speaks with a certificate authority, without the rights of the master, and takes its answer. Waits: for a helper process.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::plan::Credentials;

/// A little longer than it gives itself.
const MOST: Duration = Duration::from_secs(200);

/// The largest answer, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// What names the authorities that the system trusts.
const TRUSTED: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Hands `input` to `preforkd-front acme`, and returns its answer.
///
/// # Errors
/// It cannot be started as this user, takes too long, or its answer is too long or not UTF-8.
pub fn ask(program: &Path, user: Option<&Credentials>, input: &str) -> io::Result<String> {
    let trusted = TRUSTED.iter();
    let trusted = trusted.filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command
        .arg("acme")
        .env_clear()
        .envs(trusted)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(user) = user {
        // Of the groups, none but this one stays: std::os::unix::process::CommandExt.
        command.uid(user.uid).gid(user.gid);
    }
    let mut child = command.spawn()?;
    let answer = converse(&mut child, input);
    // It has nothing left to do, or too much.
    let _ = child.kill();
    let _ = child.wait();
    let answer = String::from_utf8(answer?);
    answer.map_err(|_| io::Error::other("its answer is not UTF-8"))
}

fn converse(child: &mut Child, input: &str) -> io::Result<Vec<u8>> {
    if let Some(mut pipe) = child.stdin.take() {
        // One that does not read it says nothing either.
        let _ = pipe.write_all(input.as_bytes());
    }
    let until = Instant::now() + MOST;
    let mut answer = Vec::new();
    let mut piece = [0; 8192];
    let Some(mut pipe) = child.stdout.take() else {
        return Ok(answer);
    };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(io::Error::other("it does not end")),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match pipe.read(&mut piece)? {
            0 => return Ok(answer),
            n if answer.len() + n > MOST_BYTES => {
                return Err(io::Error::other("its answer is too long"));
            }
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
}
