//! Programs that a test makes and executes at once.
//!
//! The kernel executes no file that a process has open for writing (ETXTBSY, execve(2)). A test that writes one itself has it open for
//! a moment, and so has each process that another thread of the tests forks in that moment, until it executes something. So another
//! process writes them, which forks nothing.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let mut copy = Command::new("cp");
    copy.arg("--").arg(from.as_ref()).arg(to.as_ref());
    assert!(copy.status().expect("cp is there").success());
}

/// Writes a script.
pub fn write_script(path: impl AsRef<Path>, text: &str) {
    let mut write = Command::new("sh");
    write.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]);
    let write = write.arg(path.as_ref()).stdin(Stdio::piped());
    let mut write = write.spawn().expect("sh is there");
    let stdin = write.stdin.take();
    let mut stdin = stdin.expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    assert!(write.wait().expect("it is ours").success());
}
