//! The rows of raw bytes with real processes: an application in Python gets the same requests through a site as from the listener of its own
//! workers, and none that these refuse.

#[allow(dead_code, reason = "the limits of the rows are in the configuration")]
#[path = "../../http/tests/rows/mod.rs"]
mod rows;

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Only so that a test that hangs fails.
const GUARD: Duration = Duration::from_secs(60);

/// Answers with what it was asked, and at /mark with all that it was asked since the last one.
const APPLICATION: &str = r#"
SEEN = []


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    words = [environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], body.decode("latin-1")]
    if words[1] == "/mark":
        text = "".join(SEEN)
        SEEN.clear()
    else:
        text = " ".join(words) + ";"
        SEEN.append(text)
    data = text.encode("latin-1")
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]
"#;

/// The limits of the rows, as keys of an app and of the front.
const LIMITS: &str = "max_head = '2KiB'\nmax_headers = 20\nmax_body = '100B'\n";

/// The programs of this build: the manager, the front and the extension, in one folder.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet"]);
    cargo.args(["preforkd", "preforkd-front", "preforkd-python"].map(|name| format!("-p{name}")));
    cargo.arg("--target-dir").arg(folder.parent().unwrap());
    cargo.args((folder.file_name() == Some("release".as_ref())).then_some("--release"));
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.unwrap().success());
    folder.into()
}

/// A master with an app that has a listener of its own, and one that only a site reaches.
struct Master {
    folder: tempfile::TempDir,
    process: Child,
}

impl Master {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let app = "wsgi = 'asked:application'\npython = 'python3'\nworkers = 1\n";
        // The workers behind the site have the same limits, which do not speak of what the front adds.
        let config = format!(
            "[app.direct]\nlisten = 'unix:direct'\n{app}{LIMITS}[app.web]\n{app}{LIMITS}\
             [site.all]\nlisten = 'unix:site'\napp = 'web'\n[front]\nworkers = 1\nhttp2 = false\n{LIMITS}"
        );
        std::fs::write(path("app.toml"), config).unwrap();
        std::fs::write(path("asked.py"), APPLICATION).unwrap();
        let init = UnixDatagram::bind(path("notify")).unwrap();
        init.set_read_timeout(Some(GUARD)).unwrap();
        let process = Command::new(programs().join("preforkd"))
            .arg("-c")
            .arg(path("app.toml"))
            .env("NOTIFY_SOCKET", path("notify"))
            .env_remove("LISTEN_FDS")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let master = Self { folder, process };
        let mut message = [0; 4096];
        loop {
            let length = init.recv(&mut message).unwrap();
            if message[..length]
                .split(|b| *b == b'\n')
                .any(|line| line == b"READY=1")
            {
                return master;
            }
        }
    }

    fn connect(&self, socket: &str) -> Client {
        let stream = UnixStream::connect(self.folder.path().join(socket)).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let buffer = Vec::new();
        Client { stream, buffer }
    }

    /// What the application was asked since it was asked this the last time.
    fn asked(&self, socket: &str) -> String {
        let mut client = self.connect(socket);
        client.send(b"GET /mark HTTP/1.1\r\nHost: a\r\n\r\n");
        let (status, body) = client.answer().unwrap();
        assert_eq!(status, "200");
        body
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // The guard ends what it leaves.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    /// It may be refused before all of it was sent.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Status and body of the next response; none at the end.
    fn answer(&mut self) -> Option<(String, String)> {
        loop {
            let text = String::from_utf8_lossy(&self.buffer);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let status = head.split(' ').nth(1).unwrap().to_owned();
                let lower = head.to_ascii_lowercase();
                let length = lower.split("content-length: ").nth(1);
                let length: usize = length.map_or(0, |rest| {
                    rest.lines().next().unwrap().trim().parse().unwrap()
                });
                if status == "100" {
                    let at = head.len() + 4;
                    self.buffer.drain(..at);
                    continue;
                }
                if rest.len() >= length {
                    let body = rest[..length].to_owned();
                    let at = head.len() + 4 + length;
                    self.buffer.drain(..at);
                    return Some((status, body));
                }
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn an_application_gets_the_same_through_a_site_and_nothing_that_is_refused_without_one() {
    let master = Master::start();
    let mut checked = 0;
    rows::all(&mut |why, input, expected| {
        let shown = input.escape_ascii();
        let end = expected.rsplit_once(';').map_or(expected, |(_, end)| end);
        let requests = expected.matches(';').count();
        let [direct, through] = ["direct", "site"].map(|socket| {
            let mut client = master.connect(socket);
            client.send(input);
            let mut statuses = Vec::new();
            for _ in 0..requests {
                statuses.push(client.answer().map(|(status, _)| status));
            }
            if end != "wait" {
                while let Some((status, _)) = client.answer() {
                    statuses.push(Some(status));
                }
            }
            drop(client);
            (statuses, master.asked(socket))
        });
        assert_eq!(
            direct.1.matches(';').count(),
            requests,
            "{why}: {shown}: {direct:?}"
        );
        assert_eq!(through, direct, "{why}: {shown}");
        checked += 1;
    });
    assert!(checked > 200, "{checked}");
}
