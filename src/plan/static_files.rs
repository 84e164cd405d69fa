//! `static`: folders and files that workers serve themselves.

use std::collections::BTreeMap;
use std::path::Path;

use preforkd_worker::settings::Mapping;
use toml::Spanned;

use super::{Draft, Launch, normal};
use crate::config::{Mapping as Written, Place};

/// Fields that the server sets itself: they follow from the file, the request or the connection.
const OWN: [&str; 16] = [
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "location",
];

/// The reason, and what to do.
pub(super) const DENIED: &str = "Permission denied (give that user the permission to enter it)";

impl Draft<'_> {
    /// The mappings, by prefix.
    pub(super) fn static_files(
        &self,
        launch: &Launch,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeMap<String, Mapping>, Place> {
        let mut mappings = BTreeMap::new();
        let mut seen: BTreeMap<Vec<u8>, &str> = BTreeMap::new();
        for (prefix, entry) in &self.written.static_files.mappings {
            let written = &entry.get_ref().0;
            let wrong = |message: String| Place::at(entry.span(), format!("static: {message}"));
            if let Some(same) = seen.insert(decoded(prefix), prefix) {
                return Err(wrong(format!(
                    "the prefixes {same:?} and {prefix:?} are the same, as they are percent-decoded (remove one of them)"
                )));
            }
            check_prefix(prefix).map_err(wrong)?;
            let path = normal(&self.folder.join(written.folder.as_path()));
            if let Err(missing) = self.fits(prefix, &path) {
                self.lacks(wrong(missing), ())?;
            }
            let is_folder = prefix.ends_with('/');
            let index = match written.index.as_str() {
                "" => None,
                name if name.contains('/') || name.starts_with('.') => {
                    return Err(written.index.wrong(format!(
                        "static: `index` must be the name of a file, not {name:?} (write for example \"index.html\")"
                    )));
                }
                name => Some(name.to_owned()),
            };
            let fallthrough = match &written.fallthrough {
                Some(fallthrough) => **fallthrough,
                None => prefix == "/",
            };
            if prefix == "/" && !fallthrough && self.written.wsgi.is_some() {
                warnings.push(
                    "static: the application is never called: the prefix \"/\" with `fallthrough = false` takes all requests (remove `fallthrough`, or use another prefix)"
                        .into(),
                );
            }
            let folder = match is_folder {
                true => Some(path.as_path()),
                false => path.parent(),
            };
            if let Some(closed) = folder.and_then(|path| self.closed(path, launch)) {
                warnings.push(format!(
                    "static: {closed}, so {} cannot be served: {DENIED}",
                    path.display()
                ));
            }
            let mapping = Mapping {
                path,
                behind: Vec::new(),
                max_age: written.max_age.as_ref().map(|age| age.0.as_secs()),
                immutable: *written.immutable,
                headers: headers(written)?,
                index: index.filter(|_| is_folder),
                fallthrough,
                precompressed: written.precompressed.0.clone(),
            };
            mappings.insert(prefix.clone(), mapping);
        }
        Ok(mappings)
    }

    /// Which folder on the way to this one the user of the workers may not enter, as the beginning of a warning; the warning ends with [`DENIED`].
    pub(super) fn closed(&self, folder: &Path, launch: &Launch) -> Option<String> {
        let closed = self.host.closed_to(folder, launch.user.as_ref())?;
        let user = match &self.written.user {
            Some(user) => format!("user {}", user.0),
            None => "the user of the workers".into(),
        };
        Some(format!("{user} may not enter {}", closed.display()))
    }

    /// Whether the folder or file is there, and fits its prefix.
    fn fits(&self, prefix: &str, path: &Path) -> Result<(), String> {
        let shown = path.display();
        match (
            prefix.ends_with('/'),
            self.host.is_folder(path),
            self.host.is_file(path),
        ) {
            (true, true, _) | (false, _, true) => Ok(()),
            (true, _, true) => Err(format!(
                "{shown} is a file, and the prefix {prefix:?} stands for a folder (write {:?})",
                prefix.trim_end_matches('/')
            )),
            (true, ..) => Err(format!(
                "there is no folder {shown} (create it first; for Django, run manage.py collectstatic)"
            )),
            (false, true, _) => Err(format!(
                "the prefix {prefix:?} stands for one file, and {shown} is a folder (write \"{prefix}/\")"
            )),
            (false, ..) => Err(format!(
                "there is no file {shown} (create it first, or end the prefix with \"/\" for a folder)"
            )),
        }
    }
}

/// Whether requests can have this prefix.
pub(super) fn check_prefix(prefix: &str) -> Result<(), String> {
    if !prefix.starts_with('/') {
        return Err(format!("the prefix {prefix:?} must begin with \"/\""));
    }
    let strange = |part: &[u8]| matches!(part, b"" | b"." | b"..");
    let whole = decoded(prefix);
    let inner = whole.strip_suffix(b"/").unwrap_or(&whole);
    match !inner.is_empty() && inner.split(|&b| b == b'/').skip(1).any(strange) {
        true => Err(format!(
            "no request has the prefix {prefix:?} (write it without empty parts, \".\" and \"..\")"
        )),
        false => Ok(()),
    }
}

/// The prefix as workers compare it: percent-decoded once. What is no encoding stays as it is.
pub(super) fn decoded(prefix: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = prefix.as_bytes();
    while let [first, more @ ..] = rest {
        let encoded = match rest {
            [b'%', digits @ ..] => digits.get(..2).and_then(byte),
            _ => None,
        };
        decoded.push(encoded.unwrap_or(*first));
        rest = match encoded {
            Some(_) => &rest[3..],
            None => more,
        };
    }
    decoded
}

/// The byte of two hexadecimal digits.
fn byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

/// The fields to add, if they can be sent.
fn headers(written: &Written) -> Result<BTreeMap<String, String>, Place> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &*written.headers {
        check(name, value, written)?;
        if headers
            .keys()
            .any(|other| other.eq_ignore_ascii_case(name.get_ref()))
        {
            return Err(Place::at(
                name.span(),
                format!(
                    "static: the header {} is there twice (remove one)",
                    name.get_ref()
                ),
            ));
        }
        headers.insert(name.get_ref().clone(), value.get_ref().clone());
    }
    Ok(headers)
}

fn check(name: &Spanned<String>, value: &Spanned<String>, written: &Written) -> Result<(), Place> {
    let (span, name) = (name.span(), name.get_ref());
    let wrong = |message: String| Err(Place::at(span.clone(), format!("static: {message}")));
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return wrong(format!(
            "{name:?} is not a name of a header (use letters, digits and -)"
        ));
    }
    let lower = name.to_ascii_lowercase();
    if OWN.contains(&lower.as_str()) {
        return wrong(format!(
            "the server sets the header {name} itself (remove it)"
        ));
    }
    if lower == "cache-control" && (written.max_age.is_some() || *written.immutable) {
        return wrong(
            "`max_age` and `immutable` set the header Cache-Control (remove it, or them)".into(),
        );
    }
    let text = value.get_ref();
    if text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(Place::at(
            value.span(),
            format!(
                "static: the value of the header {name} must not contain control characters, as {text:?} does"
            ),
        ));
    }
    if text.trim() != text {
        return Err(Place::at(
            value.span(),
            format!(
                "static: the value of the header {name} must not begin or end with a space, as {text:?} does"
            ),
        ));
    }
    Ok(())
}
