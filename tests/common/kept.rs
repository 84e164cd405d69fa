//! Connections of clients over TLS that stay open.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::Run;

/// A connection over TLS that stays open, by openssl(1).
pub struct Kept {
    client: Child,
    answers: BufReader<ChildStdout>,
    host: String,
}

impl Kept {
    /// Connects to the socket `tls.sock` and asks for a certificate of this host.
    pub fn open(run: &Run, host: &str) -> Self {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-servername", host, "-unix"])
            .arg(run.path("tls.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let answers = BufReader::new(client.stdout.take().expect("a pipe"));
        Self {
            client,
            answers,
            host: host.to_owned(),
        }
    }

    /// Asks for a page. Returns the status line.
    pub fn ask(&mut self) -> String {
        let stdin = self.client.stdin.as_mut().expect("a pipe");
        let request = format!("GET /echo HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        stdin.write_all(request.as_bytes()).expect("it is read");
        let mut line = || {
            let mut line = String::new();
            self.answers.read_line(&mut line).expect("text");
            line.trim_end().to_owned()
        };
        let (status, mut length) = (line(), 0);
        loop {
            let line = line();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("Content-Length: ") {
                length = text.parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.answers.read_exact(&mut body).expect("a body");
        status
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
