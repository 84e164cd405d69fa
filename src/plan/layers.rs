//! The layers of sites and routes: what the front does with requests and responses besides passing them on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use preforkd_worker::front;
use preforkd_worker::layers::{
    BasicAuth, Changes, ForwardAuth, Layers, Maintenance, Page, Question, RateLimit, RequestValue,
    text_pieces,
};
use toml::Spanned;

use super::static_files::{DENIED, check_prefix, decoded};
use super::{Draft, Launch, htpasswd, normal, outside};
use crate::config::{Asked, Fields, Layers as Keys, Place, RateLimit as Written, Site, Value};

/// The largest page, in bytes.
const MAX_PAGE: u64 = 1 << 20;

/// Fields that the server sets itself: they follow from the connection and from how the body is sent.
const OWN: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The key whose fields are those of responses.
const RESPONSE: &str = "response_headers";

/// Fields besides that it writes itself into requests, or keeps from applications. All that begin with `X-Forwarded-` and `X-SSL-Client-`
/// are such too.
const OF_REQUESTS: [&str; 6] = [
    "expect",
    "forwarded",
    "host",
    "proxy",
    "x-real-ip",
    "x-request-id",
];

impl Draft<'_> {
    /// The layers of a site. What it says of `Strict-Transport-Security` itself counts more than `hsts`.
    pub(super) fn layers_of_site(
        &self,
        site: &Site,
        tls: bool,
        launch: &Launch,
        warnings: &mut Vec<String>,
    ) -> Result<Layers, Place> {
        let mut layers = Layers {
            max_connections: site.max_connections.as_ref().map(|number| number.0),
            ..self.layers(&site.layers, launch, warnings)?
        };
        if let Some(text) = &site.hsts.0 {
            if !tls {
                return Err(site.hsts.wrong(
                    "hsts: clients believe it over TLS only (add `tls`, or set the field in `response_headers`)",
                ));
            }
            let field = ("Strict-Transport-Security".to_owned(), text.clone());
            layers.response_headers.set.insert(0, field);
        }
        Ok(layers)
    }

    /// The layers that these keys make; what is probably a mistake is added to `warnings`.
    pub(super) fn layers(
        &self,
        keys: &Keys,
        launch: &Launch,
        warnings: &mut Vec<String>,
    ) -> Result<Layers, Place> {
        let mut error_pages = BTreeMap::new();
        for (status, path) in &*keys.error_pages {
            let number = status.get_ref().parse().ok();
            let number = number.filter(|status| (400..600).contains(status));
            let Some(number) = number else {
                let message = format!(
                    "error_pages: {:?} is not the status of an error (write a number from 400 to 599)",
                    status.get_ref()
                );
                return Err(Place::at(status.span(), message));
            };
            let page = self.page(path.get_ref(), launch);
            let page = page.map_err(|why| Place::at(path.span(), format!("error_pages: {why}")))?;
            error_pages.insert(number, page);
        }
        let maintenance = keys.maintenance.as_ref().map(|written| {
            let keys = &written.0;
            let wrong = |why: String| Place {
                span: keys.page.place().or_else(|| written.place()),
                message: format!("maintenance: {why}"),
            };
            Ok(Maintenance {
                page: self.page(&keys.page, launch).map_err(wrong)?,
                retry_after: keys.retry_after.0.as_secs().max(1),
                except: keys.except.to_vec(),
            })
        });
        Ok(Layers {
            allow: keys.allow.to_vec(),
            deny: keys.deny.to_vec(),
            response_headers: changes(RESPONSE, &keys.response_headers)?,
            request_headers: changes("request_headers", &keys.request_headers)?,
            compress: keys.compress.as_ref().map(|codings| codings.0.clone()),
            cache: keys.cache.as_deref().copied(),
            max_body: keys.max_body.as_ref().map(|size| size.0),
            basic_auth: self.basic_auth(keys.basic_auth.as_ref(), launch)?,
            forward_auth: forward_auth(keys)?,
            rate_limits: limits(keys)?,
            max_connections: None,
            sendfile: self.sendfile(keys, launch, warnings)?,
            error_pages,
            maintenance: maintenance.transpose()?,
        })
    }

    /// Who is asked for a password. The file is read as a page is: what others than the user of the master can change is read with the
    /// rights of the workers.
    fn basic_auth(
        &self,
        written: Option<&Value<Asked>>,
        launch: &Launch,
    ) -> Result<BasicAuth, Place> {
        let Some(written) = written else {
            return Ok(BasicAuth::Unsaid);
        };
        let Some(keys) = &written.0 else {
            return Ok(BasicAuth::Nobody);
        };
        let wrong = |why: String| Place {
            span: keys.file.place().or_else(|| written.place()),
            message: format!("basic_auth: {why}"),
        };
        let path = normal(&self.folder.join(keys.file.as_path()));
        let shown = path.display();
        let text = self.host.data(&path, launch.user.as_ref(), MAX_PAGE);
        let text = text.map_err(|why| wrong(format!("{shown}: {why}")))?;
        let users = htpasswd::users(&text).map_err(|why| wrong(format!("{shown}: {why}")))?;
        let realm = keys.realm.as_str();
        let is_text = |c: char| !c.is_control() && !"\"\\".contains(c);
        if realm.is_empty() || realm.trim() != realm || !realm.chars().all(is_text) {
            return Err(keys.realm.wrong(format!(
                "basic_auth.realm: {realm:?} cannot be shown (write a text without quotes, backslashes and control characters)"
            )));
        }
        Ok(BasicAuth::All {
            realm: realm.to_owned(),
            users,
        })
    }

    /// The folders of which an application may have files sent.
    fn sendfile(
        &self,
        keys: &Keys,
        launch: &Launch,
        warnings: &mut Vec<String>,
    ) -> Result<Option<BTreeMap<String, PathBuf>>, Place> {
        let Some(written) = &keys.sendfile else {
            return Ok(None);
        };
        let mut folders = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (prefix, path) in &**written {
            let wrong = |message| Place::at(prefix.span(), format!("sendfile: {message}"));
            let name = prefix.get_ref();
            check_prefix(name).map_err(wrong)?;
            if !name.ends_with('/') {
                return Err(wrong(format!(
                    "the prefix {name:?} stands for a folder (write {:?})",
                    format!("{name}/")
                )));
            }
            if !seen.insert(decoded(name)) {
                return Err(wrong(format!(
                    "the prefix {name:?} is there twice, as it is percent-decoded (remove one)"
                )));
            }
            let folder = normal(&self.folder.join(path.get_ref()));
            if !self.host.is_folder(&folder) {
                let shown = folder.display();
                let message = format!("sendfile: there is no folder {shown} (create it first)");
                return Err(Place::at(path.span(), message));
            }
            if let Some(closed) = self.closed(&folder, launch) {
                let shown = folder.display();
                warnings.push(format!(
                    "sendfile: {closed}, so no file below {shown} can be sent: {DENIED}"
                ));
            }
            folders.insert(name.clone(), folder);
        }
        Ok(Some(folders))
    }

    /// A page, read with the rights of the workers that send it where others than the user of the master can change it.
    fn page(&self, path: &Path, launch: &Launch) -> Result<Page, String> {
        let path = normal(&self.folder.join(path));
        let shown = path.display();
        let content_type = match path.extension().and_then(|ending| ending.to_str()) {
            Some("html" | "htm") => "text/html; charset=utf-8",
            Some("json") => "application/json",
            Some("txt") => "text/plain; charset=utf-8",
            Some("xml") => "application/xml",
            _ => {
                return Err(format!(
                    "the type of {shown} is not known (end its name with .html, .txt, .json or .xml)"
                ));
            }
        };
        let text = self.host.data(&path, launch.user.as_ref(), MAX_PAGE);
        Ok(Page {
            content_type: content_type.to_owned(),
            text: text.map_err(|why| format!("{shown}: {why}"))?,
        })
    }
}

/// Whether those who are asked whether requests may pass understand the question.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn check_asked(
    site: &front::Site,
    upstreams: &BTreeMap<String, front::Upstream>,
) -> Result<(), String> {
    let routes = site.routes.iter().map(|route| &route.layers);
    for layers in [&site.layers].into_iter().chain(routes) {
        if let ForwardAuth::Asks(Question { upstream, .. }) = &layers.forward_auth
            && let Some(of) = upstreams.get(upstream)
            && !of.speech.protocol.is_http()
        {
            return Err(format!(
                "[site.{}]: forward_auth: {upstream} does not speak HTTP (ask one that does)",
                site.name
            ));
        }
    }
    Ok(())
}

/// Lets the workers that serve sites take the largest body that a site or route may have. The others keep the limit that they had.
pub(super) fn widen(http_max_body: &mut u64, sites: &mut [front::Site]) {
    let of_routes = sites.iter().flat_map(|site| &site.routes);
    let of_routes = of_routes.filter_map(|route| route.layers.max_body);
    let of_sites = sites.iter().filter_map(|site| site.layers.max_body);
    let greatest = of_routes.chain(of_sites).max().unwrap_or_default();
    if greatest > *http_max_body {
        for site in sites {
            site.layers.max_body.get_or_insert(*http_max_body);
        }
        *http_max_body = greatest;
    }
}

/// Who is asked whether a request may pass.
fn forward_auth(keys: &Keys) -> Result<ForwardAuth, Place> {
    let Some(written) = &keys.forward_auth else {
        return Ok(ForwardAuth::Unsaid);
    };
    let Some(asked) = &written.0 else {
        return Ok(ForwardAuth::Nobody);
    };
    let wrong = |message: &str| Err(written.wrong(format!("forward_auth: {message}")));
    let upstream = match (&asked.app, &asked.to) {
        (Some(app), None) => app.to_string(),
        (None, Some(to)) => outside::joined(to, &[]),
        (Some(_), Some(_)) => return wrong("both `app` and `to` are asked (remove one)"),
        (None, None) => return wrong("nobody is asked (add `app` or `to`)"),
    };
    let path = asked.path.as_str();
    let is_path = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if !is_path {
        return Err(Place {
            span: asked.path.place().or_else(|| written.place()),
            message: format!(
                "forward_auth.path: must be a path that begins with a slash, perhaps with a query, not {path:?} (encode other characters with % and two digits for each byte)"
            ),
        });
    }
    for name in &*asked.headers {
        check_name("forward_auth", "headers", name)?;
    }
    let user = Spanned::new(
        asked.user.place().unwrap_or_default(),
        asked.user.to_string(),
    );
    check_name("forward_auth", "user", &user)?;
    Ok(ForwardAuth::Asks(Question {
        upstream,
        path: path.to_owned(),
        headers: asked
            .headers
            .iter()
            .map(|name| name.get_ref().clone())
            .collect(),
        user: user.into_inner(),
    }))
}

fn limits(keys: &Keys) -> Result<Vec<RateLimit>, Place> {
    let limit = |written: &Spanned<Written>| {
        let limit = written.get_ref();
        if let Some(key) = &limit.key {
            let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if key.is_empty() || !key.bytes().all(is_token) {
                return Err(key.wrong(format!(
                    "rate_limit.key: {:?} is not a name of a header (use letters, digits and -)",
                    key.as_str()
                )));
            }
        }
        Ok(RateLimit {
            requests: limit.rate.requests,
            seconds: limit.rate.seconds,
            burst: limit.burst.0,
            key: limit.key.as_ref().map(|key| key.to_string()),
        })
    };
    keys.rate_limit.iter().map(limit).collect()
}

fn changes(table: &str, written: &Fields) -> Result<Changes, Place> {
    let mut remove = Vec::new();
    for name in &*written.remove {
        check_name(table, "remove", name)?;
        if name.get_ref().eq_ignore_ascii_case("server") && table == RESPONSE {
            let message = "response_headers.remove: preforkd adds the field Server where there is none (set it instead)";
            return Err(Place::at(name.span(), message));
        }
        remove.push(name.get_ref().clone());
    }
    Ok(Changes {
        remove,
        set: fields(table, "set", &written.set)?,
        add: fields(table, "add", &written.add)?,
    })
}

fn fields(
    table: &str,
    key: &str,
    written: &BTreeMap<Spanned<String>, Spanned<String>>,
) -> Result<Vec<(String, String)>, Place> {
    let field = |(name, value): (&Spanned<String>, &Spanned<String>)| {
        check_name(table, key, name)?;
        let text = value.get_ref();
        let is_control = |b: u8| (b < b' ' && b != b'\t') || b == 0x7f;
        if text.bytes().any(is_control) || text.trim() != text {
            let message = format!(
                "{table}.{key}: the value of {} must not have control characters, nor begin or end with a space, as {text:?} does",
                name.get_ref()
            );
            return Err(Place::at(value.span(), message));
        }
        if let Err(unknown) = text_pieces(text) {
            let known = RequestValue::ALL.map(|(name, _)| format!("{{{name}}}"));
            let message = format!(
                "{table}.{key}: {unknown:?} stands for nothing (known here: {}; write \"{{{{\" for a brace)",
                known.join(", ")
            );
            return Err(Place::at(value.span(), message));
        }
        Ok((name.get_ref().clone(), text.clone()))
    };
    written.iter().map(field).collect()
}

fn check_name(table: &str, key: &str, name: &Spanned<String>) -> Result<(), Place> {
    let text = name.get_ref();
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let wrong = |message: String| {
        let message = format!("{table}.{key}: {message}");
        Err(Place::at(name.span(), message))
    };
    if text.is_empty() || !text.bytes().all(is_token) {
        return wrong(format!(
            "{text:?} is not a name of a header (use letters, digits and -)"
        ));
    }
    let lower = text.to_ascii_lowercase().replace('_', "-");
    let is_written = table != RESPONSE
        && (OF_REQUESTS.contains(&&*lower)
            || lower.starts_with("x-forwarded-")
            || lower.starts_with("x-ssl-client-"));
    match OWN.contains(&&*lower) || is_written {
        true => wrong(format!(
            "preforkd sets the header {text} itself (remove it)"
        )),
        false => Ok(()),
    }
}
