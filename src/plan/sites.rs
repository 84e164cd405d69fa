//! `[site.NAME]` and `[front]`: the workers that serve all sites are one more app of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use preforkd_worker::contract::Kind;
use preforkd_worker::env;
use preforkd_worker::front::{self, Certificates, Settings};

use super::acme::{self, Acme};
use super::certificates;
use super::django::Asked;
use super::lacking::Lacking;
use super::layers;
use super::shared_logs::Use;
use super::site_names::{self, Claims};
use super::sockets;
use super::static_files::DENIED;
use super::upstreams::Reached;
use super::{
    App, Draft, Extent, Hang, Host, Launch, Listener, Output, Plan, Recycle, Rights, Secret, Stop,
    is_app_name,
};
use crate::config::{Address, Config, Place, Sources, Stdin};
use crate::supervisor::Readiness;

/// The name of the app that serves the sites.
pub const FRONT: &str = "front";

/// The listeners of all sites, in the order in which the workers get them.
#[derive(Default)]
struct Sockets {
    all: Vec<Listener>,
    /// Which of them speak TLS.
    tls: Vec<bool>,
}

/// The apps that sites name.
///
/// # Errors
/// One of them cannot be reached.
pub(super) fn reached(
    config: &Config,
    control: Option<&Path>,
    sources: &Sources,
    host: &dyn Host,
) -> Result<Reached, Place> {
    let Some((first, site)) = config.site.iter().next() else {
        return Ok(Reached::default());
    };
    let (written, none, nobody) = (
        config.front.as_app(site),
        BTreeMap::new(),
        Reached::default(),
    );
    let draft = Draft {
        name: FRONT,
        header: first.span(),
        written: &written,
        all: &none,
        folder: sources.folder(0),
        host,
        lacking: Lacking::default(),
        reached: &nobody,
    };
    let (user, _) = draft.user()?;
    let file = sources.folder(0).join(sources.name(0));
    Reached::find(config, control, &file, host, user.as_ref())
}

/// The workers that serve all sites, and the log files that they write; `None` without sites. Their listeners are added to the plan, which has
/// all apps.
///
/// # Errors
/// The first error, with its position.
pub(super) fn front(
    config: &Config,
    sources: &Sources,
    host: &dyn Host,
    extent: &Extent,
    reached: &Reached,
    plan: &mut Plan,
) -> Result<Option<(App, Vec<Use>)>, Place> {
    let Some((first, site)) = config.site.iter().next() else {
        return Ok(None);
    };
    let written = config.front.as_app(site);
    let none = BTreeMap::new();
    let draft = Draft {
        name: FRONT,
        header: first.span(),
        written: &written,
        all: &none,
        folder: sources.folder(0),
        host,
        lacking: Lacking::default(),
        reached,
    };
    let mut warnings = Vec::new();
    let mut launch = draft.launch_of_front(config, &mut warnings)?;
    let mut sockets = Sockets::default();
    let (mut sites, mut claims) = (Vec::new(), Claims::default());
    let mut upstreams = reached.upstreams(config, &plan.apps)?;
    for (name, upstream) in &upstreams {
        let scripts = upstream.speech.scripts.as_ref();
        if let Some(closed) = scripts.and_then(|scripts| draft.closed(&scripts.root, &launch)) {
            warnings.push(format!(
                "root of app {name}: {closed}, so no script of it is found: {DENIED}"
            ));
        }
    }
    let mut certificates = BTreeMap::new();
    let mut asked = Asked::new(extent, &plan.apps);
    let state = acme::state(config, sources, host);
    let mut acme = Acme::new(config, &draft, state, &launch.program, launch.user.as_ref())?;
    for (name, site) in &config.site {
        if !is_app_name(name.get_ref()) {
            let message = format!(
                "\"{}\" is not a valid name for a site (use letters, digits, - and _ only)",
                name.get_ref()
            );
            return Err(Place::at(name.span(), message));
        }
        let written = config.front.as_app(site);
        let draft = Draft {
            name: name.get_ref(),
            header: name.span(),
            written: &written,
            folder: sources.folder(name.span().start),
            lacking: Lacking::default(),
            ..draft
        };
        let hosts = site_names::hosts(site)?;
        let tls = draft.tls(site, &hosts, &mut acme, &mut warnings)?;
        let own = draft.sockets_of_site(&plan.listeners, tls.is_some(), &mut sockets)?;
        if let (Some(redirect), Some(_)) = (&site.redirect, &tls)
            && redirect.0.to.as_str() == "https"
        {
            return Err(redirect.wrong(
                "redirect: the site speaks TLS itself, and would send its clients in a circle (write it in a site without `tls`)",
            ));
        }
        upstreams.extend(draft.outside(site, &launch)?);
        claims.add(name, site, &hosts, &own)?;
        sites.push(front::Site {
            name: name.get_ref().clone(),
            listeners: own.iter().map(|address| sockets.name(address)).collect(),
            hosts,
            routes: draft.routes(site, &launch, &mut asked, &mut warnings)?,
            layers: draft.layers_of_site(site, tls.is_some(), &launch, &mut warnings)?,
        });
        certificates.extend(tls.map(|tls| (name.get_ref().clone(), tls)));
    }
    for ((name, _), site) in config.site.iter().zip(&sites) {
        layers::check_asked(site, &upstreams).map_err(|why| Place::at(name.span(), why))?;
    }
    let mut http = draft.http(&mut warnings)?;
    layers::widen(&mut http.max_body, &mut sites);
    let outlines = sites.iter().map(front::Site::outline).collect();
    let settings = Settings {
        http,
        listeners: sockets.settings(),
        sites,
        upstreams,
        upgrade_timeout: config.front.upgrade_timeout.0,
        cache_size: config.front.cache_size.0,
        http2: *config.front.http2,
        max_connections_per_client: config
            .front
            .max_connections_per_client
            .as_ref()
            .map(|number| number.0),
    };
    let encoded = |made: Result<String, serde_json::Error>| {
        made.map_err(|error| {
            draft.wrong(format!(
                "the settings of the workers that serve sites cannot be encoded: {error}"
            ))
        })
    };
    launch.settings = Some(Secret(encoded(settings.encode())?));
    let certificates = match certificates.is_empty() {
        true => None,
        false => {
            let all = encoded(Certificates(certificates).encode())?;
            certificates::check(config, &all, &launch.program, host, &mut warnings)?;
            Some(Secret(all))
        }
    };
    let output = Output {
        taken_over: true,
        ..draft.output()?
    };
    let uses = draft.log_uses(&output);
    let mut app = draft.app_of_front(launch, output, &sockets, warnings)?;
    app.certificates = certificates;
    app.sites = outlines;
    app.django = asked.files;
    acme.prefer(sockets.plain());
    app.acme = (!acme.sites.is_empty()).then_some(acme);
    app.after = reached.names().cloned().collect();
    plan.listeners.extend(sockets.all);
    Ok(Some((app, uses)))
}

impl Sockets {
    /// The name of a listener among those of the front.
    fn name(&self, address: &str) -> String {
        let mut all = self.all.iter();
        let at = all.position(|known| known.address.to_string() == *address);
        at.unwrap_or(self.all.len()).to_string()
    }

    /// The addresses without TLS.
    fn plain(&self) -> impl Iterator<Item = &Address> {
        let all = self.all.iter().zip(&self.tls);
        all.filter(|(_, tls)| !**tls)
            .map(|(known, _)| &known.address)
    }

    fn settings(&self) -> BTreeMap<String, front::Listener> {
        let all = self.all.iter().zip(&self.tls).map(|(known, &tls)| {
            let address = known.address.to_string();
            (self.name(&address), front::Listener { address, tls })
        });
        all.collect()
    }
}

impl Draft<'_> {
    fn launch_of_front(
        &self,
        config: &Config,
        warnings: &mut Vec<String>,
    ) -> Result<Launch, Place> {
        let program = self.host.front().map_err(|message| self.wrong(message))?;
        let (user, login) = self.user()?;
        if self.host.own_ids().0 == 0 && config.front.user.is_none() {
            warnings.push(
                "its workers run as root, because [front] has no `user`: whoever finds a fault in them is root (add for example user = \"www-data\")"
                    .into(),
            );
        }
        let kind = (env::KIND.to_owned(), Kind::Front.name().to_owned());
        let login = login
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Ok(Launch {
            args: vec![program.to_string_lossy().into_owned()],
            program,
            env: login.chain([kind]).collect(),
            chdir: PathBuf::from("/"),
            release: PathBuf::from("/"),
            user,
            rights: Rights::default(),
            env_clear: false,
            umask: None,
            settings: None,
        })
    }

    /// The addresses of a site. Those that no other site has are added to `sockets`.
    fn sockets_of_site(
        &self,
        of_apps: &[Listener],
        tls: bool,
        sockets: &mut Sockets,
    ) -> Result<Vec<String>, Place> {
        let mut own: Vec<String> = Vec::new();
        for entry in &*self.written.listen {
            let (place, written) = (entry.span(), &entry.get_ref().0);
            let wrong = |message: String| Place::at(place.clone(), format!("listen: {message}"));
            let address = self
                .address(written)
                .map_err(|message| Place::at(place.clone(), message))?;
            if let Address::Unix(path) = &address {
                self.check_folder(path, place.clone())?;
            }
            let shown = address.to_string();
            if let Some(name) = &written.name {
                return Err(name.wrong("listen: `name` is for the listeners of an app (remove it)"));
            }
            if of_apps.iter().any(|other| other.address == address) {
                return Err(wrong(format!(
                    "{shown} is the address of an app too (choose another one)"
                )));
            }
            let mut others = of_apps.iter().chain(&sockets.all);
            if let Some(other) =
                others.find(|other| other.address != address && other.address.excludes(&address))
            {
                return Err(Place::at(place, sockets::both(&address, &other.address)));
            }
            if own.contains(&shown) {
                return Err(wrong(format!("{shown} is configured twice (remove one)")));
            }
            let listener = self.listener(written, address)?;
            let mut known = sockets.all.iter().zip(&sockets.tls);
            match known.find(|(known, _)| known.address == listener.address) {
                Some((known, _)) if *known != listener => {
                    return Err(wrong(format!(
                        "{shown} has another mode, owner or group in another site (write the same)"
                    )));
                }
                Some((_, theirs)) if *theirs != tls => {
                    let (with, without) = match tls {
                        true => ("this site", "another one"),
                        false => ("another site", "this one"),
                    };
                    return Err(wrong(format!(
                        "{shown} cannot speak TLS for {with} and not for {without} (write `tls` in both, or choose another address)"
                    )));
                }
                Some(_) => {}
                None => {
                    sockets.all.push(listener);
                    sockets.tls.push(tls);
                }
            }
            own.push(shown);
        }
        match own.is_empty() {
            true => Err(self.wrong(format!(
                "[site.{}] has no listener (add for example listen = [\"0.0.0.0:80\"])",
                self.name
            ))),
            false => Ok(own),
        }
    }

    fn app_of_front(
        &self,
        launch: Launch,
        output: Output,
        sockets: &Sockets,
        warnings: Vec<String>,
    ) -> Result<App, Place> {
        let mut notices = Vec::new();
        let mut policy = self.policy(Readiness::Notify, false, true, &mut notices)?;
        policy.announces_end = true;
        let named = sockets.all.iter().enumerate();
        let named = named.map(|(number, known)| (number.to_string(), known.address.clone()));
        Ok(App {
            sockets: named.collect(),
            files: self.files_behind(&launch),
            launch,
            certificates: None,
            sites: Vec::new(),
            django: BTreeMap::new(),
            acme: None,
            template: false,
            policy,
            threads: None,
            own_address: None,
            speech: front::Speech::default(),
            own_listener: None,
            is_reached: false,
            is_told: false,
            stdin: Stdin::Null,
            stop: Stop::default(),
            hang: Hang::Unseen,
            recycle: Recycle {
                max_age: None,
                max_memory: None,
            },
            before: None,
            before_at_start: false,
            check: None,
            enabled: true,
            // A deploy of an app closes no connection of a client.
            on_change: true,
            output,
            warnings,
            notices,
            after: BTreeSet::new(),
            required: true,
            unfit: None,
            missing: None,
        })
    }
}
