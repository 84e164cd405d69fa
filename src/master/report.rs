//! The texts of log lines and of the status: the tag of each process (app, slot, generation and pid), the reason of each death.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::workers::children::Child;
use super::world::Exit;
use crate::config::Address;
use crate::supervisor::{Action, Counts, Readiness, Reason, Replace, Supervisor};

/// The maximum length of the status line, in characters: the init system accepts messages of up to 4096 bytes.
const MAX_STATUS: usize = 1000;

/// Whether the workers of an app fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// They do not.
    Well,
    /// Their repeated checks fail, although they are replaced for that.
    CheckFails,
    /// They wait for what an earlier master has left.
    Waits,
    /// The same, and one has failed beside that.
    FailedBeside,
    /// They are started when others are ready.
    Later,
    /// They are tried again.
    Failing,
    /// They are not.
    GivenUp,
    /// They are not, as something is missing that they need.
    NotStarted,
}

impl Health {
    /// That of an app. Failures that left it all its workers do not count.
    pub fn of(app: &Supervisor) -> Self {
        let counts = app.counts();
        match app.is_given_up() {
            true => Self::GivenUp,
            false if app.is_in_trouble() && counts.ready + counts.finished < counts.wanted => {
                Self::Failing
            }
            false => Self::Well,
        }
    }
}

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

/// The end of a process, and why its program could not be executed.
pub fn ended(exit: Exit, not_executed: Option<&str>) -> String {
    not_executed.map_or(exit.to_string(), |why| {
        format!("{exit} (its start failed: {why})")
    })
}

/// A number of processes in words.
pub fn processes(number: usize) -> String {
    match number {
        1 => "a process".into(),
        number => format!("{number} processes"),
    }
}

/// What to do about a program that was not ready in time. Only one that has to send the message can be late.
const NEVER_READY: &str = ": it never sent READY=1 (see `ready` in preforkd.toml(5): \"exec\" or a time such as \"5s\" for a program that does not send it)";

/// The cause of a worker's death.
pub fn death(child: &Child, exit: Exit, now: Instant, out_of_memory: bool) -> String {
    let ended = match out_of_memory {
        true => "killed by the kernel because memory ran out (SIGKILL)".to_owned(),
        false => ended(exit, child.not_executed.as_deref()),
    };
    let age = short(now.saturating_duration_since(child.asked_for));
    let Some((signal, why)) = child.signalled else {
        let by = match exit {
            Exit::Signal(..) if !out_of_memory => ", not by preforkd",
            _ => "",
        };
        return match child.ready_at {
            Some(_) => format!("{ended}{by}, after {age}"),
            None => format!("{ended}{by}, before it was ready, after {age}"),
        };
    };
    // Programs of others do not know how to say that they are ready, and `ready` tells when they count as that.
    let hint = match why {
        Reason::StartTimeout
            if !child.plan.output.taken_over
                && child.plan.policy.readiness != Readiness::Finished =>
        {
            NEVER_READY
        }
        _ => "",
    };
    let why = reason_for(child, why);
    if signal != Signal::SIGTERM {
        return format!("{ended} after our {signal} ({why}){hint}");
    }
    let end = Signal::from(child.plan.stop.signal);
    match exit {
        Exit::Status(0) => format!("ended ({why})"),
        Exit::Signal(by, _) if by == end => format!("ended ({why})"),
        _ => format!("{ended} after our {end} ({why})"),
    }
}

/// What a worker's end means when this number of its processes go on.
pub fn background(number: usize) -> String {
    let verb = if number == 1 { "goes" } else { "go" };
    let rest = processes(number);
    format!(
        ", while {rest} of it {verb} on: it puts itself into the background (start it in the foreground; for nginx: -g 'daemon off;')"
    )
}

/// The end in good order of a worker that is not replaced then.
pub fn finished(child: &Child, now: Instant) -> String {
    let age = short(now.saturating_duration_since(child.asked_for));
    format!("finished after {age}")
}

/// The consequence of a death; `wait` is the time until a replacement may start, if one is needed.
pub fn consequence(actions: &[Action], wait: Option<Duration>) -> String {
    follows(actions, wait).unwrap_or_else(|| "not replaced now".into())
}

/// What follows from a death for the app, if anything.
pub fn follows(actions: &[Action], wait: Option<Duration>) -> Option<String> {
    let any = |which: fn(&Action) -> bool| actions.iter().any(which);
    if any(|action| matches!(action, Action::Failed(_))) {
        return Some("its generation has failed".into());
    }
    if any(|action| matches!(action, Action::GaveUp(_))) {
        return Some("its app is given up".into());
    }
    if any(|action| matches!(action, Action::Spawn { .. })) {
        return Some("starting a replacement".into());
    }
    let wait = wait.filter(|wait| !wait.is_zero())?;
    Some(format!("retrying in {}", short(wait)))
}

/// What starts an app again that is given up.
pub fn again(app: &str) -> String {
    format!("the next reload or `preforkd start {app}`")
}

/// The last output of a process, to follow the cause of its death.
pub fn last_output(output: Option<&str>) -> String {
    output.map_or(String::new(), |output| {
        format!(" (its last output: {output})")
    })
}

/// What to look at if a Python worker ended at its start of itself and wrote nothing that explains it.
pub fn silence(child: &Child, exit: Exit) -> Option<String> {
    let is_python = child.plan.threads.is_some();
    let of_itself = matches!(exit, Exit::Status(_)) && child.signalled.is_none();
    let started = child.ready_at.is_some() || child.not_executed.is_some();
    (is_python && of_itself && !started).then(|| {
        format!(
            " (it wrote no error; check that {} is a Python interpreter, and that the application does not end the process)",
            child.plan.launch.program.display()
        )
    })
}

/// What to do about a program that was started beside the old one and could not bind the same address.
pub fn address_in_use(child: &Child, output: &str) -> &'static str {
    let said = ["address already in use", "eaddrinuse"];
    let output = output.to_ascii_lowercase();
    let beside = child.plan.policy.replace == Replace::StartFirst;
    match beside && said.iter().any(|said| output.contains(said)) {
        true => {
            " (the old one still has it: for a program that binds an address itself, see `replace` in preforkd.toml(5))"
        }
        false => "",
    }
}

/// Why no listener can be bound to an address that a worker of ours has.
pub fn held_by(address: &Address, app: &str) -> String {
    format!("cannot listen on {address}: a worker of {app} has it (`preforkd stop {app}` frees it)")
}

/// A listener is not one of any app any more.
pub fn no_longer_listening(address: &Address) -> String {
    match address {
        // Its accept queue takes connections as long as the init system has it.
        Address::Inherited(_) => format!(
            "no app accepts connections at {address} any more; the init system keeps it open"
        ),
        _ => format!("no longer listening on {address}"),
    }
}

/// The text of a reason to end this worker, in log lines.
pub fn reason_for(child: &Child, why: Reason) -> &'static str {
    match why {
        Reason::StartTimeout if child.plan.policy.readiness == Readiness::Finished => {
            "not finished within start_timeout"
        }
        _ => reason(why),
    }
}

/// The text of a reason in log lines.
pub fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Stop => "stop",
        Reason::Replaced => "replaced by a newer generation",
        Reason::Removed => "its app was stopped or removed",
        Reason::Recycled => "replaced by a fresh worker",
        Reason::ScaledDown => "fewer workers are wanted",
        Reason::Paused => "paused",
        Reason::RolledBack => "its generation was rolled back",
        Reason::StartTimeout => "not ready within start_timeout",
        Reason::GracefulTimeout => "still running after graceful_timeout",
        Reason::MaxDraining => "more generations than max_draining were draining",
        Reason::Hung => "hangs",
        Reason::AbortGrace => "still running after SIGABRT and abort_grace",
    }
}

/// `a worker`, `3 workers`
pub fn workers(number: usize) -> String {
    match number {
        1 => "a worker".to_owned(),
        several => format!("{several} workers"),
    }
}

/// What to do about a program that has ended with status 0 and so failed to prove its generation.
pub const MAY_FINISH: &str = " (a program that is to end needs `restart`, see preforkd.toml(5))";

/// How many of something are wanted: `1 worker`, `3 workers`.
pub fn number(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// The status of all apps in one line: `web 4/4 ready, queue 0/1 ready (1 starting)`. If that is too long, apps that are not as wanted
/// come first, and the others are counted. The `stopped` apps are last: `api stopped`. Apps with a schedule are neither ready nor not; they
/// are counted, and those that are not run named.
pub fn status<'a>(
    apps: impl Iterator<Item = (&'a str, Counts, Health)>,
    stopped: impl Iterator<Item = &'a str>,
    scheduled: usize,
    not_run: &[&str],
) -> String {
    let pools = pools(apps, stopped);
    let mut scheduled = match scheduled {
        0 => return pools,
        1 => "1 app with a schedule".to_owned(),
        several => format!("{several} apps with a schedule"),
    };
    if !not_run.is_empty() {
        let named = not_run.join(", ");
        scheduled += &match named.chars().count() <= MAX_STATUS {
            true => format!(", not run: {named}"),
            false => format!(", {} not run", not_run.len()),
        };
    }
    match pools.is_empty() {
        true => scheduled,
        false => format!("{pools}; {scheduled}"),
    }
}

fn pools<'a>(
    apps: impl Iterator<Item = (&'a str, Counts, Health)>,
    stopped: impl Iterator<Item = &'a str>,
) -> String {
    let mut apps: Vec<_> = apps.collect();
    let stopped: Vec<String> = stopped.map(|name| format!("{name} stopped")).collect();
    let lines = apps.iter().map(|app| one(*app));
    let line = lines.chain(stopped.clone()).collect::<Vec<_>>().join("; ");
    if line.chars().count() <= MAX_STATUS {
        return line;
    }
    let stopped = match stopped.len() {
        0 => String::new(),
        number => format!("; {number} stopped"),
    };
    let is_well = |&(_, counts, health): &(&str, Counts, Health)| {
        // During a reload an app has more for a while.
        counts.ready + counts.finished >= counts.wanted
            && counts.starting == 0
            && health == Health::Well
    };
    // First what fails or lacks workers.
    let lacks = |&(_, counts, health): &(&str, Counts, Health)| {
        counts.ready + counts.finished < counts.wanted || health != Health::Well
    };
    apps.sort_by_key(|app| (is_well(app), !lacks(app)));
    let (mut line, mut shown) = (String::new(), 0);
    for app in apps.iter().filter(|app| !is_well(app)) {
        let next = one(*app) + "; ";
        if line.chars().count() + next.chars().count() > MAX_STATUS {
            break;
        }
        line += &next;
        shown += 1;
    }
    let rest = &apps[shown..];
    let (ready, wanted) = rest
        .iter()
        .fold((0u64, 0u64), |(ready, wanted), (_, counts, _)| {
            (
                ready + u64::from(counts.ready) + u64::from(counts.finished),
                wanted + u64::from(counts.wanted),
            )
        });
    let others = if shown > 0 { "other " } else { "" };
    // Of an app that was removed, only workers that end may be left.
    let stay = |(_, counts, _): &&(&str, Counts, Health)| {
        counts.wanted + counts.ready + counts.starting + counts.finished > 0
    };
    let number = rest.iter().filter(stay).count();
    line + &format!("{number} {others}apps {ready}/{wanted} ready{stopped}")
}

fn one((name, counts, health): (&str, Counts, Health)) -> String {
    let mut text = match counts.finished >= counts.wanted.max(1) {
        true => format!("{name} finished"),
        false => format!("{name} {}/{} ready", counts.ready, counts.wanted),
    };
    let finished = match counts.finished < counts.wanted {
        true => counts.finished,
        false => 0,
    };
    let rest = [
        (counts.starting, "starting"),
        (counts.leaving, "leaving"),
        (finished, "finished"),
        (counts.failed, "failed"),
    ];
    let rest = rest.iter().filter(|(n, _)| *n > 0);
    let rest: Vec<_> = rest.map(|(n, what)| format!("{n} {what}")).collect();
    if !rest.is_empty() {
        text += &format!(" ({})", rest.join(", "));
    }
    text + match health {
        Health::Well => "",
        Health::CheckFails => ", check fails",
        Health::Waits => ", waiting for what a killed preforkd has left",
        Health::FailedBeside => ", failing, waiting for what a killed preforkd has left",
        Health::Later => ", to be started later",
        Health::Failing => ", failing",
        Health::GivenUp => ", given up",
        Health::NotStarted => ", not started",
    }
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
    fn a_python_worker_that_ends_in_silence_is_told_what_to_look_at() {
        let mut child = Child::example(0);
        let exit = Exit::Status(0);
        assert_eq!(silence(&child, exit), None, "it may be any program");
        std::rc::Rc::make_mut(&mut child.plan).threads = Some(1);
        let said = silence(&child, exit).expect("it is a Python worker");
        assert!(
            said.contains("check that /bin/true is a Python interpreter"),
            "{said}"
        );
        assert_eq!(silence(&child, Exit::Signal(Signal::SIGSEGV, false)), None);
        child.ready_at = Some(Instant::now());
        assert_eq!(silence(&child, exit), None);
    }

    #[test]
    fn a_program_that_binds_an_address_itself_is_told_what_to_do() {
        let mut child = Child::example(0);
        let errors = [
            "OSError: [Errno 98] Address already in use",
            "Error: listen EADDRINUSE: address already in use :::3000",
        ];
        for error in errors {
            assert!(address_in_use(&child, error).contains("`replace`"));
        }
        assert_eq!(address_in_use(&child, "no such table"), "");
        let plan = std::rc::Rc::make_mut(&mut child.plan);
        plan.policy.replace = Replace::StopFirst;
        assert_eq!(address_in_use(&child, errors[0]), "", "it has done that");
    }

    #[test]
    fn one_line_gives_the_cause_of_a_death() {
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
        let killed = Exit::Signal(Signal::SIGKILL, false);
        let (good, bad) = (Exit::Status(0), Exit::Status(1));
        assert_eq!(
            death(&child, bad, later, false),
            "exited with status 1, before it was ready, after 1.5s"
        );
        child.not_executed = Some("cannot execute /srv/x: Permission denied".into());
        assert_eq!(
            death(&child, Exit::Status(127), later, false),
            "exited with status 127 (its start failed: cannot execute /srv/x: Permission denied), before it was ready, after 1.5s"
        );
        child.not_executed = None;
        child.ready_at = Some(now);
        assert_eq!(
            death(&child, killed, later, false),
            "killed by SIGKILL, not by preforkd, after 1.5s"
        );
        assert_eq!(
            death(&child, killed, later, true),
            "killed by the kernel because memory ran out (SIGKILL), after 1.5s"
        );
        child.ready_at = None;
        child.signalled = Some((Signal::SIGABRT, Reason::StartTimeout));
        let aborted = Exit::Signal(Signal::SIGABRT, false);
        let late = "killed by SIGABRT after our SIGABRT (not ready within start_timeout)";
        let text = death(&child, aborted, later, false);
        assert_eq!(text, late.to_owned() + NEVER_READY);
        let mut plan = crate::plan::App::example(1);
        plan.output.taken_over = true;
        child.plan = plan.into();
        assert_eq!(death(&child, aborted, later, false), late, "one of ours");
        child.signalled = Some((Signal::SIGTERM, Reason::Stop));
        assert_eq!(death(&child, good, later, false), "ended (stop)");
        assert_eq!(
            death(&child, bad, later, false),
            "exited with status 1 after our SIGTERM (stop)"
        );
        child.signalled = Some((Signal::SIGKILL, Reason::GracefulTimeout));
        assert_eq!(
            death(&child, killed, later, false),
            "killed by SIGKILL after our SIGKILL (still running after graceful_timeout)"
        );
    }

    #[test]
    fn the_status_names_every_app_and_its_state() {
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
            ..Counts::default()
        };
        let done = Counts {
            wanted: 1,
            finished: 1,
            ..Counts::default()
        };
        let partly = Counts {
            wanted: 4,
            ready: 1,
            finished: 2,
            failed: 1,
            ..Counts::default()
        };
        assert_eq!(
            status(
                [
                    ("db", some, Health::Failing),
                    ("queue", some, Health::GivenUp),
                    ("site", all, Health::CheckFails),
                    ("web", all, Health::Well)
                ]
                .into_iter(),
                std::iter::empty(),
                0,
                &[]
            ),
            "db 1/2 ready (1 starting, 3 leaving), failing; \
             queue 1/2 ready (1 starting, 3 leaving), given up; site 4/4 ready, check fails; web 4/4 ready"
        );
        assert_eq!(
            status(
                [
                    ("fill", partly, Health::Well),
                    ("migrate", done, Health::Well)
                ]
                .into_iter(),
                std::iter::empty(),
                0,
                &[]
            ),
            "fill 1/4 ready (2 finished, 1 failed); migrate finished"
        );
        let one = [("web", all, Health::Well)].into_iter();
        assert_eq!(
            status(one, std::iter::empty(), 2, &[]),
            "web 4/4 ready; 2 apps with a schedule"
        );
        assert_eq!(
            status([].into_iter(), std::iter::empty(), 1, &[]),
            "1 app with a schedule"
        );
        assert_eq!(
            status([].into_iter(), std::iter::empty(), 3, &["backup", "tidy"]),
            "3 apps with a schedule, not run: backup, tidy"
        );
        let (name, most) = (
            "a".repeat(MAX_STATUS + 1),
            "1 app with a schedule, 1 not run",
        );
        assert_eq!(
            status([].into_iter(), std::iter::empty(), 1, &[&name]),
            most
        );
    }

    #[test]
    fn the_status_of_many_apps_counts_those_in_order() {
        let names: Vec<_> = (0..200)
            .map(|n| format!("customer-portal-{n:03}-production"))
            .collect();
        let counts = |ready| Counts {
            wanted: 2,
            ready,
            ..Counts::default()
        };
        let apps = |bad: usize| {
            let apps = names.iter().enumerate();
            let apps: Vec<_> = apps
                .map(|(n, name)| {
                    let ready = if n < bad { 1 } else { 2 };
                    (&**name, counts(ready), Health::Well)
                })
                .collect();
            status(apps.into_iter(), std::iter::empty(), 0, &[])
        };
        assert_eq!(apps(0), "200 apps 400/400 ready");
        assert_eq!(
            apps(1),
            "customer-portal-000-production 1/2 ready; 199 other apps 398/398 ready"
        );
        let mut one_was_removed: Vec<_> = names
            .iter()
            .map(|name| (&**name, counts(2), Health::Well))
            .collect();
        one_was_removed[7].1 = Counts::default();
        let line = status(one_was_removed.into_iter(), std::iter::empty(), 0, &[]);
        assert_eq!(line, "199 apps 398/398 ready");
        let mut reloading: Vec<_> = names
            .iter()
            .map(|name| (&**name, counts(3), Health::Well))
            .collect();
        for (_, counts, _) in reloading.iter_mut().take(100) {
            counts.starting = 1;
        }
        reloading[150].1.ready = 0;
        let line = status(reloading.into_iter(), std::iter::empty(), 0, &[]);
        let first = "customer-portal-150-production 0/2 ready; customer-portal-000-production 3/2";
        assert!(line.starts_with(first), "{line}");
        let line = apps(200);
        assert!(
            line.len() < MAX_STATUS + 100 && line.contains(" other apps "),
            "{line}"
        );
    }
}
