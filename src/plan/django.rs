//! `static = "django"` in a site: the application of a Django site is asked where its static files are. What it answers is data: folders that the
//! user of the app may enter, below paths.

use std::collections::BTreeMap;

use preforkd_worker::settings::Mapping;
use preforkd_worker::text::clean;

use super::static_files::{DENIED, check_prefix};
use super::{App, Draft, Launch};
use crate::config::{Place, Site};

/// The most characters of what an application says.
const MOST: usize = 500;

impl Draft<'_> {
    /// The static files of the Django site that a site passes requests on to. Why there are none, or the workers that are launched with `launch`
    /// cannot serve them, is added to `warnings`.
    pub(super) fn django_files(
        &self,
        site: &Site,
        launch: &Launch,
        apps: &BTreeMap<String, App>,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeMap<String, Mapping>, Place> {
        if !site.static_files.by_django {
            return Ok(BTreeMap::new());
        }
        let wrong = |message: String| site.static_files.wrong(format!("static: {message}"));
        let (name, app) = self.django_app(site, apps).map_err(wrong)?;
        let mut missing = |why: &str| {
            warnings.push(format!(
                "[site.{}] static = \"django\", app {name}: {}",
                self.name,
                clean(why, MOST)
            ));
        };
        if let Some(why) = app.cannot_start() {
            missing(&format!(
                "it cannot be asked where its static files are: {why}"
            ));
            return Ok(BTreeMap::new());
        }
        let asking = app.launch.for_inspection();
        let asked = self.host.inspect(name, &asking, app.policy.start_timeout);
        let inspection = match asked {
            Ok(inspection) => inspection,
            Err(why) if !app.required => {
                missing(&format!(
                    "it cannot be asked where its static files are: {why}"
                ));
                return Ok(BTreeMap::new());
            }
            Err(why) => {
                return Err(wrong(format!(
                    "app {name} cannot be asked where its static files are: {why}"
                )));
            }
        };
        let Some(django) = inspection.django else {
            return Err(wrong(format!(
                "the application of app {name} is no Django site (write the folders: static = {{ \"/static/\" = \"FOLDER\" }})"
            )));
        };
        if let Some(why) = &django.static_files.missing {
            missing(why);
        }
        for (_, folders) in &django.static_files.folders {
            for folder in folders {
                if let Some(closed) = self.closed(folder, launch) {
                    let folder = folder.display();
                    missing(&format!("{closed}, so {folder} cannot be served: {DENIED}"));
                }
            }
        }
        let mappings = django.static_files.mappings();
        mappings
            .map(|(prefix, mapping)| {
                let prefix = clean(&prefix, MOST);
                check_prefix(&prefix).map_err(wrong)?;
                if !prefix.ends_with('/') {
                    return Err(wrong(format!(
                        "app {name} says {prefix:?}, which is the path of no folder"
                    )));
                }
                self.check_folders(app, &mapping).map_err(|why| {
                    wrong(format!(
                        "{why}, which app {name} names for its static files"
                    ))
                })?;
                Ok((prefix, mapping))
            })
            .collect()
    }

    /// The only app with `wsgi` that a site passes requests on to.
    fn django_app<'a>(
        &self,
        site: &'a Site,
        apps: &'a BTreeMap<String, App>,
    ) -> Result<(&'a str, &'a App), String> {
        let routes = site
            .routes
            .iter()
            .filter_map(|route| route.get_ref().app.as_ref());
        let mut named: Vec<&str> = site
            .app
            .iter()
            .chain(routes)
            .map(|app| app.as_str())
            .collect();
        named.sort_unstable();
        named.dedup();
        let named = named.into_iter();
        let named = named.filter_map(|name| Some((name, apps.get(name)?)));
        let named: Vec<_> = named.filter(|(_, app)| app.threads.is_some()).collect();
        match named[..] {
            [one] => Ok(one),
            [] => Err(
                "\"django\" is for a site with an app that has `wsgi` (write the folders: static = { \"/static/\" = \"FOLDER\" })"
                    .into(),
            ),
            _ => Err(format!(
                "\"django\" is for a site with one app that has `wsgi`, and this one has {} (write the folders: static = {{ \"/static/\" = \"FOLDER\" }})",
                named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" and ")
            )),
        }
    }

    /// The front may have rights that the app has not: it serves no folder for an app that the app itself could not open.
    fn check_folders(&self, app: &App, mapping: &Mapping) -> Result<(), String> {
        for folder in std::iter::once(&mapping.path).chain(&mapping.behind) {
            let shown = clean(&folder.to_string_lossy(), MOST);
            if !folder.is_absolute() || !self.host.is_folder(folder) {
                return Err(format!("there is no folder {shown}"));
            }
            if self
                .host
                .closed_to(folder, app.launch.user.as_ref())
                .is_some()
            {
                return Err(format!("the user of the app may not enter {shown}"));
            }
        }
        Ok(())
    }
}
