//! The sites as requests meet them: compiled once from the settings.

use std::sync::Arc;

use preforkd_http::{Chooser, Origin, Request};
use preforkd_worker::front::{Settings, Target};
use preforkd_worker::settings::Mapping;

use crate::hosts::Hosts;
use crate::layers::auth::known::Known;
use crate::layers::gate::{Noted, has_body};
use crate::layers::of_site::{self, OfSite};
use crate::layers::readings;
use crate::path::{Normal, normal};
use crate::proofs::Proofs;
use crate::routes::Routes;
use crate::scope::Policies;
use crate::scripts::{ending, names_one};

/// All sites.
#[derive(Debug)]
pub struct Sites {
    /// The name of each socket's listener, in the order of the sockets.
    sockets: Vec<String>,
    hosts: Hosts,
    sites: Vec<Site>,
    policies: Arc<Policies>,
    known: Known,
}

#[derive(Debug)]
struct Site {
    name: String,
    /// The mark of its requests. Behind it come those of its routes.
    mark: u32,
    routes: Routes,
    targets: Vec<Leads>,
    /// None for a site that uses none.
    layers: Option<OfSite>,
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
    rewrite: Option<Vec<u8>>,
    stream: bool,
}

impl Leads {
    /// Whether the target does not see the whole path.
    fn strips(&self) -> bool {
        self.strip_prefix || matches!(self.target, Target::Redirect { .. })
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'a> {
    /// No site: RFC 9110 section 15.5.20.
    NoSite,
    /// A site for which this connection may not be used.
    Misdirected,
    /// A site, and none of its routes.
    NoRoute,
    /// A target.
    Target {
        /// What answers.
        target: &'a Target,
        /// The bytes at the beginning of the path that the target does not see.
        stripped: usize,
        /// What the target sees in their place.
        rewrite: Option<&'a [u8]>,
        /// The number of the route.
        route: usize,
    },
}

/// A request of a site that has layers.
#[derive(Debug)]
pub struct Layered<'a> {
    /// The number of the site.
    pub site: usize,
    /// The layers of the site.
    pub layers: &'a OfSite,
    /// The numbers of the routes that it may take, by all ways to read its path; first the one that it takes.
    pub routes: Vec<usize>,
    /// There is a route that it takes.
    pub has_route: bool,
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
                strip_prefix: route.strip_prefix || route.rewrite.is_some(),
                rewrite: route.rewrite.clone().map(String::into_bytes),
                stream: route.stream && speaks_http(settings, &route.target),
            }
        };
        let mut next = number_of_files(settings);
        let mut marks = 1;
        let mut mark = |routes: usize| {
            let first = marks;
            // There is no room for more routes than that in the settings.
            marks += 1 + u32::try_from(routes).unwrap_or_default();
            first
        };
        let mut compile = |site: &preforkd_worker::front::Site| Site {
            name: site.name.clone(),
            mark: mark(site.routes.len()),
            routes: Routes::new(&site.routes),
            targets: site.routes.iter().map(&mut leads).collect(),
            layers: OfSite::new(site, &mut next),
            endings: endings(settings, site),
        };
        Self {
            sockets,
            hosts: Hosts::new(&settings.sites),
            sites: settings.sites.iter().map(&mut compile).collect(),
            policies: Arc::default(),
            known: Known::default(),
        }
    }

    /// The same, where these sites ask for certificates of clients.
    pub fn with_policies(self, policies: Arc<Policies>) -> Self {
        Self { policies, ..self }
    }

    /// The mappings of all files with their prefixes, by their numbers; behind those of routes come those of which applications may have
    /// files sent.
    pub fn files(settings: &Settings) -> Vec<(String, Mapping)> {
        let routes = settings.sites.iter().flat_map(|site| &site.routes);
        let files = routes.filter_map(|route| match &route.target {
            Target::Files(mapping) => Some((route.path.clone(), mapping.clone())),
            _ => None,
        });
        let named = settings.sites.iter().flat_map(of_site::sendfile);
        let named = named.map(|folder| {
            let path = folder.clone();
            let mapping = Mapping {
                path,
                ..Mapping::default()
            };
            ("/".to_owned(), mapping)
        });
        files.chain(named).collect()
    }

    /// The site of a request; none if there is none, or if the connection may not be used for it.
    fn site(&self, request: Request<'_>, origin: &Origin) -> Option<&Site> {
        let site = match self.marked(request.marked()) {
            Some(site) => site,
            None => {
                let (number, allowed) = self.number(request, origin)?;
                self.sites.get(number).filter(|_| allowed)?
            }
        };
        request.mark(site.mark);
        Some(site)
    }

    /// The site of requests with this mark. Only those are marked whose connection may be used for their site.
    fn marked(&self, mark: u32) -> Option<&Site> {
        let following = self.sites.partition_point(|site| site.mark <= mark);
        self.sites.get(following.checked_sub(1)?)
    }

    /// The number of the site, and whether the connection may be used for it.
    fn number(&self, request: Request<'_>, origin: &Origin) -> Option<(usize, bool)> {
        let listener = self.sockets.get(origin.listener)?;
        // RFC 9112 section 3.2.2: the authority of an absolute target stands above Host.
        let host = request.authority().or_else(|| request.field(b"host"));
        let number = self.hosts.site(listener, host)?;
        let tls = request.facts().and_then(|facts| facts.tls.as_deref());
        let by_name = |name: &[u8]| self.hosts.site(listener, Some(name));
        let allowed = tls.is_none_or(|tls| self.policies.allow(number, host, tls, by_name));
        Some((number, allowed))
    }

    /// Whether a site has layers.
    pub fn have_layers(&self) -> bool {
        self.sites.iter().any(|site| site.layers.is_some())
    }

    /// The passwords that were found to be right.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Whether a site asks for passwords.
    pub fn ask(&self) -> bool {
        let mut layers = self.sites.iter().filter_map(|site| site.layers.as_ref());
        layers.any(OfSite::asks)
    }

    /// Whether a site counts requests.
    pub fn count(&self) -> bool {
        let mut layers = self.sites.iter().filter_map(|site| site.layers.as_ref());
        layers.any(OfSite::counts)
    }

    /// The name of a site.
    pub fn name(&self, site: usize) -> &str {
        self.sites.get(site).map_or("", |site| &site.name)
    }

    /// The layers of a site.
    pub fn layers(&self, site: usize) -> Option<&OfSite> {
        self.sites.get(site)?.layers.as_ref()
    }

    /// The layers for a request; none if its site has none.
    pub fn layered(&self, request: Request<'_>, origin: &Origin) -> Option<Layered<'_>> {
        let (number, _) = self
            .number(request, origin)
            .filter(|(_, allowed)| *allowed)?;
        let site = self.sites.get(number)?;
        let layers = site.layers.as_ref()?;
        let taken = |path: &Normal| site.routes.of(path, request).next();
        let path = normal(request.path());
        let first = taken(&path);
        request.mark(site.mark_of(first));
        let mut routes: Vec<usize> = first.into_iter().collect();
        // What has a body must not have to wait once that was read.
        if has_body(request) || !matches!(request.method(), b"GET" | b"HEAD") {
            let below = site.routes.of(&path, request).skip(1);
            let passes = |route: &usize| matches!(&site.targets[*route].target, Target::Files(mapping) if mapping.fallthrough);
            let mut last = first;
            routes.extend(
                below.take_while(|next| last.replace(*next).is_some_and(|last| passes(&last))),
            );
        }
        for path in readings::others(request.path()) {
            if let Some(route) = taken(&path)
                && !routes.contains(&route)
            {
                routes.push(route);
            }
        }
        Some(Layered {
            site: number,
            layers,
            routes,
            has_route: first.is_some(),
        })
    }

    /// The upstream that is to get the body of a request, and whether its route has it get it while it arrives.
    pub fn taker(
        &self,
        request: Request<'_>,
        origin: &Origin,
        path: &mut Normal,
    ) -> Option<(&str, bool)> {
        let site = self.site(request, origin)?;
        path.set(request.path());
        let first = site.routes.of(path, request).next()?;
        request.mark(site.mark_of(Some(first)));
        match &site.targets[first] {
            Leads {
                stream,
                target: Target::Upstream(name),
                ..
            } => Some((name, *stream)),
            _ => None,
        }
    }

    /// What a request is for that no file answers.
    pub fn choose(&self, request: Request<'_>, origin: &Origin, path: &mut Normal) -> Choice<'_> {
        let marked = request.marked();
        let Some(site) = self.site(request, origin) else {
            return match self.number(request, origin) {
                Some(_) => Choice::Misdirected,
                None => Choice::NoSite,
            };
        };
        let found = match site.found(marked) {
            Some(route) => {
                if site.targets[route].strips() {
                    path.set(request.path());
                }
                Some(route)
            }
            None => {
                path.set(request.path());
                site.find(path, request)
            }
        };
        request.mark(site.mark_of(found));
        let Some(route) = found else {
            return Choice::NoRoute;
        };
        let leads = &site.targets[route];
        if leads.files.is_some() {
            return Choice::NoRoute;
        }
        let stripped = match leads.strips() {
            true => site.routes.after(route, path),
            false => None,
        };
        Choice::Target {
            target: &leads.target,
            stripped: stripped.unwrap_or_default(),
            rewrite: leads.rewrite.as_deref(),
            route,
        }
    }
}

impl Site {
    /// The mark of requests for a route.
    fn mark_of(&self, route: Option<usize>) -> u32 {
        let route = route.and_then(|route| u32::try_from(route).ok());
        self.mark + route.map_or(0, |route| route + 1)
    }

    /// The route for a request that no file answers.
    fn find(&self, path: &Normal, request: Request<'_>) -> Option<usize> {
        let hides = self.runs(path);
        let mut routes = self.routes.of(path, request);
        routes.find(|route| match &self.targets[*route].target {
            // Where a folder answers all, a script in it is nothing.
            Target::Files(mapping) => hides && !mapping.fallthrough,
            _ => true,
        })
    }

    /// The route that [`Site::find`] would find for a request of this site with this mark, if the mark says it. Layers mark a request
    /// before others have removed fields of it, and another route may follow one that leads to files.
    fn found(&self, mark: u32) -> Option<usize> {
        let route = usize::try_from(mark.checked_sub(self.mark + 1)?).ok()?;
        let leads = self.targets.get(route)?;
        let is_certain = self.layers.is_none() && leads.files.is_none();
        is_certain.then_some(route)
    }

    /// Whether a path is named like a script that an upstream runs.
    fn runs(&self, path: &Normal) -> bool {
        let mut endings = self.endings.iter();
        endings.any(|ending| names_one(path, ending))
    }
}

/// How many routes lead to files.
fn number_of_files(settings: &Settings) -> usize {
    let routes = settings.sites.iter().flat_map(|site| &site.routes);
    routes
        .filter(|route| matches!(route.target, Target::Files(_)))
        .count()
}

/// Whether what answers can be told a body of which nobody knows the end yet.
fn speaks_http(settings: &Settings, target: &Target) -> bool {
    let Target::Upstream(name) = target else {
        return false;
    };
    let upstream = settings.upstreams.get(name);
    upstream.is_none_or(|upstream| upstream.speech.protocol.is_http())
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
    proofs: Arc<Proofs>,
    path: Normal,
}

impl FilesOfSites {
    /// Of these sites; no file stands in the way of a proof.
    pub fn new(sites: Arc<Sites>, proofs: Arc<Proofs>) -> Self {
        Self {
            sites,
            proofs,
            path: Normal::default(),
        }
    }
}

impl Chooser for FilesOfSites {
    fn mapping(&mut self, request: Request<'_>, origin: &Origin) -> Option<usize> {
        let is_held = Noted::of(request).is_some_and(Noted::is_held);
        if is_held || self.proofs.find(request).is_some() {
            return None;
        }
        let site = self.sites.site(request, origin)?;
        self.path.set(request.path());
        let first = site.routes.of(&self.path, request).next()?;
        request.mark(site.mark_of(Some(first)));
        site.targets[first].files.filter(|_| !site.runs(&self.path))
    }
}
