//! `preforkd -t --import`: the applications are loaded as their workers would load them.

use std::io::Write;

use preforkd_worker::env;
use preforkd_worker::inspection::{Django, Inspection};
use preforkd_worker::settings::Settings;

use super::plain;
use crate::effects::inspect;
use crate::logging;
use crate::plan::{App, Plan};

/// An application that was loaded, or why it was not.
pub(super) struct Loaded<'a> {
    pub(super) name: &'a str,
    pub(super) app: &'a App,
    pub(super) settings: Settings,
    pub(super) found: Result<Inspection, String>,
}

/// Loads the applications of all apps with `wsgi`, each as its user. What they write is shown.
pub(super) fn load(plan: &Plan) -> Vec<Loaded<'_>> {
    let apps = plan.all_apps().filter(|(_, app)| app.threads.is_some());
    let loaded = apps.filter_map(|(name, app)| {
        let settings = Settings::parse(app.launch.env.get(env::WSGI)?).ok()?;
        let found = match app.cannot_start() {
            Some(why) => Err(why.to_owned()),
            None => {
                let launch = app.launch.for_inspection();
                let limit = app.policy.start_timeout;
                inspect::inspect(name, &launch, limit, &mut show)
            }
        };
        Some(Loaded {
            name,
            app,
            settings,
            found,
        })
    });
    loaded.collect()
}

/// Shows what a process of an application has written, without what could control a terminal.
pub(super) fn show(bytes: &[u8]) {
    let text = plain(&String::from_utf8_lossy(bytes));
    // If nobody can read it, nobody can be told so.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The lines about the applications, and whether all of them could be loaded.
pub(super) fn report(plan: &Plan) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let mut all = true;
    for loaded in load(plan) {
        let name = loaded.name;
        match &loaded.found {
            Ok(found) => {
                lines.push(format!("app={name} {}", loaded.line(found)));
                for doubt in doubts(&loaded.settings, found.django.as_ref()) {
                    logging::print_error(&plain(&format!("warning: app={name} {doubt}")));
                }
            }
            Err(why) => {
                all = false;
                logging::print_error(&plain(&format!("app={name} cannot be loaded: {why}")));
            }
        }
    }
    (lines, all)
}

impl Loaded<'_> {
    /// What was loaded, by which interpreter, and as whom.
    pub(super) fn line(&self, found: &Inspection) -> String {
        let user = match &self.app.launch.user {
            Some(user) => format!(" as uid {}", user.uid),
            None => String::new(),
        };
        let django = found.django.as_ref();
        let django = django.map_or(String::new(), |django| {
            format!(", Django {}", django.version)
        });
        plain(&format!(
            "{} was loaded{user} by {}, Python {}{django}; it is {}",
            self.settings.application,
            self.app.launch.program.display(),
            found.python,
            self.settings.interpreter
        ))
    }
}

/// What a Django site lacks when its workers serve it.
pub(super) fn doubts(settings: &Settings, django: Option<&Django>) -> Vec<String> {
    let mut doubts = Vec::new();
    let Some(django) = django else {
        if settings.django_static {
            doubts.push("static = \"django\": the application is no Django site".to_owned());
        }
        return doubts;
    };
    if let Some(why) = django
        .static_files
        .missing
        .as_ref()
        .filter(|_| settings.django_static)
    {
        doubts.push(format!("static = \"django\": {why}"));
    }
    if !django.debug && !django.has_logging {
        doubts.push(
            "DEBUG is off and the settings have no LOGGING, so the log shows no error of a view (add LOGGING with a handler for the logger \"django\")"
                .to_owned(),
        );
    }
    doubts
}
