//! What the log says: of each process with its app, slot, generation and pid, of each death why.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::children::Child;
use crate::signals::describe;
use crate::supervisor::{Counts, Reason};
use crate::sys::Stage;

/// `app=web worker=3 gen=2 pid=4711`
pub struct Tag<'a>(pub &'a Child, pub Pid);

impl fmt::Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Child {
            app,
            slot,
            generation,
            ..
        } = self.0;
        write!(f, "app={app} worker={slot} gen={generation} pid={}", self.1)
    }
}

/// What a failed start was about, in words that follow "failed at".
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Session => "making a session",
        Stage::Descriptors => "passing the descriptors",
        Stage::Group => "changing the group",
        Stage::User => "changing the user",
        Stage::Chdir => "changing to the working directory",
        Stage::Exec => "executing the program",
    }
}

/// Why a worker died.
pub fn death(child: &Child, status: WaitStatus, now: Instant, out_of_memory: bool) -> String {
    let ended = match out_of_memory {
        true => "killed by the kernel, as memory ran out (SIGKILL)".to_owned(),
        false => describe(status),
    };
    let age = short(now.saturating_duration_since(child.asked_for));
    let Some((signal, reason)) = child.told else {
        let by = match status {
            WaitStatus::Signaled(..) if !out_of_memory => ", not by preforkd",
            _ => "",
        };
        return if child.ready {
            format!("{ended}{by}, after {age}")
        } else {
            format!("{ended}{by}, before it was ready, after {age}")
        };
    };
    let why = reason_text(reason);
    match (signal, status) {
        (
            Signal::SIGTERM,
            WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, Signal::SIGTERM, _),
        ) => {
            format!("ended ({why})")
        }
        _ => format!("{ended} after our {signal} ({why})"),
    }
}

/// What a process said last, to follow how it died.
pub fn last_words(words: Option<&str>) -> String {
    words.map_or(String::new(), |words| format!(" (its last words: {words})"))
}

/// A reason as the log says it.
pub fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Stop => "stop",
        Reason::Replaced => "a newer generation took over",
        Reason::Removed => "its app is no longer configured",
        Reason::Recycled => "a fresh worker took its place",
        Reason::ScaledDown => "fewer workers are wanted",
        Reason::Paused => "paused",
        Reason::RolledBack => "its generation was rolled back",
        Reason::StartTimeout => "not ready within start_timeout",
        Reason::GracefulTimeout => "not ended within graceful_timeout",
        Reason::MaxDraining => "more generations than max_draining still drained",
        Reason::Hung => "hangs",
        Reason::AbortGrace => "not dead of SIGABRT in time",
    }
}

/// One line on all apps: `web 4/4 ready, queue 0/1 ready (1 starting)`.
pub fn status<'a>(apps: impl Iterator<Item = (&'a str, Counts, bool)>) -> String {
    let describe = |(name, counts, given_up): (&str, Counts, bool)| {
        let mut text = format!("{name} {}/{} ready", counts.ready, counts.wanted);
        let rest = [(counts.starting, "starting"), (counts.leaving, "leaving")];
        let rest: Vec<_> = rest
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        if !rest.is_empty() {
            text += &format!(" ({})", rest.join(", "));
        }
        if given_up {
            text += ", given up";
        }
        text
    };
    apps.map(describe).collect::<Vec<_>>().join("; ")
}

/// A time for the log: "350ms", "4.2s", "1h 3m 20s".
pub fn short(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{}ms", time.as_millis())
    } else if time < Duration::from_secs(60) {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_why_a_worker_died() {
        let now = Instant::now();
        let pid = Pid::from_raw(9);
        let mut child = Child {
            slot: 3,
            generation: 2,
            asked_for: now,
            ..Child::example(0)
        };
        let later = now + Duration::from_millis(1500);
        assert_eq!(Tag(&child, pid).to_string(), "app=web worker=3 gen=2 pid=9");
        let killed = WaitStatus::Signaled(pid, Signal::SIGKILL, false);
        let (good, bad) = (WaitStatus::Exited(pid, 0), WaitStatus::Exited(pid, 1));
        assert_eq!(
            death(&child, bad, later, false),
            "exited with status 1, before it was ready, after 1.5s"
        );
        child.ready = true;
        assert_eq!(
            death(&child, killed, later, false),
            "killed by SIGKILL, not by preforkd, after 1.5s"
        );
        assert_eq!(
            death(&child, killed, later, true),
            "killed by the kernel, as memory ran out (SIGKILL), after 1.5s"
        );
        child.told = Some((Signal::SIGTERM, Reason::Stop));
        assert_eq!(death(&child, good, later, false), "ended (stop)");
        assert_eq!(
            death(&child, bad, later, false),
            "exited with status 1 after our SIGTERM (stop)"
        );
        child.told = Some((Signal::SIGKILL, Reason::GracefulTimeout));
        assert_eq!(
            death(&child, killed, later, false),
            "killed by SIGKILL after our SIGKILL (not ended within graceful_timeout)"
        );
    }

    #[test]
    fn the_status_names_every_app_and_what_is_not_as_wanted() {
        let all = Counts {
            wanted: 4,
            ready: 4,
            ..Counts::default()
        };
        let some = Counts {
            wanted: 2,
            ready: 1,
            starting: 1,
            leaving: 3,
        };
        assert_eq!(
            status([("queue", some, true), ("web", all, false)].into_iter()),
            "queue 1/2 ready (1 starting, 3 leaving), given up; web 4/4 ready"
        );
    }
}
