//! The sites as requests meet them: compiled once from the settings.

use std::sync::Arc;

use preforkd_http::{Chooser, Origin, Request};
use preforkd_worker::front::{Protocol, Settings, Target};
use preforkd_worker::settings::Mapping;

use crate::hosts::Hosts;
use crate::path::Normal;
use crate::routes::Routes;
use crate::scripts::{ending, names_one};

/// All sites.
#[derive(Debug)]
pub struct Sites {
    /// The name of each socket's listener, in the order of the sockets.
    sockets: Vec<String>,
    hosts: Hosts,
    sites: Vec<Site>,
}

#[derive(Debug)]
struct Site {
    routes: Routes,
    targets: Vec<Leads>,
    /// What the names of scripts end with that upstreams of the site run. No folder of static files shows one.
    endings: Vec<Vec<u8>>,
}

/// Where a route leads.
#[derive(Debug)]
struct Leads {
    target: Target,
    /// The number of its files, if it leads to files.
    files: Option<usize>,
    strip_prefix: bool,
    stream: bool,
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'a> {
    /// No site: RFC 9110 section 15.5.20.
    NoSite,
    /// A site, and none of its routes.
    NoRoute,
    /// A target.
    Target {
        /// What answers.
        target: &'a Target,
        /// The bytes at the beginning of the path that the target does not see.
        stripped: usize,
    },
}

impl Sites {
    /// Compiles the sites. `sockets` are the names of the listeners of all sockets, in the order of the sockets.
    pub fn new(settings: &Settings, sockets: Vec<String>) -> Self {
        let mut number = 0;
        let mut leads = |route: &preforkd_worker::front::Route| {
            let is_files = matches!(route.target, Target::Files(_));
            number += usize::from(is_files);
            Leads {
                target: route.target.clone(),
                files: is_files.then(|| number - 1),
                strip_prefix: route.strip_prefix,
                stream: route.stream && speaks_http(settings, &route.target),
            }
        };
        let mut compile = |site: &preforkd_worker::front::Site| Site {
            routes: Routes::new(&site.routes),
            targets: site.routes.iter().map(&mut leads).collect(),
            endings: endings(settings, site),
        };
        Self {
            sockets,
            hosts: Hosts::new(&settings.sites),
            sites: settings.sites.iter().map(&mut compile).collect(),
        }
    }

    /// The mappings of all files with their prefixes, by their numbers.
    pub fn files(settings: &Settings) -> Vec<(String, Mapping)> {
        let routes = settings.sites.iter().flat_map(|site| &site.routes);
        let files = routes.filter_map(|route| match &route.target {
            Target::Files(mapping) => Some((route.path.clone(), mapping.clone())),
            _ => None,
        });
        files.collect()
    }

    fn site(&self, request: Request<'_>, origin: &Origin) -> Option<&Site> {
        let listener = self.sockets.get(origin.listener)?;
        // RFC 9112 section 3.2.2: the authority of an absolute target stands above Host.
        let host = request.authority().or_else(|| request.field(b"host"));
        let number = self.hosts.site(listener, host)?;
        self.sites.get(number)
    }

    /// Whether the body of a request is passed on while it arrives.
    pub fn streams(&self, request: Request<'_>, origin: &Origin, path: &mut Normal) -> bool {
        let Some(site) = self.site(request, origin) else {
            return false;
        };
        path.set(request.path());
        let first = site.routes.of(path, request).next();
        first.is_some_and(|first| site.targets[first].stream)
    }

    /// What a request is for that no file answers.
    pub fn choose(&self, request: Request<'_>, origin: &Origin, path: &mut Normal) -> Choice<'_> {
        let Some(site) = self.site(request, origin) else {
            return Choice::NoSite;
        };
        path.set(request.path());
        let mut routes = site.routes.of(path, request);
        let hides = site.runs(path);
        let found = routes.find(|route| match &site.targets[*route].target {
            // Where a folder answers all, a script in it is nothing.
            Target::Files(mapping) => hides && !mapping.fallthrough,
            _ => true,
        });
        let Some(route) = found else {
            return Choice::NoRoute;
        };
        let leads = &site.targets[route];
        if leads.files.is_some() {
            return Choice::NoRoute;
        }
        let stripped = match leads.strip_prefix {
            true => site.routes.after(route, path),
            false => None,
        };
        Choice::Target {
            target: &leads.target,
            stripped: stripped.unwrap_or_default(),
        }
    }
}

impl Site {
    /// Whether a path is named like a script that an upstream runs.
    fn runs(&self, path: &Normal) -> bool {
        let mut endings = self.endings.iter();
        endings.any(|ending| names_one(path, ending))
    }
}

/// Whether what answers can be told a body of which nobody knows the end yet.
fn speaks_http(settings: &Settings, target: &Target) -> bool {
    let Target::Upstream(name) = target else {
        return false;
    };
    let upstream = settings.upstreams.get(name);
    upstream.is_none_or(|upstream| upstream.speech.protocol == Protocol::Http)
}

/// What the names of scripts end with that the upstreams of a site run.
fn endings(settings: &Settings, site: &preforkd_worker::front::Site) -> Vec<Vec<u8>> {
    let targets = site.routes.iter().map(|route| &route.target);
    let scripts = targets.filter_map(|target| match target {
        Target::Upstream(name) => settings.upstreams.get(name)?.speech.scripts.as_ref(),
        _ => None,
    });
    let mut endings: Vec<_> = scripts
        .map(|scripts| ending(&scripts.index).to_vec())
        .collect();
    endings.dedup();
    endings
}

/// Tells which files a request is for.
#[derive(Debug)]
pub struct FilesOfSites {
    sites: Arc<Sites>,
    path: Normal,
}

impl FilesOfSites {
    /// Of these sites.
    pub fn new(sites: Arc<Sites>) -> Self {
        Self {
            sites,
            path: Normal::default(),
        }
    }
}

impl Chooser for FilesOfSites {
    fn mapping(&mut self, request: Request<'_>, origin: &Origin) -> Option<usize> {
        let site = self.sites.site(request, origin)?;
        self.path.set(request.path());
        let first = site.routes.of(&self.path, request).next()?;
        site.targets[first].files.filter(|_| !site.runs(&self.path))
    }
}
