//! `routes`, `static` and `redirect` of a site: which requests go where.

use std::collections::BTreeMap;
use std::ops::Range;

use preforkd_worker::front::{Route, Target};
use toml::Spanned;

use super::django::Asked;
use super::static_files::{check_prefix, decoded};
use super::{Draft, Launch, outside};
use crate::config::{Answer, Mapped, Place, Redirect, Route as Written, Site, Value};

/// What `redirect = "https"` stands for.
const HTTPS: (&str, u16) = ("https://{host}{path}{query}", 308);

/// The parts of a location that are filled in.
const PARTS: [&str; 4] = ["{host}", "{path}", "{rest}", "{query}"];

/// A route and its position.
type Placed = (Route, Range<usize>);

impl Draft<'_> {
    /// The routes of a site; what is probably a mistake is added to `warnings`.
    pub(super) fn routes(
        &self,
        site: &Site,
        launch: &Launch,
        asked: &mut Asked,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Route>, Place> {
        let mut routes: Vec<Placed> = Vec::new();
        for route in &*site.routes {
            routes.push((self.route(route, launch, warnings)?, route.span()));
        }
        let mut mappings = self.static_files(launch, warnings)?;
        mappings.extend(self.django_files(site, launch, asked, warnings)?);
        for (path, mapping) in mappings {
            let place = site.static_files.mappings.get(&path).map(Spanned::span);
            let place = place.or_else(|| site.static_files.place());
            let route = unconditional(&path, Target::Files(mapping));
            routes.push((route, place.unwrap_or_else(|| self.header.clone())));
        }
        if let (Some(app), Some(_)) = (&site.app, &site.redirect) {
            return Err(app.wrong("app: `redirect` takes all requests too (remove one)"));
        }
        if let Some(app) = &site.app {
            let place = app.place().unwrap_or_else(|| self.header.clone());
            routes.push((unconditional("/", Target::Upstream(app.to_string())), place));
        }
        if let Some(redirect) = &site.redirect {
            let place = redirect.place().unwrap_or_else(|| self.header.clone());
            let target = redirected(redirect, &redirect.0)?;
            routes.push((unconditional("/", target), place));
        }
        if routes.is_empty() {
            return Err(self.wrong(format!(
                "[site.{}] has nothing to serve (add `app`, `static`, `routes` or `redirect`)",
                self.name
            )));
        }
        self.compare(&routes, warnings)?;
        Ok(routes.into_iter().map(|(route, _)| route).collect())
    }

    fn route(
        &self,
        written: &Spanned<Written>,
        launch: &Launch,
        warnings: &mut Vec<String>,
    ) -> Result<Route, Place> {
        let (place, route) = (written.span(), written.get_ref());
        let path = route.path.as_str();
        let wrong = |message: String| route.path.wrong(format!("routes.path: {message}"));
        check_prefix(path).map_err(wrong)?;
        if let Some(strange) = path.find(|c: char| c.is_control() || "?#".contains(c)) {
            return Err(wrong(format!(
                "must be a path without \"?\", \"#\" and control characters, not {path:?} (end it at {:?})",
                &path[..strange]
            )));
        }
        let named = route
            .targets()
            .into_iter()
            .filter(|(_, is_written)| *is_written);
        let named: Vec<_> = named.map(|(name, _)| name).collect();
        let known = route
            .targets()
            .map(|(name, _)| format!("`{name}`"))
            .join(", ");
        match &named[..] {
            [_] => {}
            [] => {
                return Err(Place::at(
                    place,
                    format!("routes: nothing answers {path} (add one of {known})"),
                ));
            }
            [first, second, ..] => {
                return Err(Place::at(
                    place,
                    format!("routes: both `{first}` and `{second}` answer {path} (remove one)"),
                ));
            }
        }
        let of_upstreams = [
            ("strip_prefix", route.strip_prefix.place()),
            ("rewrite", route.rewrite.as_ref().and_then(Value::place)),
            ("stream", route.stream.place()),
        ];
        for (name, place) in of_upstreams {
            if let (Some(place), None, None) = (place, &route.app, &route.to) {
                let message =
                    format!("routes.{name}: it is for a route to an app or an address (remove it)");
                return Err(Place::at(place, message));
            }
        }
        let mut path = path.to_owned();
        let target = if let Some(app) = &route.app {
            Target::Upstream(app.to_string())
        } else if let Some(to) = &route.to {
            Target::Upstream(outside::name(to, route))
        } else if let Some(folder) = &route.folder {
            let (prefix, files) = self.files(&path, folder, &place, launch, warnings)?;
            path = prefix;
            files
        } else if let Some(redirect) = &route.redirect {
            redirected(redirect, &redirect.0)?
        } else if let Some(answer) = &route.answer {
            answered(&answer.0)?
        } else {
            unreachable!("one of them is written")
        };
        Ok(Route {
            path,
            methods: methods(route)?,
            headers: headers(route)?,
            strip_prefix: *route.strip_prefix,
            rewrite: rewrite(route)?,
            stream: *route.stream,
            target,
            layers: self.layers(&route.layers, launch, warnings)?,
        })
    }

    /// The files of a route: those below its path, if it leads to a folder.
    fn files(
        &self,
        path: &str,
        folder: &Value<Mapped>,
        place: &Range<usize>,
        launch: &Launch,
        warnings: &mut Vec<String>,
    ) -> Result<(String, Target), Place> {
        let on_disk = self.folder.join(folder.0.folder.as_path());
        let prefix = match self.host.is_folder(&on_disk) && !path.ends_with('/') {
            true => format!("{path}/"),
            false => path.to_owned(),
        };
        let files = Spanned::new(place.clone(), Mapped::clone(folder));
        let written = self.written.with_files(prefix.clone(), files);
        let draft = Draft {
            written: &written,
            header: self.header.clone(),
            lacking: Default::default(),
            ..*self
        };
        let mappings = draft.static_files(launch, warnings)?;
        let mapping = mappings.into_values().next().unwrap_or_default();
        Ok((prefix, Target::Files(mapping)))
    }

    /// Looks for routes that never get a request.
    fn compare(&self, routes: &[Placed], warnings: &mut Vec<String>) -> Result<(), Place> {
        for (at, (route, place)) in routes.iter().enumerate() {
            for (earlier, _) in &routes[..at] {
                if decoded(&earlier.path) != decoded(&route.path) {
                    continue;
                }
                let same = earlier.methods == route.methods && earlier.headers == route.headers;
                if same && !falls_through(earlier) {
                    return Err(Place::at(
                        place.clone(),
                        format!(
                            "[site.{}] has two routes for the same requests, those for {:?} (remove one)",
                            self.name, route.path
                        ),
                    ));
                }
                if hides(earlier, route) && !falls_through(earlier) {
                    warnings.push(format!(
                        "[site.{}]: a route for {:?} never gets a request: one before it takes all of them (put it first, or remove it)",
                        self.name, route.path
                    ));
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether the next route counts where a route has nothing.
fn falls_through(route: &Route) -> bool {
    matches!(&route.target, Target::Files(mapping) if mapping.fallthrough)
}

/// Whether all requests that fit the conditions of the second fit those of the first.
fn hides(first: &Route, second: &Route) -> bool {
    let methods = first.methods.is_empty()
        || !second.methods.is_empty() && second.methods.iter().all(|m| first.methods.contains(m));
    let mut fields = first.headers.iter();
    methods
        && fields.all(|(name, value)| {
            let other = second.headers.get(name);
            other.is_some_and(|other| value == "*" || other == value)
        })
}

fn unconditional(path: &str, target: Target) -> Route {
    Route {
        path: path.to_owned(),
        methods: Vec::new(),
        headers: BTreeMap::new(),
        strip_prefix: false,
        rewrite: None,
        stream: false,
        target,
        layers: Default::default(),
    }
}

/// What takes the place of the path of the route.
fn rewrite(route: &Written) -> Result<Option<String>, Place> {
    let Some(written) = &route.rewrite else {
        return Ok(None);
    };
    let to = written.as_str();
    if *route.strip_prefix {
        return Err(written.wrong(
            "routes.rewrite: `strip_prefix` says that nothing takes the place of the path (remove one)",
        ));
    }
    let is_path = to.starts_with('/')
        && to
            .chars()
            .all(|c| c.is_ascii_graphic() && !"?#".contains(c));
    let has_dots = to.split('/').any(|segment| matches!(segment, "." | ".."));
    if !is_path || has_dots || to.contains("//") {
        return Err(written.wrong(format!(
            "routes.rewrite: must be a path that begins with a slash, without a query, empty segments and dots, not {to:?} (encode other characters with % and two digits for each byte)"
        )));
    }
    Ok(Some(to.strip_suffix('/').unwrap_or(to).to_owned()))
}

fn methods(route: &Written) -> Result<Vec<String>, Place> {
    let written = route.methods.iter().flat_map(|methods| methods.iter());
    let read = |method: &Spanned<String>| {
        let name = method.get_ref();
        let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        valid.then(|| name.clone()).ok_or_else(|| {
            let message = format!(
                "routes.methods: {name:?} is not a method (write it in upper case, such as \"GET\")"
            );
            Place::at(method.span(), message)
        })
    };
    let mut methods = written.map(read).collect::<Result<Vec<_>, _>>()?;
    methods.sort();
    methods.dedup();
    Ok(methods)
}

fn headers(route: &Written) -> Result<BTreeMap<String, String>, Place> {
    let mut headers = BTreeMap::new();
    for (name, value) in &*route.headers {
        let lower = name.get_ref().to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&b);
        if lower.is_empty() || !lower.bytes().all(is_token) {
            return Err(Place::at(
                name.span(),
                format!(
                    "routes.headers: {:?} is not a name of a header (use letters, digits and -)",
                    name.get_ref()
                ),
            ));
        }
        if headers.insert(lower, value.get_ref().clone()).is_some() {
            let message = format!(
                "routes.headers: {} is there twice (remove one)",
                name.get_ref()
            );
            return Err(Place::at(name.span(), message));
        }
    }
    Ok(headers)
}

/// The target of a redirect that stands at `place`.
fn redirected<T>(place: &Value<T>, written: &Redirect) -> Result<Target, Place> {
    let to = written.to.as_str();
    let wrong = |message: String| {
        let place = written.to.place().or_else(|| place.place());
        Place {
            span: place,
            message: format!("redirect: {message}"),
        }
    };
    let allowed = [301, 302, 303, 307, 308];
    let status = match &written.status {
        Some(status) if !allowed.contains(&status.0) => {
            return Err(status.wrong(format!(
                "redirect.status: must be 301, 302, 303, 307 or 308, not {}",
                status.0
            )));
        }
        Some(status) => Some(status.0 as u16),
        None => None,
    };
    if to == "https" {
        let (location, default) = HTTPS;
        return Ok(Target::Redirect {
            status: status.unwrap_or(default),
            location: location.to_owned(),
        });
    }
    let scheme = ["http://", "https://"]
        .iter()
        .find_map(|scheme| to.strip_prefix(scheme));
    if scheme.is_none() && !to.starts_with('/') {
        return Err(wrong(format!(
            "must be \"https\", or begin with \"https://\", \"http://\" or \"/\", not {to:?}"
        )));
    }
    if scheme.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err(wrong(format!("{to:?} names no host")));
    }
    if let Some(strange) = to.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(wrong(format!(
            "a location has no character {strange:?} (encode it with % and two digits for each byte)"
        )));
    }
    let mut rest = to;
    while let Some(at) = rest.find('{') {
        let Some(part) = PARTS.iter().find(|part| rest[at..].starts_with(**part)) else {
            let end = rest[at..].find('}').map_or(rest.len(), |end| at + end + 1);
            return Err(wrong(format!(
                "{:?} stands for nothing (known here: {})",
                &rest[at..end],
                PARTS.join(", ")
            )));
        };
        rest = &rest[at + part.len()..];
    }
    // Who moves to another host mostly keeps the rest.
    let location = match scheme {
        Some(host) if !host.contains(['/', '?', '{']) => format!("{to}{{path}}{{query}}"),
        _ => to.to_owned(),
    };
    const FOUND: u16 = 302;
    Ok(Target::Redirect {
        status: match status {
            Some(status) => status,
            None => FOUND,
        },
        location,
    })
}

fn answered(written: &Answer) -> Result<Target, Place> {
    let is_text = |b: u8| (b' '..0x7f).contains(&b);
    let content_type = written.content_type.as_str();
    if content_type.trim() != content_type
        || content_type.is_empty()
        || !content_type.bytes().all(is_text)
    {
        return Err(written.content_type.wrong(format!(
            "routes.answer.content_type: {content_type:?} is not a content type (write for example \"text/html; charset=utf-8\")"
        )));
    }
    Ok(Target::Answer {
        status: written.status.0 as u16,
        content_type: content_type.to_owned(),
        body: written.text.to_string(),
    })
}
