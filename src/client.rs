//! The client of the control socket: `preforkd status`, `reload`, `scale`, `stop`, `reopen`.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;
use serde_json::Value;

use crate::sys;

pub mod find;

/// The time to wait for an answer that a master gives at once, unless it is suspended or the host is overloaded.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time that a master which is killed takes from the end of its connections to its own.
const SHORTLY: Duration = Duration::from_millis(500);

/// Sends a request over a connection to a master, and returns the lines of its answer, which goes on until the master ends.
///
/// # Errors
/// The master refuses the request, or has closed the connection. The message is for people.
pub fn follow(
    stream: UnixStream,
    request: &str,
) -> Result<impl Iterator<Item = io::Result<String>>, String> {
    let silent = |error| format!("the master does not answer: {error}");
    writeln!(&stream, "{request}").map_err(silent)?;
    let mut lines = BufReader::new(stream).lines();
    match lines.next() {
        Some(Ok(line)) if line == "ok" => Ok(lines),
        Some(Ok(line)) => Err(line.strip_prefix("error ").unwrap_or(&line).to_owned()),
        Some(Err(error)) => Err(silent(error)),
        None => Err("the master has closed the connection".to_owned()),
    }
}

/// Sends a request over a connection to a master and waits for the answer.
///
/// # Errors
/// The master refuses the request. The message is for people.
pub fn ask(mut stream: UnixStream, request: &str) -> Result<String, String> {
    // These have no time limit.
    let takes_time = ["reload", "plan", "start", "restart", "stop", "scale"];
    let first = request.split(' ').next().unwrap_or_default();
    let takes_time = takes_time.contains(&first);
    let timeout = (!takes_time).then_some(TIMEOUT);
    // This fails only for a time of zero.
    let _ = stream.set_read_timeout(timeout);
    let master = Process::at(&stream);
    let mut answer = String::new();
    let asked = writeln!(stream, "{request}").and_then(|()| stream.read_to_string(&mut answer));
    if answer.is_empty()
        && let Some(master) = master.filter(|master| master.ends_within(SHORTLY))
    {
        return Err(format!(
            "the master, pid {}, has ended before it answered, because it was killed or has crashed; whether it has done what was asked is not known (see its log)",
            master.pid
        ));
    }
    asked.map_err(|error| format!("the master does not answer: {error}"))?;
    match answer.split_once('\n') {
        Some(("ok", rest)) => Ok(rest.trim_end().to_owned()),
        Some((first, _)) if first.starts_with("error ") => Err(first["error ".len()..].to_owned()),
        _ if answer.is_empty() => Err(
            "the master has closed the connection (run this as the master's user or as root)"
                .into(),
        ),
        _ => Err(format!(
            "unexpected answer (is it another version of preforkd, or no control socket of preforkd?): {}",
            answer.trim_end()
        )),
    }
}

/// Asks a master to stop, and waits for the end of its process: what is started next finds its addresses and its files free.
///
/// # Errors
/// As those of [`ask`].
pub fn stop(stream: UnixStream) -> Result<(), String> {
    let master = Process::at(&stream);
    ask(stream, "stop")?;
    // It has stopped in any case.
    let _ = master.map(|master| master.ends_within(TIMEOUT));
    Ok(())
}

/// The process of a master.
struct Process {
    pid: Pid,
    /// Ready when it has ended.
    end: OwnedFd,
}

impl Process {
    /// The one at the other end of a connection, if it can be watched. The number of a process in another namespace is 0 here:
    /// pid_namespaces(7).
    fn at(stream: &UnixStream) -> Option<Self> {
        let peer = getsockopt(stream, sockopt::PeerCredentials).ok()?;
        Self::of(Pid::from_raw(peer.pid()))
    }

    /// The one with this number, if it runs.
    fn of(pid: Pid) -> Option<Self> {
        let end = sys::watch_process(pid).ok()?;
        Some(Self { pid, end })
    }

    /// Whether it ends within this time.
    fn ends_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, limit) == Ok(1)
    }
}

/// Whether everything is as wanted, by the answer to `status`.
pub fn is_ready(status: &Value) -> bool {
    let is_well = |app: &Value| {
        let number = |key: &str| app[key].as_u64().unwrap_or(0);
        number("ready") + number("finished") >= number("wanted")
            && app["given_up"] != true
            && app["paused"] != true
            && app["check_fails"] != true
    };
    let phase = status["phase"].as_str();
    let mut apps = status["apps"].as_array().into_iter().flatten();
    let mut scheduled = status["scheduled"].as_array().into_iter().flatten();
    matches!(phase, Some("ready" | "reloading"))
        && apps.all(is_well)
        && scheduled.all(|app| app["not_run"].is_null())
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
        let _ = writeln!(text, "\n{}: {}", of(&app["name"]), state(app));
        let workers = app["workers"].as_array();
        if workers.is_some_and(|workers| !workers.is_empty()) {
            let _ = writeln!(
                text,
                "  {:>4} {:>4} {:>8} {:>9} {:>9} {:>10} {:>7} {:>5}  state",
                "slot", "gen", "pid", "age", "memory", "requests", "errors", "conns"
            );
        }
        for worker in workers.into_iter().flatten() {
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
            if let Some(address) = worker["address"].as_str() {
                let _ = write!(state, ", at {address}");
            }
            if let Some(why) = worker["check_failed"].as_str() {
                let _ = write!(state, ", check failed: {why}");
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
    let sites = status["sites"].as_array();
    for (number, site) in sites.into_iter().flatten().enumerate() {
        let _ = match number {
            0 => writeln!(text, "\nsites:"),
            _ => Ok(()),
        };
        let _ = writeln!(text, "  {}", of_site(site));
    }
    for app in status["scheduled"].as_array().into_iter().flatten() {
        let _ = write!(text, "\n{}", scheduled(app));
    }
    text
}

/// The line of a site.
fn of_site(site: &Value) -> String {
    let of = |key: &str| site[key].as_u64().unwrap_or_default();
    let name = site["name"].as_str().unwrap_or("-");
    let counted = |key: &str, one: &str| match of(key) {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    };
    let (requests, errors) = (counted("requests", "request"), counted("errors", "error"));
    let mut text = format!("{name}: {requests}, {errors}");
    match of("connections") {
        0 => {}
        1 => text += ", 1 connection open",
        connections => text += &format!(", {connections} connections open"),
    }
    if of("upstreams") > 0 {
        text += &format!(
            ", {}/{} upstreams take requests",
            of("available"),
            of("upstreams")
        );
    }
    match of("waiting") {
        0 => {}
        1 => text += ", 1 request waits",
        waiting => text += &format!(", {waiting} requests wait"),
    }
    text
}

/// The lines of an app with a schedule.
fn scheduled(app: &Value) -> String {
    let of = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let time = |value: &Value| {
        let seconds = value.as_f64().unwrap_or_default();
        match Duration::try_from_secs_f64(seconds) {
            Ok(long) if seconds >= 60.0 => {
                humantime::format_duration(Duration::from_secs(long.as_secs())).to_string()
            }
            _ => format!("{seconds:.1}s"),
        }
    };
    let next = match (app["not_run"].as_str(), app["paused"] == true) {
        (Some(why), _) => format!("none, not run until the next reload: {why}"),
        (None, true) => "none, paused until the next reload".to_owned(),
        (None, false) => of(&app["next"]),
    };
    let mut text = format!(
        "{}: runs at {} ({})\n  next run: {next}\n",
        of(&app["name"]),
        of(&app["cron"]),
        of(&app["timezone"])
    );
    let running = &app["running"];
    if let Some(pid) = running["pid"].as_i64() {
        let left_out = match running["left_out"].as_u64() {
            None | Some(0) => String::new(),
            Some(1) => ", one time left out meanwhile".into(),
            Some(number) => format!(", {number} times left out meanwhile"),
        };
        let age = time(&running["age"]);
        let _ = writeln!(text, "  running: pid {pid}, for {age}{left_out}");
    }
    let last = &app["last"];
    if let Some(began) = last["began"].as_str() {
        let result = match last["why"].as_str() {
            None => format!("succeeded after {}", time(&last["time"])),
            Some(why) => format!("failed: {why}"),
        };
        let _ = writeln!(text, "  last run: {began}, {result}");
    }
    text
}

fn number(app: &Value, what: &str) -> String {
    match app[what].as_u64() {
        None | Some(0) => String::new(),
        Some(number) => format!(", {number} {what}"),
    }
}

/// The state of an app as a whole.
fn state(app: &Value) -> String {
    if let Some(by) = app["stopped"].as_str() {
        return format!("stopped {by}");
    }
    let mut text = format!("{}/{} ready", app["ready"], app["wanted"]);
    text += &(number(app, "finished") + &number(app, "failed") + &failing(app));
    if app["check_fails"] == true {
        text += ", check fails";
    }
    if app["given_up"] == true {
        let name = app["name"].as_str().unwrap_or("APP");
        let what = match app["not_started"].is_null() {
            true => "given up",
            false => "not started",
        };
        text += &format!(", {what} until the next reload or `preforkd start {name}`");
    }
    if let Some(what) = app["waits_for"].as_str() {
        text += &format!(", waiting for {what}");
    }
    if app["paused"] == true {
        text += ", paused until the next reload";
    }
    if app["held"] == true {
        text += ", waiting for its command `before` or its task";
    }
    if let Some(why) = app["not_started"].as_str() {
        text += &format!(": {why}");
    }
    text
}

/// When an app that fails is tried again, to follow its numbers.
fn failing(app: &Value) -> String {
    match app["retry_in"].as_f64() {
        Some(wait) if wait > 0.0 => format!(", failing, retrying in {}s", wait.ceil()),
        Some(_) => ", failing, retrying now".into(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_means_that_all_apps_are_as_wanted() {
        let status = |phase, ready, given_up, paused| {
            let app = json!({"ready": ready, "wanted": 2, "given_up": given_up, "paused": paused});
            let good = json!({"ready": 0, "wanted": 0, "given_up": false, "paused": false});
            json!({"phase": phase, "apps": [good, app]})
        };
        for (phase, ready, given_up, paused, expected) in [
            ("ready", 2, false, false, true),
            ("reloading", 3, false, false, true),
            ("ready", 1, false, false, false),
            ("ready", 2, true, false, false),
            ("ready", 2, false, true, false),
            ("starting", 2, false, false, false),
            ("stopping", 2, false, false, false),
        ] {
            let status = status(phase, ready, given_up, paused);
            assert_eq!(is_ready(&status), expected, "{status}");
        }
        assert!(!is_ready(&json!({})));
        for (finished, failed, expected) in [(2, 0, true), (1, 1, false)] {
            let app = json!({"name": "a", "ready": 0, "wanted": 2, "finished": finished, "failed": failed});
            let status = json!({"phase": "ready", "apps": [app]});
            assert_eq!(is_ready(&status), expected, "{status}");
            let shown = table(&status);
            let said = format!("a: 0/2 ready, {finished} finished");
            assert!(shown.contains(&said), "{shown}");
            assert_eq!(shown.contains(", 1 failed"), failed == 1, "{shown}");
            assert!(!shown.contains("slot"), "no table of nothing: {shown}");
        }
    }

    #[test]
    fn a_site_has_a_line() {
        let mut site = json!({"name": "shop", "requests": 7, "errors": 1, "waiting": 0, "upstreams": 0, "available": 0});
        let status = json!({"phase": "ready", "sites": [site.clone()]});
        let shown = table(&status);
        assert!(
            shown.ends_with("\nsites:\n  shop: 7 requests, 1 error\n"),
            "{shown}"
        );
        (site["upstreams"], site["available"], site["waiting"]) = (3.into(), 2.into(), 5.into());
        site["connections"] = 4.into();
        let all = "shop: 7 requests, 1 error, 4 connections open, 2/3 upstreams take requests, 5 requests wait";
        assert_eq!(of_site(&site), all);
    }

    #[test]
    fn an_app_with_a_schedule_shows_its_next_and_its_last_run() {
        let at = |minute| format!("2026-11-27 01:{minute}:00 +00:00");
        let mut app = json!({"name": "backup", "cron": "@hourly", "timezone": "UTC", "next": at("10"), "paused": false});
        assert_eq!(
            scheduled(&app),
            "backup: runs at @hourly (UTC)\n  next run: 2026-11-27 01:10:00 +00:00\n"
        );
        app["running"] = json!({"pid": 7, "age": 3725.5, "left_out": 2});
        app["last"] = json!({"began": at("05"), "time": 4.25, "succeeded": true, "why": null});
        let shown = scheduled(&app);
        let running = "  running: pid 7, for 1h 2m 5s, 2 times left out meanwhile\n";
        let last = "  last run: 2026-11-27 01:05:00 +00:00, succeeded after 4.2s\n";
        assert!(shown.ends_with(&format!("{running}{last}")), "{shown}");
        app["last"]["why"] = "exited with status 3 after 4.2s".into();
        app["paused"] = true.into();
        let shown = scheduled(&app);
        assert!(shown.contains("next run: none, paused"), "{shown}");
        assert!(
            shown.ends_with("failed: exited with status 3 after 4.2s\n"),
            "{shown}"
        );
        app["not_run"] = "cannot write x.log".into();
        let shown = scheduled(&app);
        let why = "next run: none, not run until the next reload: cannot write x.log\n";
        assert!(shown.contains(why), "{shown}");
        let status = |app: &Value| json!({"phase": "ready", "apps": [], "scheduled": [app]});
        assert!(!is_ready(&status(&app)));
        app["not_run"] = Value::Null;
        assert!(is_ready(&status(&app)));
    }
}
