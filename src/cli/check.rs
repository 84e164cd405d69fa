//! `preforkd check`: what Django's own check of a deployment says, and what only the server can know.

use std::io::Write;

use nix::sys::resource::{Resource, getrlimit};
use preforkd_worker::front::{self, Target};
use preforkd_worker::inspection::Django;
use preforkd_worker::settings::{Mapping, Settings};

use super::loading::{self, Loaded};
use super::{FAILED, OK, plain};
use crate::effects::{inspect, temporary};
use crate::logging;
use crate::plan::{self, Launch, Plan, Rights};

/// Runs Django's check. The module of the application chooses the settings, as in a worker.
const SCRIPT: &str = "import os, sys
here = os.getcwd()
if sys.path[:1] == ['']:
    sys.path[0] = here
elif sys.path[:1] != [here]:
    sys.path.insert(0, here)
for name in [name for name in os.environ if name.startswith(('PREFORKD_', 'LISTEN_'))]:
    del os.environ[name]
import importlib
importlib.import_module(sys.argv[1])
from django.core.management import call_command
from django.core.management.base import SystemCheckError
try:
    call_command('check', '--deploy', '--no-color')
except SystemCheckError as error:
    sys.exit(str(error))
";

/// The most that is shown of the output of Django's check, in bytes.
const MOST: usize = 64 << 10;

/// Descriptors of a worker that are no connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Checks all apps of a plan. What is printed, and the exit status: 1 if something must be mended.
pub(super) fn run(plan: &Plan) -> (String, u8) {
    let mut lines = Vec::new();
    let mut status = OK;
    let warn = |text: &str| {
        logging::print_error(&plain(&format!("warning: {text}")));
    };
    for doubt in doubts(plan) {
        warn(&doubt);
    }
    let loaded = loading::load(plan);
    for one in &loaded {
        let name = one.name;
        let found = match &one.found {
            Ok(found) => found,
            Err(why) => {
                logging::print_error(&plain(&format!("app={name} cannot be loaded: {why}")));
                status = FAILED;
                continue;
            }
        };
        lines.push(format!("app={name} {}", one.line(found)));
        lines.push(format!("app={name} {}", capacity(one)));
        let django = found.django.as_ref();
        for doubt in loading::doubts(&one.settings, django) {
            warn(&format!("app={name} {doubt}"));
        }
        if let Some(doubt) = descriptors(&one.settings, &one.app.launch.rights) {
            warn(&format!("app={name} {doubt}"));
        }
        let Some(django) = django else {
            continue;
        };
        let settings = &one.settings;
        let mappings = settings
            .static_files
            .clone()
            .into_iter()
            .chain(of_sites(plan));
        let doubt = match settings.django_static {
            true => None,
            false => unserved(django, &mappings.collect::<Vec<_>>()),
        };
        if let Some(doubt) = doubt {
            warn(&format!("app={name} {doubt}"));
        }
        match of_django(one) {
            Ok(said) => lines.extend(said.lines().map(|line| format!("app={name} {line}"))),
            Err(why) => {
                logging::print_error(&plain(&format!("app={name} {why}")));
                status = FAILED;
            }
        }
    }
    if loaded.is_empty() {
        lines.push("there is no app with `wsgi` to check".to_owned());
    }
    (lines.join("\n"), status)
}

/// What would not work as things are now, although the configuration is valid.
pub(super) fn doubts(plan: &Plan) -> Vec<String> {
    let folders = [("pid_file", &plan.pid_file), ("control", &plan.control)];
    let missing = folders.into_iter().filter_map(|(key, path)| {
        let folder = path.as_deref()?.parent()?;
        (!folder.is_dir()).then(|| {
            format!(
                "{key}: there is no folder {} (create it, or let the init system do so: RuntimeDirectory= of systemd)",
                folder.display()
            )
        })
    });
    let workers = plan.apps.iter().filter(|(_, app)| app.threads.is_some());
    let temporary = workers.filter_map(|(name, app)| {
        let variable = |name: &str| std::env::var(name).ok();
        let complaint = temporary::complaint(&app.launch, variable)?;
        Some(format!("app={name} {complaint}"))
    });
    let mistakes = plan.warnings();
    let mistakes = mistakes.map(|(name, warning)| format!("app={name} {warning}"));
    let lost = plan.no_folders.iter().map(|(why, _)| why.clone());
    let doubts = missing.chain(lost).chain(temporary);
    doubts.chain(mistakes).collect()
}

/// What Django's check prints.
///
/// # Errors
/// It has found errors, or cannot run.
fn of_django(one: &Loaded) -> Result<String, String> {
    let launch = &one.app.launch;
    let module = one
        .settings
        .application
        .split(':')
        .next()
        .unwrap_or_default();
    let program = launch.program.to_string_lossy().into_owned();
    let check = Launch {
        args: vec![program, "-c".into(), SCRIPT.into(), module.to_owned()],
        ..launch.clone()
    };
    let limit = one.app.policy.start_timeout;
    let mut show = |bytes: &[u8]| loading::show(bytes);
    // If nobody can read it, nobody can be told so.
    let _ = std::io::stdout().flush();
    let ran = inspect::run(one.name, &check, limit, MOST, &mut show);
    let ran = ran.map_err(|error| format!("Django's check cannot start: {error}"))?;
    match ran.failure {
        None => Ok(plain(String::from_utf8_lossy(&ran.output).trim_end())),
        Some(failure) => Err(format!("Django's check has failed: it {failure}")),
    }
}

/// How much is served at a time.
fn capacity(one: &Loaded) -> String {
    let (workers, threads) = (one.app.policy.workers, one.settings.threads);
    let requests = u64::from(workers) * u64::from(threads);
    let plural = |number: u64| if number == 1 { "" } else { "s" };
    format!(
        "{workers} worker{} with {threads} thread{}: {requests} request{} at a time (more wait; `workers` and `threads` change it)",
        plural(workers.into()),
        plural(threads.into()),
        plural(requests)
    )
}

/// Whether a worker may have fewer descriptors open than it takes connections.
fn descriptors(settings: &Settings, rights: &Rights) -> Option<String> {
    let limit = match rights.limits.get(&plan::Resource::Nofile) {
        Some((soft, _)) => (*soft)?,
        None => getrlimit(Resource::RLIMIT_NOFILE).ok()?.0,
    };
    let wanted = u64::from(settings.http.max_connections) + OTHER_DESCRIPTORS;
    (limit < wanted).then(|| {
        format!(
            "a process may have {limit} descriptors open, fewer than `max_connections` needs, which is {} (raise the limit: `limits.nofile`, LimitNOFILE= of systemd, ulimit -n; or lower max_connections)",
            settings.http.max_connections
        )
    })
}

/// The mappings of all sites.
fn of_sites(plan: &Plan) -> Vec<(String, Mapping)> {
    let settings = plan
        .apps
        .values()
        .find_map(|app| app.launch.settings.as_ref());
    let settings = settings.and_then(|settings| front::Settings::parse(&settings.0).ok());
    let sites = settings.into_iter().flat_map(|settings| settings.sites);
    let routes = sites.flat_map(|site| site.routes);
    let files = routes.filter_map(|route| match route.target {
        Target::Files(mapping) => Some((route.path, mapping)),
        _ => None,
    });
    files.collect()
}

/// Static files that nobody serves.
fn unserved(django: &Django, mappings: &[(String, Mapping)]) -> Option<String> {
    let path = django.static_path.as_ref()?;
    if django.serves_static {
        return None;
    }
    let mut mappings = mappings.iter();
    let Some((prefix, mapping)) = mappings.find(|(prefix, _)| path.starts_with(prefix.as_str()))
    else {
        return Some(format!(
            "nothing serves the static files below {path} (write static = \"django\")"
        ));
    };
    let entries = std::fs::read_dir(&mapping.path);
    let is_empty = entries.is_ok_and(|mut entries| entries.next().is_none());
    is_empty.then(|| {
        format!(
            "there is nothing in {}, to which {prefix} leads (run manage.py collectstatic)",
            mapping.path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use preforkd_worker::inspection::StaticFiles;

    use super::*;

    #[test]
    fn static_files_that_nobody_serves_are_told_of() {
        let django = |serves_static| Django {
            version: "5.2".into(),
            debug: false,
            has_logging: true,
            static_path: Some("/static/".into()),
            serves_static,
            static_files: StaticFiles::default(),
        };
        let mapped = |prefix: &str, folder: &str| {
            let mapping = Mapping {
                path: folder.into(),
                ..Mapping::default()
            };
            (prefix.to_owned(), mapping)
        };
        let empty = tempfile::tempdir().expect("a folder");
        let folder = empty.path().to_str().expect("a plain path");
        let nobody = "nothing serves the static files below /static/ (write static = \"django\")";
        for (mapping, said) in [
            (None, Some(nobody)),
            (Some(mapped("/media/", "/")), Some(nobody)),
            (Some(mapped("/static/", "/")), None),
            (Some(mapped("/", "/")), None),
        ] {
            let mappings: Vec<_> = mapping.into_iter().collect();
            assert_eq!(unserved(&django(false), &mappings).as_deref(), said);
        }
        let said = unserved(&django(false), &[mapped("/static/", folder)]);
        let said = said.expect("an empty folder");
        assert!(
            said.contains(folder) && said.contains("collectstatic"),
            "{said}"
        );
        assert_eq!(unserved(&django(true), &[]), None);
    }
}
