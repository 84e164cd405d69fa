//! What a reload would do, for `preforkd plan`: by the comparison that a reload makes itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use preforkd_worker::env;
use serde_json::Value;

use super::choices::Scope;
use super::proposal::Proposal;
use crate::plan::{App, Plan};

/// The most keys that are named as changed.
const NAMED: usize = 6;

/// What follows from the proposal of a reload of this scope, in lines. What a reload of some apps leaves alone has none.
pub(super) fn describe(current: &Plan, proposal: &Proposal, scope: &Scope) -> String {
    let found = &proposal.plan;
    let mut text = String::new();
    let named = scope.names();
    let is_told = |name: &&str| {
        let takes_part = found.runs(name) && !proposal.kept.contains(*name);
        scope.is_whole() || named.contains(*name) || takes_part
    };
    let names = current.all_names().chain(found.all_names());
    let names: BTreeSet<&str> = names.filter(is_told).collect();
    for name in names {
        let is_named = named.contains(name);
        let _ = writeln!(
            text,
            "{name}: {}",
            of_app(current, proposal, name, is_named)
        );
    }
    let addresses = |plan: &Plan| -> BTreeSet<String> {
        let listeners = plan.listeners.iter();
        listeners
            .map(|listener| listener.address.to_string())
            .collect()
    };
    let (old, new) = (addresses(current), addresses(found));
    for address in new.difference(&old) {
        let _ = writeln!(text, "{address}: is opened");
    }
    for address in old.difference(&new) {
        let _ = writeln!(text, "{address}: is closed");
    }
    text
}

fn of_app(current: &Plan, proposal: &Proposal, name: &str, is_named: bool) -> String {
    let found = &proposal.plan;
    if let (Some(old), Some(new)) = (current.scheduled.get(name), found.scheduled.get(name)) {
        return match old == new {
            true => "its schedule stays".into(),
            false => "the next run is by the new table".into(),
        };
    }
    match (current.app(name), found.app(name)) {
        (Some(_), Some(_)) if proposal.kept.contains(name) => {
            "stays: nothing has changed that its workers would notice".into()
        }
        (Some(old), Some(new)) => {
            let changed = changed(old, new);
            let why = match &changed[..] {
                [] if is_named => "nothing has changed, but it is named".to_owned(),
                [] if new.on_change => "its listeners have changed, it does not run as it should, or a task runs before it".to_owned(),
                [] => "nothing has changed, but its key reload.when is \"always\"".to_owned(),
                changed => format!("changed: {}", changed.join(", ")),
            };
            format!("is replaced ({why})")
        }
        (None, Some(app)) => match found.cannot_start(name) {
            Some(why) => format!("cannot be started: {why}"),
            None => format!("is started with {}", workers(app)),
        },
        (Some(_), None) if found.stopped.contains(name) => "ends, as it is not enabled".into(),
        (Some(_), None) => "ends, as the configuration has it no more".into(),
        (None, None) => "stays stopped".into(),
    }
}

fn workers(app: &App) -> String {
    match app.policy.workers {
        1 => "1 worker".to_owned(),
        number => format!("{number} workers"),
    }
}

/// What differs between two plans of an app, in the words of the configuration as far as they are the same. No value is told: some are secrets.
fn changed(before: &App, after: &App) -> Vec<String> {
    let mut paths = Vec::new();
    let (Ok(old), Ok(new)) = (fields(before), fields(after)) else {
        return paths;
    };
    compare(&old, &new, "", &mut paths);
    let mut words: Vec<String> = paths.iter().filter_map(|path| word(path)).collect();
    let of_django = before.other_static_files(after).into_iter();
    words.extend(of_django.map(|app| format!("static files of app {app}")));
    words.sort();
    words.dedup();
    if words.len() > NAMED {
        let more = words.len() - NAMED;
        words.truncate(NAMED);
        words.push(format!("and {more} more"));
    }
    words
}

/// The fields of a plan, with the settings of a worker as fields of their own.
fn fields(app: &App) -> serde_json::Result<Value> {
    let mut fields = serde_json::to_value(app)?;
    if let Some(settings) = app.launch.env.get(env::WSGI) {
        fields["settings"] = serde_json::from_str(settings)?;
        fields["launch"]["env"][env::WSGI] = Value::Null;
    }
    Ok(fields)
}

/// The paths of what differs.
fn compare(old: &Value, new: &Value, path: &str, paths: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let (old, new) = (old.get(name), new.get(name));
                let (old, new) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
                compare(old, new, &format!("{path}.{name}"), paths);
            }
        }
        (old, new) if old != new => paths.push(path.to_owned()),
        _ => {}
    }
}

/// What stands in the configuration for a field.
fn word(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('.').skip(1).collect();
    let word = match parts[..] {
        // What goes on meanwhile, and what is told anew.
        [
            "certificates" | "acme" | "warnings" | "notices" | "missing" | "django",
            ..,
        ] => return None,
        ["on_change"] => "reload.when",
        ["sockets", ..] => "listen",
        ["files", ..] => "the files behind its program and folder",
        ["launch", "program"] => "the program",
        ["launch", "args", ..] => "command",
        ["launch", "settings"] | ["sites", ..] => "the sites",
        ["launch", "env", name, ..] => return Some(format!("the variable {name}")),
        ["settings", "application"] => "wsgi",
        ["settings", "django_static"] => "static",
        ["settings", "interpreter"] => "python",
        ["settings", "http", name, ..] | ["settings", name, ..] => name,
        [
            "policy" | "launch" | "output" | "hang" | "stop" | "recycle",
            name,
            ..,
        ] => name,
        [name, ..] => name,
        [] => return None,
    };
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Policy;

    #[test]
    fn what_has_changed_is_named_without_its_value() {
        let old = App::example(1);
        assert_eq!(changed(&old, &old), [] as [&str; 0]);
        let mut new = App {
            policy: Policy {
                workers: 3,
                ..old.policy
            },
            warnings: vec!["x".into()],
            ..old.clone()
        };
        new.launch.env.insert("TOKEN".into(), "hunter2".into());
        new.launch.chdir = "/srv".into();
        assert_eq!(
            changed(&old, &new),
            ["chdir", "the variable TOKEN", "workers"]
        );
    }

    #[test]
    fn the_settings_of_a_worker_are_compared_one_by_one() {
        let with = |settings: &str| {
            let mut app = App::example(1);
            app.launch.env.insert(env::WSGI.into(), settings.into());
            app
        };
        let old = with("{\"threads\":1,\"application\":\"a:b\",\"http\":{\"max_body\":1}}");
        let new = with("{\"threads\":2,\"application\":\"a:c\",\"http\":{\"max_body\":2}}");
        assert_eq!(changed(&old, &new), ["max_body", "threads", "wsgi"]);
    }

    #[test]
    fn many_changes_are_cut() {
        let old = App::example(1);
        let mut new = old.clone();
        for number in 0..9 {
            new.launch.env.insert(format!("V{number}"), "x".into());
        }
        let changed = changed(&old, &new);
        assert_eq!(changed.len(), NAMED + 1);
        assert_eq!(changed[NAMED], "and 3 more");
    }
}
