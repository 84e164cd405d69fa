//! Static files that nobody serves: a Django site answers with 404 below its `STATIC_URL`, and no mapping of `static` is there. Then pages
//! have no styles, and nothing else says why.

use std::sync::Mutex;
use std::time::Instant;

use preforkd_http::{Rate, Request};
use preforkd_worker::settings::Settings;
use pyo3::prelude::*;

use crate::line::Line;

/// The pause between two lines, in nanoseconds.
const PAUSE: u64 = 60_000_000_000;

/// What to say of requests that the application has answered with 404.
pub(crate) struct Unserved {
    /// The path of `STATIC_URL`.
    path: String,
    /// What serves the application below another path.
    prefix: String,
    advice: String,
    begun: Instant,
    rate: Mutex<Rate>,
}

impl Unserved {
    /// For a loaded Django site whose `STATIC_URL` is a path of it that no mapping leads to; none if files are served otherwise.
    pub fn find(py: Python<'_>, settings: &Settings) -> Option<Self> {
        let django = Django::find(py).ok()??;
        let path = django.path()?;
        let is_mapped = settings
            .static_files
            .keys()
            .any(|prefix| path.starts_with(prefix));
        (!is_mapped).then(|| Self {
            advice: django.advice(&path),
            path,
            prefix: settings.prefix.clone(),
            begun: Instant::now(),
            rate: Mutex::new(Rate::new(1, PAUSE)),
        })
    }

    /// The application has answered this request with 404.
    #[cold]
    pub fn note(&self, request: Request<'_>) {
        if !self.is_below(request.path()) {
            return;
        }
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let left_out = self.rate.lock().ok().and_then(|mut rate| rate.take(now));
        if let Some(left_out) = left_out {
            log::warn!(
                "the application has answered 404 to {}, and no entry of `static` is for {} ({}){left_out}",
                Line(request),
                self.path,
                self.advice
            );
        }
    }

    fn is_below(&self, path: &[u8]) -> bool {
        let below = path.strip_prefix(self.prefix.as_bytes()).unwrap_or(path);
        path.starts_with(self.path.as_bytes()) || below.starts_with(self.path.as_bytes())
    }
}

/// What the settings of a Django site say about static files.
struct Django {
    url: String,
    root: Option<String>,
    has_finders: bool,
    /// A middleware of it serves them.
    serves_itself: bool,
}

impl Django {
    /// None if Django is not there, or not set up.
    fn find(py: Python<'_>) -> PyResult<Option<Self>> {
        let modules = py.import("sys")?.getattr("modules")?;
        if !modules.contains("django.core.handlers.wsgi")? {
            return Ok(None);
        }
        let settings = py.import("django.conf")?.getattr("settings")?;
        if !settings.getattr("configured")?.is_truthy()? {
            return Ok(None);
        }
        let Some(url) = settings
            .getattr("STATIC_URL")?
            .extract::<Option<String>>()?
        else {
            return Ok(None);
        };
        let root = settings.getattr("STATIC_ROOT")?;
        let root = match root.is_none() {
            true => None,
            false => Some(root.str()?.extract::<String>()?),
        };
        let middleware: Vec<String> = settings
            .getattr("MIDDLEWARE")?
            .try_iter()?
            .map(|name| name?.extract())
            .collect::<PyResult<_>>()?;
        let apps = settings.getattr("INSTALLED_APPS")?;
        Ok(Some(Self {
            url,
            root: root.filter(|root| !root.is_empty()),
            has_finders: apps.contains("django.contrib.staticfiles")?,
            serves_itself: middleware
                .iter()
                .any(|name| name.starts_with("whitenoise.")),
        }))
    }

    /// `STATIC_URL`, if it is a path of this site below its root.
    fn path(&self) -> Option<String> {
        let is_path = !self.url.contains("://") && !self.url.starts_with("//");
        let path = format!("/{}", self.url.trim_start_matches('/'));
        (is_path && path.len() > 1 && !self.serves_itself).then_some(path)
    }

    fn advice(&self, path: &str) -> String {
        let first = match (&self.root, self.has_finders) {
            (_, false) => "add \"django.contrib.staticfiles\" to INSTALLED_APPS, set STATIC_ROOT, ",
            (None, true) => "set STATIC_ROOT in the settings of the site, ",
            (Some(_), true) => "",
        };
        let root = self.root.as_deref().unwrap_or("STATIC_ROOT");
        format!(
            "{first}run manage.py collectstatic, and write static = {{ \"{path}\" = \"{root}\" }}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn django(url: &str, root: Option<&str>) -> Django {
        Django {
            url: url.into(),
            root: root.map(str::to_owned),
            has_finders: true,
            serves_itself: false,
        }
    }

    #[test]
    fn only_a_path_of_the_site_is_of_concern() {
        for (url, path) in [
            ("/static/", Some("/static/")),
            ("static/", Some("/static/")),
            ("/", None),
            ("//cdn.example.com/", None),
            ("https://cdn.example.com/static/", None),
        ] {
            assert_eq!(django(url, None).path().as_deref(), path, "{url}");
        }
        let own = Django {
            serves_itself: true,
            ..django("/static/", None)
        };
        assert_eq!(own.path(), None);
    }

    #[test]
    fn the_advice_is_what_is_missing() {
        let none = django("/static/", None).advice("/static/");
        assert!(
            none.starts_with("set STATIC_ROOT") && none.contains("collectstatic"),
            "{none}"
        );
        let some = django("/static/", Some("/srv/static")).advice("/static/");
        assert_eq!(
            some,
            "run manage.py collectstatic, and write static = { \"/static/\" = \"/srv/static\" }"
        );
    }
}
