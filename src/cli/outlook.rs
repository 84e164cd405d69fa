//! `preforkd -t`: what would run. Interpreters are started to hear whether they can be used and which version they are; no application is loaded.

use std::fmt::Write as _;

use nix::unistd::{Uid, User};
use preforkd_worker::env;
use preforkd_worker::settings::Settings;

use super::plain;
use crate::effects::inspect;
use crate::logging;
use crate::plan::{App, Plan};

/// The argument with which the program for an interpreter only says which one it is.
const LOOK: &str = "look";

/// How an interpreter begins that refuses itself.
const UNFIT: &str = "python: ";

/// The most that an interpreter says of itself, in bytes.
const MOST: usize = 4096;

/// The lines about all apps, and whether their interpreters can be used. They are asked unless the applications are `loaded` anyway.
pub(super) fn report(plan: &Plan, loaded: bool) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let mut all = true;
    for (name, app) in plan.all_apps() {
        let settings = settings(app);
        let is_scheduled = plan.scheduled.contains_key(name);
        lines.push(line(name, app, settings.as_ref(), is_scheduled));
        let Some(settings) = settings.filter(|_| !loaded && app.cannot_start().is_none()) else {
            continue;
        };
        let program = app.launch.program.display();
        match version(name, app) {
            Ok(version) => {
                let version = version.map_or(String::new(), |version| format!("{version}, "));
                lines.push(format!(
                    "app={name} {version}{program}; it is {}",
                    settings.interpreter
                ));
            }
            Err(why) if why.starts_with(UNFIT) => {
                all = false;
                logging::print_error(&plain(&format!("app={name} {why}")));
            }
            Err(why) => logging::print_error(&plain(&format!("warning: app={name} {why}"))),
        }
    }
    let mut extensions = plan.all_apps();
    let extension = extensions.find_map(|(_, app)| app.launch.env.get(env::EXTENSION));
    lines.extend(extension.map(|path| format!("extension module {path}")));
    (lines.iter().map(|line| plain(line)).collect(), all)
}

/// What the workers of an app for Python are told.
fn settings(app: &App) -> Option<Settings> {
    Settings::parse(app.launch.env.get(env::WSGI)?).ok()
}

/// What an app runs, in how many workers, as whom, and where it listens.
fn line(name: &str, app: &App, settings: Option<&Settings>, is_scheduled: bool) -> String {
    let sites: Vec<_> = app.sites.iter().map(|site| site.name.as_str()).collect();
    let mut line = format!("app={name} ");
    // Writing to a string cannot fail.
    let _ = match (settings, &sites[..]) {
        (Some(settings), _) => write!(line, "runs {}", settings.application),
        (None, []) => write!(line, "runs {}", app.launch.program.display()),
        (None, [site]) => write!(line, "serves the site {site}"),
        (None, sites) => write!(line, "serves the sites {}", sites.join(", ")),
    };
    let workers = app.policy.workers;
    line += &match is_scheduled {
        true => " at the times of its schedule".to_owned(),
        false => format!(" in {workers} worker{}", plural(workers)),
    };
    if let (Some(threads), Some(_)) = (app.threads, settings) {
        let each = if workers == 1 { "" } else { " each" };
        let _ = write!(line, " with {threads} thread{}{each}", plural(threads));
    }
    if let Some(user) = &app.launch.user {
        let named = User::from_uid(Uid::from_raw(user.uid)).ok().flatten();
        line += &match named {
            Some(user) => format!(", as user {}", user.name),
            None => format!(", as uid {}", user.uid),
        };
    }
    let listeners = app.sockets.iter();
    let listeners = listeners.filter(|(name, _)| name != env::FRONT_LISTENER);
    let listeners: Vec<_> = listeners.map(|(_, address)| address.to_string()).collect();
    if !listeners.is_empty() {
        let _ = write!(line, ", listening on {}", listeners.join(", "));
    }
    line
}

fn plural(number: u32) -> &'static str {
    if number == 1 { "" } else { "s" }
}

/// The version of an app's interpreter; none if it does not say one.
///
/// # Errors
/// It cannot be used, or asked, and why.
fn version(name: &str, app: &App) -> Result<Option<String>, String> {
    let mut launch = app.launch.clone();
    launch.args.push(LOOK.into());
    let ran = inspect::run(name, &launch, app.policy.start_timeout, MOST, &mut |_| ());
    let program = launch.program.display();
    let ran = ran.map_err(|error| format!("{program} cannot be started: {error}"))?;
    if let Some(failure) = ran.failure {
        return Err(match ran.said {
            Some(said) if failure.starts_with("exited") => said,
            Some(said) => format!("{program} {failure} (its last output: {said})"),
            None => format!("{program}: {failure}"),
        });
    }
    let said = String::from_utf8_lossy(&ran.output);
    let version = said.trim_end().strip_prefix("Python ").filter(|version| {
        !version.is_empty() && version.chars().all(|c| c == '.' || c.is_ascii_digit())
    });
    Ok(version.map(|version| format!("Python {version}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;
    use crate::plan::Credentials;

    #[test]
    fn a_line_has_what_runs_and_where_and_as_whom() {
        let mut app = App::example(2);
        assert_eq!(
            line("queue", &app, None, false),
            "app=queue runs /bin/true in 2 workers"
        );
        assert_eq!(
            line("backup", &app, None, true),
            "app=backup runs /bin/true at the times of its schedule"
        );
        app.policy.workers = 1;
        app.launch.user = Some(Credentials {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        });
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        app.sockets = vec![
            ("web".into(), address),
            ("own".into(), Address::Unix("/run/x".into())),
            (env::FRONT_LISTENER.into(), Address::Unix("/run/y".into())),
        ];
        assert_eq!(
            line("queue", &app, None, false),
            "app=queue runs /bin/true in 1 worker, as user root, listening on 127.0.0.1:80, unix:/run/x"
        );
    }
}
