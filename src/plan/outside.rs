//! `to` of a route: upstreams that preforkd does not start.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use preforkd_worker::front::{Protocol, Speech, Upstream};
use toml::Spanned;

use super::speech::{missing, scripts};
use super::upstreams::upstream;
use super::{Draft, Launch, normal};
use crate::config::{App, Place, Route, Site, Value};

/// What an address begins with that names its protocol.
const PROTOCOLS: [(&str, Protocol); 5] = [
    ("http:", Protocol::Http),
    ("h2c:", Protocol::H2c),
    ("fastcgi:", Protocol::FastCgi),
    ("scgi:", Protocol::Scgi),
    ("uwsgi:", Protocol::Uwsgi),
];

/// The name of the upstream of a route: routes to the same addresses share one. No app has a name with a colon.
pub(super) fn name(to: &[Spanned<String>], route: &Route) -> String {
    let root = route.root.as_ref().map(|root| root.display().to_string());
    match &root {
        Some(root) => joined(to, &[root.as_str(), route.index.as_str()]),
        None => joined(to, &[]),
    }
}

/// The name of the upstream with these addresses, and what else tells it from others.
pub(super) fn joined(to: &[Spanned<String>], more: &[&str]) -> String {
    let addresses = to.iter().map(|text| text.get_ref().as_str());
    let name: Vec<_> = addresses.chain(more.iter().copied()).collect();
    let name = name.join(", ");
    match name.contains(':') {
        true => name,
        // It is refused.
        false => format!("to:{name}"),
    }
}

impl Draft<'_> {
    /// The upstreams of the routes of a site that lead outside, by their names. `launch` is how the front is started.
    pub(super) fn outside(
        &self,
        site: &Site,
        launch: &Launch,
    ) -> Result<BTreeMap<String, Upstream>, Place> {
        let mut upstreams = BTreeMap::new();
        for asked in site.asked() {
            if let Some(to) = &asked.to {
                let (protocol, addresses) = self.addresses("forward_auth.to", to)?;
                let speech = Speech {
                    protocol,
                    scripts: None,
                };
                upstreams.insert(
                    joined(to, &[]),
                    upstream(addresses, speech, &App::of_nobody()),
                );
            }
        }
        for route in site.routes.iter().map(Spanned::get_ref) {
            let Some(to) = &route.to else {
                if let Some(root) = &route.root {
                    return Err(root.wrong(
                        "routes.root: it is for a route with `to` (write it in the app, or remove it)",
                    ));
                }
                if route.index.place().is_some() {
                    return Err(route.index.wrong(
                        "routes.index: it is for a route with `to` (write it in the app, or remove it)",
                    ));
                }
                continue;
            };
            upstreams.insert(name(to, route), self.upstream(to, route, launch)?);
        }
        Ok(upstreams)
    }

    fn upstream(
        &self,
        to: &Value<Vec<Spanned<String>>>,
        route: &Route,
        launch: &Launch,
    ) -> Result<Upstream, Place> {
        let (protocol, addresses) = self.addresses("routes.to", to)?;
        let scripts = scripts(self.folder, protocol, route.root.as_ref(), &route.index);
        let scripts = scripts.map_err(|place| Place {
            message: format!("routes.{}", place.message),
            ..place
        })?;
        if let (Some(root), Some(scripts)) = (&route.root, &scripts) {
            if !self.host.is_folder(&scripts.root) {
                return Err(root.wrong(format!("routes.{}", missing(&scripts.root))));
            }
            if let Some(closed) = self.host.closed_to(&scripts.root, launch.user.as_ref()) {
                return Err(root.wrong(format!(
                    "routes.root: the user of [front] may not enter {}, so it cannot see which scripts there are (give that user the permission to enter it)",
                    closed.display()
                )));
            }
        }
        let speech = Speech { protocol, scripts };
        // No table of an app speaks of them.
        Ok(upstream(addresses, speech, &App::of_nobody()))
    }

    /// The protocol of addresses outside, and the addresses as in `listen`. They stand in `key`.
    fn addresses(
        &self,
        key: &str,
        to: &Value<Vec<Spanned<String>>>,
    ) -> Result<(Protocol, Vec<String>), Place> {
        let mut addresses: Vec<String> = Vec::new();
        let mut common = None;
        for text in to.iter() {
            let wrong = |message: String| Place::at(text.span(), format!("{key}: {message}"));
            let (protocol, address) = address(text.get_ref(), self.folder).map_err(wrong)?;
            if *common.get_or_insert(protocol) != protocol {
                return Err(wrong(
                    "the addresses speak different protocols (write them in different routes)"
                        .into(),
                ));
            }
            if addresses.contains(&address) {
                return Err(wrong(format!(
                    "{:?} is there twice (remove one)",
                    text.get_ref()
                )));
            }
            addresses.push(address);
        }
        let Some(protocol) = common else {
            return Err(to.wrong(format!(
                "{key}: there is no address (write for example \"http://127.0.0.1:8080\")"
            )));
        };
        Ok((protocol, addresses))
    }
}

/// The protocol, and the address as in `listen`.
///
/// # Errors
/// What is wrong, and what to write.
fn address(text: &str, folder: &Path) -> Result<(Protocol, String), String> {
    if text.starts_with("https:") {
        return Err(format!(
            "{text:?}: upstreams are spoken to without TLS (write \"http://\" and an address in a network that you trust)"
        ));
    }
    let mut known = PROTOCOLS.iter();
    let named = known.find_map(|(name, protocol)| Some((*protocol, text.strip_prefix(name)?)));
    let (protocol, rest) = named.unwrap_or((Protocol::Http, text));
    if let Some(path) = rest.strip_prefix("unix:") {
        if path.is_empty() || path.starts_with('@') {
            return Err(format!(
                "{text:?} names no path (write for example \"unix:/run/web.sock\")"
            ));
        }
        let path = normal(&folder.join(path)).display().to_string();
        // sockaddr_un(7): 108 bytes with the final NUL.
        if path.len() > 107 {
            return Err(format!("the path {path} is too long for a Unix socket"));
        }
        return Ok((protocol, format!("unix:{path}")));
    }
    if rest.starts_with('/') && !rest.starts_with("//") {
        return Err(format!(
            "{text:?} is the path of a socket (write \"unix:{rest}\")"
        ));
    }
    let place = rest.strip_prefix("//").unwrap_or(rest);
    let place = match place.split_once('/') {
        None => place,
        Some((place, "")) => place,
        Some((place, path)) => {
            return Err(format!(
                "{text:?} has a path, /{path}, and paths are passed on as they are (write the address only: {place:?})"
            ));
        }
    };
    let usual = (protocol == Protocol::Http && named.is_some()).then_some(80);
    let example =
        "\"http://10.0.0.5:8080\", \"unix:/run/web.sock\" or \"fastcgi:unix:/run/php.sock\"";
    let wrong =
        || format!("{text:?} is not an address to connect to (write for example {example})");
    if place.is_empty() {
        return Err(wrong());
    }
    let (host, port) = match place.rsplit_once(':') {
        // The colons of an address of IPv6 are between brackets.
        Some((host, port)) if !port.ends_with(']') => (
            host,
            Some(
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(wrong)?,
            ),
        ),
        _ => (place, usual),
    };
    let port =
        port.ok_or_else(|| format!("{text:?} has no port (add one, such as {place}:8080)"))?;
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip = match (inner, host) {
        (Some(inner), _) => inner.parse().map(IpAddr::V6).map_err(|_| wrong())?,
        (None, "localhost") => Ipv4Addr::LOCALHOST.into(),
        (None, host) => match host.parse::<Ipv4Addr>() {
            Ok(ip) => ip.into(),
            Err(_) if host.is_empty() => return Err(wrong()),
            Err(_) => {
                return Err(format!(
                    "{text:?}: names are not looked up, as their addresses may change unseen (write the IP address of {host})"
                ));
            }
        },
    };
    if ip.is_unspecified() {
        return Err(format!(
            "{text:?} is an address to listen on (write that of a host)"
        ));
    }
    Ok((protocol, SocketAddr::new(ip, port).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_protocol_and_a_form() {
        for (text, protocol, address) in [
            ("http://10.0.0.5:8080", Protocol::Http, "10.0.0.5:8080"),
            ("http://10.0.0.5", Protocol::Http, "10.0.0.5:80"),
            ("http://10.0.0.5/", Protocol::Http, "10.0.0.5:80"),
            ("http://[::1]:81/", Protocol::Http, "[::1]:81"),
            ("http://[::1]", Protocol::Http, "[::1]:80"),
            ("127.0.0.1:8080", Protocol::Http, "127.0.0.1:8080"),
            ("localhost:8080", Protocol::Http, "127.0.0.1:8080"),
            ("unix:/run/a.sock", Protocol::Http, "unix:/run/a.sock"),
            ("unix:a.sock", Protocol::Http, "unix:/srv/a.sock"),
            ("http:unix:/a", Protocol::Http, "unix:/a"),
            (
                "fastcgi:unix:/run/php.sock",
                Protocol::FastCgi,
                "unix:/run/php.sock",
            ),
            (
                "fastcgi:127.0.0.1:9000",
                Protocol::FastCgi,
                "127.0.0.1:9000",
            ),
            (
                "fastcgi://127.0.0.1:9000",
                Protocol::FastCgi,
                "127.0.0.1:9000",
            ),
            ("h2c://10.0.0.5:50051", Protocol::H2c, "10.0.0.5:50051"),
            ("h2c:unix:/run/g", Protocol::H2c, "unix:/run/g"),
            ("scgi://[::1]:9000", Protocol::Scgi, "[::1]:9000"),
            ("uwsgi:unix:/u", Protocol::Uwsgi, "unix:/u"),
        ] {
            let expected = Ok((protocol, address.to_owned()));
            assert_eq!(super::address(text, Path::new("/srv")), expected, "{text}");
        }
        for (text, why) in [
            ("", "is not an address"),
            ("/run/a.sock", "write \"unix:/run/a.sock\""),
            ("unix:", "names no path"),
            ("unix:@a", "names no path"),
            ("https://10.0.0.5", "without TLS"),
            ("http://10.0.0.5/app", "has a path, /app"),
            ("http://backend:80", "names are not looked up"),
            ("http://10.0.0.5:0", "is not an address"),
            ("http://10.0.0.5:99999", "is not an address"),
            ("http://0.0.0.0:80", "is an address to listen on"),
            ("10.0.0.5", "has no port"),
            ("fastcgi:10.0.0.5", "has no port"),
            ("fastcgi:", "is not an address"),
            ("ftp://10.0.0.5:21", "has a path"),
        ] {
            let error = super::address(text, Path::new("/srv")).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
