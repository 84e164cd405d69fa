//! The layers of a site and its routes, compiled from the settings.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use preforkd_http::TrustedProxies as Clients;
use preforkd_http::layer::Page;
use preforkd_worker::front::{Route, Site};
use preforkd_worker::layers::{self, BasicAuth, Changes, ForwardAuth, Layers};
use preforkd_worker::settings::Coding;

use super::access::{Access, is_in};
use super::auth::Users;
use super::forward::Asked;
use super::rate::Limit;
use super::sendfile::Folders;
use super::values::has_values;

/// The layers of a site.
#[derive(Debug)]
pub struct OfSite {
    own: Rules,
    routes: Vec<Rules>,
    /// Whether a response may be compressed.
    pub compresses: bool,
    /// Whether values of requests stand in fields of responses.
    pub fills_responses: bool,
    /// Fields that no client can send, whatever its route: answers to a question whether requests may pass.
    pub strip: Changes,
}

/// What is done for a site or route.
#[derive(Debug)]
pub struct Rules {
    /// Who is served.
    pub access: Access,
    /// What answers all others than those.
    pub maintenance: Option<Maintenance>,
    /// How many requests a client may send.
    pub limits: Vec<Limit>,
    /// Whether responses are kept.
    pub cache: Option<bool>,
    /// The largest body.
    pub max_body: Option<u64>,
    /// Changes in the heads of responses.
    pub changes: Changes,
    /// Changes in the heads of requests, on their way to an upstream.
    pub request_changes: Changes,
    /// The codings of compressed responses.
    pub compress: Option<Vec<Coding>>,
    pages: BTreeMap<u16, Arc<Page>>,
    /// Who is asked for a password: the users, or nobody.
    users: Option<Option<Users>>,
    /// Who is asked whether a request may pass: somebody, or nobody.
    asked: Option<Option<Arc<Asked>>>,
    /// What an application may have sent.
    sendfile: Option<Arc<Folders>>,
}

/// What answers while a site is not served.
#[derive(Debug)]
pub struct Maintenance {
    page: Arc<Page>,
    /// In seconds.
    pub retry_after: u64,
    except: Clients,
}

impl OfSite {
    /// Of these settings; none if there are none. `next` is the number of the next mapping among the files of all sites.
    pub fn new(site: &Site, next: &mut usize) -> Option<Self> {
        let mut all = site.routes.iter().map(|route| &route.layers);
        if site.layers.is_empty() && all.all(Layers::is_empty) {
            return None;
        }
        // In the order of [`sendfile`].
        let own = Rules::new(&site.layers, &site.name, next);
        let of_route = |route: &Route| {
            let conditions = (&route.methods, &route.headers);
            let place = format!("{} {} {conditions:?}", site.name, route.path);
            Rules::new(&route.layers, &place, next)
        };
        let routes: Vec<_> = site.routes.iter().map(of_route).collect();
        let compresses = |rules: &Rules| rules.compress.iter().flatten().next().is_some();
        let compresses = compresses(&own) || routes.iter().any(compresses);
        let fills_responses = |rules: &Rules| has_values(&rules.changes);
        let fills_responses = routes.iter().chain([&own]).any(fills_responses);
        let asked = routes.iter().chain([&own]);
        let asked = asked.filter_map(|rules| rules.asked.as_ref()?.as_ref());
        let strip = Changes {
            remove: asked.flat_map(|asked| asked.strip.remove.clone()).collect(),
            ..Changes::default()
        };
        Some(Self {
            own,
            routes,
            compresses,
            fills_responses,
            strip,
        })
    }

    /// The rules for a request with this route: those of the site, then those of the route.
    pub fn rules(&self, route: Option<usize>) -> impl DoubleEndedIterator<Item = &Rules> {
        let of_route = route.and_then(|route| self.routes.get(route));
        [&self.own].into_iter().chain(of_route)
    }

    /// Whether requests are counted.
    pub fn counts(&self) -> bool {
        let mut rules = self.routes.iter().chain([&self.own]);
        rules.any(|rules| !rules.limits.is_empty())
    }

    /// Whether somebody is asked for a password.
    pub fn asks(&self) -> bool {
        let mut rules = self.routes.iter().chain([&self.own]);
        rules.any(|rules| matches!(rules.users, Some(Some(_))))
    }

    /// The users that are served: what the route says, or else the site.
    pub fn users(&self, route: Option<usize>) -> Option<&Users> {
        let mut rules = self.rules(route).rev();
        rules.find_map(|rules| rules.users.as_ref())?.as_ref()
    }

    /// Who is asked whether a request may pass: what the route says, or else the site.
    pub fn asked(&self, route: Option<usize>) -> Option<&Arc<Asked>> {
        let mut rules = self.rules(route).rev();
        rules.find_map(|rules| rules.asked.as_ref())?.as_ref()
    }

    /// The codings of compressed responses: what the route says, or else the site.
    pub fn codings(&self, route: Option<usize>) -> &[Coding] {
        let mut rules = self.rules(route).rev();
        let said = rules.find_map(|rules| rules.compress.as_deref());
        said.unwrap_or_default()
    }

    /// Whether responses are kept: what the route says, or else the site.
    pub fn caches(&self, route: Option<usize>) -> bool {
        let mut rules = self.rules(route).rev();
        rules.find_map(|rules| rules.cache).unwrap_or(false)
    }

    /// The largest body: what the route says, or else the site.
    pub fn max_body(&self, route: Option<usize>) -> Option<u64> {
        self.rules(route).rev().find_map(|rules| rules.max_body)
    }

    /// The folders of which an application may have files sent: what the route says, or else the site.
    pub fn sendfile(&self, route: Option<usize>) -> Option<&Arc<Folders>> {
        let mut rules = self.rules(route).rev();
        rules.find_map(|rules| rules.sendfile.as_ref())
    }

    /// The page for a status: that of the route, or else of the site.
    pub fn page(&self, route: Option<usize>, status: u16) -> Option<Arc<Page>> {
        let mut rules = self.rules(route).rev();
        rules.find_map(|rules| rules.pages.get(&status).cloned())
    }
}

impl Rules {
    /// `place` is the site and the route.
    fn new(layers: &Layers, place: &str, next: &mut usize) -> Self {
        let limits = layers.rate_limits.iter().enumerate();
        let limits = limits.map(|(at, limit)| {
            let same = layers.rate_limits[..at].iter();
            let number = same.filter(|other| *other == limit).count();
            Limit::new(limit, &format!("{place} {number}"))
        });
        let pages = layers.error_pages.iter();
        Self {
            access: Access::new(layers),
            maintenance: layers.maintenance.as_ref().map(|written| Maintenance {
                page: page(&written.page),
                retry_after: written.retry_after,
                except: written.except[..].into(),
            }),
            limits: limits.collect(),
            cache: layers.cache,
            max_body: layers.max_body,
            changes: layers.response_headers.clone(),
            request_changes: layers.request_headers.clone(),
            compress: layers.compress.clone(),
            users: match &layers.basic_auth {
                BasicAuth::Unsaid => None,
                BasicAuth::Nobody => Some(None),
                BasicAuth::All { realm, users } => Some(Some(Users::new(realm, users))),
            },
            asked: match &layers.forward_auth {
                ForwardAuth::Unsaid => None,
                ForwardAuth::Nobody => Some(None),
                ForwardAuth::Asks(question) => Some(Some(Arc::new(Asked::new(question)))),
            },
            sendfile: layers
                .sendfile
                .as_ref()
                .map(|written| Arc::new(Folders::new(written, next))),
            pages: pages.map(|(status, text)| (*status, page(text))).collect(),
        }
    }
}

impl Maintenance {
    /// The page that a client gets; none if it is served all the same.
    pub fn answer(&self, client: Option<IpAddr>) -> Option<&Arc<Page>> {
        (!is_in(&self.except, client)).then_some(&self.page)
    }
}

/// The folders of a site and its routes of which applications may have files sent, in the order of their numbers.
pub fn sendfile(site: &Site) -> impl Iterator<Item = &PathBuf> {
    let routes = site.routes.iter().map(|route| &route.layers);
    let all = [&site.layers].into_iter().chain(routes);
    all.filter_map(|layers| layers.sendfile.as_ref())
        .flat_map(BTreeMap::values)
}

fn page(written: &layers::Page) -> Arc<Page> {
    Arc::new(Page {
        content_type: written.content_type.clone(),
        text: written.text.clone(),
    })
}
