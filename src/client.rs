//! The client of the control socket: `preforkd status`, `reload`, `scale`, `stop`, `reopen`.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The time to wait for an answer that a master gives at once, unless it is suspended or the host is overloaded.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a request to the master at `socket` and waits for its answer.
///
/// # Errors
/// No master listens there, or it refuses the request. The message is for people.
pub fn ask(socket: &Path, request: &str) -> Result<String, String> {
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        format!(
            "cannot reach a master at {}: {error} (does preforkd run with this configuration?)",
            socket.display()
        )
    })?;
    // Reload, scale and stop have no time limit.
    let takes_time = matches!(request, "reload" | "stop") || request.starts_with("scale ");
    let timeout = (!takes_time).then_some(TIMEOUT);
    // This fails only for a time of zero.
    let _ = stream.set_read_timeout(timeout);
    let mut answer = String::new();
    let asked = writeln!(stream, "{request}").and_then(|()| stream.read_to_string(&mut answer));
    asked.map_err(|error| format!("the master does not answer: {error}"))?;
    match answer.split_once('\n') {
        Some(("ok", rest)) => Ok(rest.trim_end().to_owned()),
        Some((first, _)) if first.starts_with("error ") => Err(first["error ".len()..].to_owned()),
        _ if answer.is_empty() => Err(
            "the master has closed the connection (run this as the master's user or as root)"
                .into(),
        ),
        _ => Err(format!(
            "unexpected answer from the master (is it another version of preforkd?): {}",
            answer.trim_end()
        )),
    }
}

/// A warning if the master reads another configuration file than the one that was named to the client.
pub fn difference(masters: &Path, ours: &Path) -> Option<String> {
    let identity = |path: &Path| {
        let found = path.metadata().ok()?;
        Some((found.dev(), found.ino()))
    };
    // A master that is older or of another user may name a path that cannot be examined here.
    let same = masters == ours || identity(masters).is_some_and(|id| Some(id) == identity(ours));
    (!same).then(|| {
        format!(
            "warning: the master reads {}, not {} (use that path, or restart preforkd with this one)",
            masters.display(),
            ours.display()
        )
    })
}

/// The answer to `status` as a table.
pub fn table(status: &Value) -> String {
    let mut text = String::new();
    let of = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "preforkd {} pid {}: {}, generation {}",
        of(&status["version"]),
        of(&status["pid"]),
        of(&status["phase"]),
        of(&status["generation"])
    );
    if let Some(refused) = status["refused"].as_str() {
        let _ = writeln!(text, "{refused}");
    }
    for app in status["apps"].as_array().into_iter().flatten() {
        let _ = writeln!(
            text,
            "\n{}: {}/{} ready{}{}",
            of(&app["name"]),
            of(&app["ready"]),
            of(&app["wanted"]),
            if app["given_up"] == true {
                ", given up until the next reload"
            } else {
                ""
            },
            if app["paused"] == true {
                ", paused until the next reload"
            } else {
                ""
            },
        );
        let _ = writeln!(
            text,
            "  {:>4} {:>4} {:>8} {:>9} {:>9} {:>10} {:>7} {:>5}  state",
            "slot", "gen", "pid", "age", "memory", "requests", "errors", "conns"
        );
        for worker in app["workers"].as_array().into_iter().flatten() {
            let age = worker["age"]
                .as_f64()
                .map(|age| Duration::from_secs(age as u64));
            let age = age.map_or("-".into(), |age| {
                humantime::format_duration(age).to_string().replace(' ', "")
            });
            let memory = worker["memory"]
                .as_u64()
                .map_or("-".into(), |bytes| bytesize::ByteSize(bytes).to_string());
            let mut state = of(&worker["state"]);
            if let (Some(busy), Some(request)) =
                (worker["busy"].as_f64(), worker["request"].as_str())
            {
                let _ = write!(state, ", {busy:.1}s in {request}");
            }
            if let Some(status) = worker["said"].as_str() {
                let _ = write!(state, ", status: {status}");
            }
            let _ = writeln!(
                text,
                "  {:>4} {:>4} {:>8} {age:>9} {memory:>9} {:>10} {:>7} {:>5}  {state}",
                of(&worker["slot"]),
                of(&worker["generation"]),
                of(&worker["pid"]),
                of(&worker["requests"]),
                of(&worker["errors"]),
                of(&worker["connections"]),
            );
        }
    }
    text
}
