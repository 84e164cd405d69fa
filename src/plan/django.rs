//! `static = "django"` in a site: the application of a Django site is asked where its static files are. What it answers is data: folders that the
//! user of the app may enter, below paths.

use std::collections::{BTreeMap, BTreeSet};

use preforkd_worker::settings::Mapping;
use preforkd_worker::text::clean;
use serde::{Deserialize, Serialize};

use super::sites::FRONT;
use super::static_files::{DENIED, check_prefix};
use super::{App, Draft, Launch, Plan};
use crate::config::{Place, Site};

/// The most characters of what an application says.
const MOST: usize = 500;

/// What an application serves below which prefix.
type Mappings = BTreeMap<String, Mapping>;

/// What the application of a Django site has told of its static files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DjangoFiles {
    /// The app of the application.
    app: String,
    /// The mappings; `None` if they are not known, as the release is not about the app.
    mappings: Option<Mappings>,
}

#[cfg(test)]
impl DjangoFiles {
    /// What an app has told, for tests.
    pub fn example(app: &str, folder: Option<&str>) -> Self {
        let mapping = |folder: &str| Mapping {
            path: folder.into(),
            ..Mapping::default()
        };
        Self {
            app: app.into(),
            mappings: folder.map(|folder| [("/static/".into(), mapping(folder))].into()),
        }
    }
}

/// What a release is about. An application is loaded only if that is so of its app or of the front; what the others have told stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The apps; `None` for all sites.
    apps: Option<BTreeSet<String>>,
    /// What the running front has of each Django site.
    known: BTreeMap<String, DjangoFiles>,
}

impl Extent {
    /// A release about these apps of a configuration that runs.
    pub fn part(apps: BTreeSet<String>, running: &Plan) -> Self {
        if apps.contains(FRONT) {
            return Self::default();
        }
        let front = running.apps.get(FRONT);
        Self {
            apps: Some(apps),
            known: front.map(|front| front.django.clone()).unwrap_or_default(),
        }
    }

    fn is_about(&self, app: &str) -> bool {
        self.apps.as_ref().is_none_or(|apps| apps.contains(app))
    }

    /// What an app has told for a site.
    fn known(&self, site: &str, app: &str) -> Option<&Mappings> {
        let files = self.known.get(site).filter(|files| files.app == app);
        files?.mappings.as_ref()
    }
}

impl App {
    /// The apps whose Django sites have other static files by `newer` than by this one, where both are the front.
    pub fn other_static_files<'a>(&self, newer: &'a Self) -> BTreeSet<&'a str> {
        let is_other = |(site, new): &(&String, &DjangoFiles)| {
            let old = self.django.get(*site).filter(|old| old.app == new.app);
            new.mappings.is_some() && old.is_some_and(|old| old.mappings != new.mappings)
        };
        let others = newer.django.iter().filter(is_other);
        others.map(|(_, files)| files.app.as_str()).collect()
    }
}

impl Plan {
    /// The apps whose Django sites have other static files by `newer` than the front of this plan serves.
    pub fn other_static_files<'a>(&self, newer: &'a Self) -> BTreeSet<&'a str> {
        let fronts = self.apps.get(FRONT).zip(newer.apps.get(FRONT));
        fronts
            .map(|(old, new)| old.other_static_files(new))
            .unwrap_or_default()
    }

    /// Why the front of this plan cannot serve: the application of a Django site was not asked.
    pub fn not_asked(&self) -> Option<String> {
        let mut sites = self.apps.get(FRONT)?.django.iter();
        let (site, files) = sites.find(|(_, files)| files.mappings.is_none())?;
        let app = &files.app;
        Some(format!(
            "[site.{site}] static = \"django\" is new, and app {app} was not asked where its static files are (reload front too)"
        ))
    }
}

/// The applications that are asked, and what they have told.
pub(super) struct Asked<'a> {
    extent: &'a Extent,
    apps: &'a BTreeMap<String, App>,
    /// By the name of the site.
    pub(super) files: BTreeMap<String, DjangoFiles>,
}

impl<'a> Asked<'a> {
    /// None of these yet.
    pub(super) fn new(extent: &'a Extent, apps: &'a BTreeMap<String, App>) -> Self {
        Self {
            extent,
            apps,
            files: BTreeMap::new(),
        }
    }
}

impl Draft<'_> {
    /// The static files of the Django site that a site passes requests on to. Why there are none, or the workers that are launched with `launch`
    /// cannot serve them, is added to `warnings`.
    pub(super) fn django_files(
        &self,
        site: &Site,
        launch: &Launch,
        asked: &mut Asked,
        warnings: &mut Vec<String>,
    ) -> Result<Mappings, Place> {
        if !site.static_files.by_django {
            return Ok(Mappings::new());
        }
        let wrong = |message: String| site.static_files.wrong(format!("static: {message}"));
        let (name, app) = self.django_app(site, asked.apps).map_err(wrong)?;
        let known = asked.extent.known(self.name, name);
        let mappings = match asked.extent.is_about(name) {
            true => Some(self.told(site, launch, (name, app), known, warnings)?),
            false => known.cloned(),
        };
        let files = DjangoFiles {
            app: name.to_owned(),
            mappings: mappings.clone(),
        };
        asked.files.insert(self.name.to_owned(), files);
        Ok(mappings.unwrap_or_default())
    }

    /// What an app tells of its static files. If it is not required and cannot tell, what is known stays.
    fn told(
        &self,
        site: &Site,
        launch: &Launch,
        (name, app): (&str, &App),
        known: Option<&Mappings>,
        warnings: &mut Vec<String>,
    ) -> Result<Mappings, Place> {
        let wrong = |message: String| site.static_files.wrong(format!("static: {message}"));
        let mut missing = |why: &str| {
            warnings.push(format!(
                "[site.{}] static = \"django\", app {name}: {}",
                self.name,
                clean(why, MOST)
            ));
        };
        let mut unknown = |why: &str| match known {
            Some(known) => known.clone(),
            None => {
                missing(&format!(
                    "it cannot be asked where its static files are: {why}"
                ));
                Mappings::new()
            }
        };
        if let Some(why) = app.cannot_start() {
            return Ok(unknown(why));
        }
        let asking = app.launch.for_inspection();
        let asked = self.host.inspect(name, &asking, app.policy.start_timeout);
        let inspection = match asked {
            Ok(inspection) => inspection,
            Err(why) if !app.required => return Ok(unknown(&why)),
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
