//! The certificates of the sites, by the listeners at which they are shown.

use std::sync::Arc;
use std::time::SystemTime;

use preforkd_worker::front::{Certificate, Certificates, Pem, Settings, Site, Tls};

use crate::tls::certificate::{Named, Pair};
use crate::tls::check::check;
use crate::tls::terms::{Address, ClientAuthority, Terms, check_issuers};
use crate::tls::tickets::Keys;

/// What clients can speak over TLS (RFC 7301), with HTTP/2 or without.
fn protocols(http2: bool) -> &'static [&'static str] {
    match http2 {
        true => &["h2", "http/1.1"],
        false => &["http/1.1"],
    }
}

/// What is agreed on with clients.
#[derive(Debug, Default)]
pub struct Agreed {
    /// At each socket; none where they speak no TLS.
    pub addresses: Vec<Option<Arc<Address>>>,
    /// Which certificates of clients each site asks for, in the order of the sites.
    pub policies: Vec<Option<Arc<[u8]>>>,
}

/// What is agreed on with clients, for each of the sockets, whose listeners have these names. `keys` are those of session tickets.
///
/// # Errors
/// What is wrong with a certificate or key; the whole message.
pub fn addresses(
    settings: &Settings,
    certificates: &Certificates,
    sockets: &[String],
    keys: &Arc<Keys>,
) -> Result<Agreed, String> {
    let with_terms = settings.sites.iter().filter_map(|site| {
        let is_secure = |name: &String| settings.listeners.get(name).is_some_and(|one| one.tls);
        if !site.listeners.iter().any(is_secure) {
            return None;
        }
        // Its socket must not speak plain instead.
        let Some(tls) = certificates.0.get(&site.name) else {
            return Some(Err(unusable(&site.name, "it has none")));
        };
        let protocols = protocols(settings.http2);
        Some(terms(&site.name, tls, protocols, keys).map(|terms| (site, terms)))
    });
    let sites = with_terms.collect::<Result<Vec<_>, _>>()?;
    let address = |name: &String| {
        let speaks_tls = |listener: &preforkd_worker::front::Listener| listener.tls;
        settings.listeners.get(name).filter(|one| speaks_tls(one))?;
        let here = || {
            sites
                .iter()
                .filter(|(site, _)| site.listeners.contains(name))
        };
        // A client that asks for no name, or for an unknown one.
        let default = here().find(|(site, _)| site.hosts.is_empty());
        let (_, default) = default.or_else(|| here().next())?;
        let mut address = Address::new(default.clone());
        for (site, terms) in here() {
            for host in &site.hosts {
                address.add(host, terms);
            }
        }
        Some(Arc::new(address))
    };
    let policy = |site: &Site| {
        let (_, terms) = sites.iter().find(|(with, _)| with.name == site.name)?;
        terms.client_policy().cloned()
    };
    Ok(Agreed {
        addresses: sockets.iter().map(address).collect(),
        policies: settings.sites.iter().map(policy).collect(),
    })
}

/// Something that is wrong with the certificates of a site.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The name of the site.
    pub site: String,
    /// Whether it can be served all the same.
    pub is_warning: bool,
    /// What is wrong.
    pub why: String,
}

/// What is wrong with the certificates of these sites.
pub fn flaws(certificates: &Certificates) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for (site, tls) in &certificates.0 {
        for Certificate { chain, key } in &tls.certificates {
            let (warnings, error) = match check(named(chain), named(key), SystemTime::now()) {
                Ok(verdict) => (verdict.warnings, None),
                Err(why) => (Vec::new(), Some(unusable(site, &why))),
            };
            let warnings = warnings.into_iter().map(|why| (true, doubtful(site, &why)));
            let all = warnings.chain(error.map(|why| (false, why)));
            flaws.extend(all.map(|(is_warning, why)| Flaw {
                site: site.clone(),
                is_warning,
                why,
            }));
        }
        let issuers = tls
            .client_ca
            .as_ref()
            .map(|ca| check_issuers(named(&ca.issuers)));
        if let Some(Err(why)) = issuers {
            flaws.push(Flaw {
                site: site.clone(),
                is_warning: false,
                why: format!("cannot check the certificates of clients of [site.{site}]: {why}"),
            });
        }
    }
    flaws
}

fn unusable(site: &str, why: &str) -> String {
    format!("cannot use the certificate of [site.{site}]: {why}")
}

fn doubtful(site: &str, why: &str) -> String {
    format!("clients will refuse the certificate of [site.{site}]: {why} (renew it)")
}

fn terms(site: &str, tls: &Tls, protocols: &[&str], keys: &Arc<Keys>) -> Result<Terms, String> {
    let wrong = |why: String| unusable(site, &why);
    let mut pairs = Vec::new();
    for certificate in &tls.certificates {
        let pair = Pair::load(named(&certificate.chain), named(&certificate.key)).map_err(wrong)?;
        // A worker that takes the place of one that has crashed must serve all the same.
        if let Err(why) = pair.check_time(SystemTime::now()) {
            log::error!("{}", doubtful(site, &why));
        }
        pairs.push(Arc::new(pair));
    }
    let authority = tls.client_ca.as_ref().map(|ca| ClientAuthority {
        issuers: named(&ca.issuers),
        is_required: ca.is_required,
    });
    Terms::new(pairs, protocols, authority, keys).map_err(wrong)
}

fn named(pem: &Pem) -> Named<'_> {
    Named {
        name: &pem.path,
        bytes: pem.text.as_bytes(),
    }
}
