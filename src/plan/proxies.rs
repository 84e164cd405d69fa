//! Keys about the proxies in front of an app.

use toml::Spanned;

use super::{Draft, Launch};
use crate::config::Place;

/// The variable that gunicorn takes the prefix from.
const VARIABLE: &str = "SCRIPT_NAME";

impl Draft<'_> {
    /// Whether connections begin with a PROXY header. Somebody must be allowed to send one.
    pub(super) fn proxy_protocol(&self) -> Result<bool, Place> {
        let written = &self.written.proxy_protocol;
        match **written && self.written.trusted_proxies.is_empty() {
            true => Err(written.wrong(
                "proxy_protocol: without `trusted_proxies` nobody could connect (add the addresses of the proxies, for example trusted_proxies = [\"10.0.0.0/8\"], or \"unix\" for a Unix socket)",
            )),
            false => Ok(**written),
        }
    }

    /// The fields that the proxies set; none if that is not restricted.
    pub(super) fn forwarded_fields(&self) -> Result<Option<Vec<String>>, Place> {
        let Some(fields) = &self.written.forwarded_fields else {
            return Ok(None);
        };
        for field in &**fields {
            let name = field.get_ref();
            if !is_forwarded(name) {
                return Err(Place {
                    span: Some(field.span()),
                    message: format!(
                        "forwarded_fields: {name:?} is no field that says for whom a proxy asks (write \"Forwarded\", \"X-Real-IP\", or the whole name of one that begins with \"X-Forwarded-\")"
                    ),
                });
            }
        }
        let names = fields.iter().map(|field| field.get_ref().clone());
        Ok(Some(names.collect()))
    }

    /// The prefix, empty for none: the key, or the variable in `env` or `env_file`.
    pub(super) fn prefix(&self, launch: &Launch) -> Result<String, Place> {
        let variable = launch.env.get(VARIABLE);
        let mut names = self.written.env.keys();
        let (from, place) = match names.find(|name| name.get_ref() == VARIABLE) {
            Some(name) => ("env", Some(name.span())),
            None => ("env_file", self.written.env_file.first().map(Spanned::span)),
        };
        let wrong_variable = |message: String| Place {
            span: place,
            message: format!("{from}: {VARIABLE}{message}"),
        };
        if let Some(prefix) = &self.written.prefix {
            if let Some(value) = variable
                && *value != **prefix
            {
                return Err(wrong_variable(format!(
                    " is {value:?}, but `prefix` is {:?} (remove one of them)",
                    **prefix
                )));
            }
            return match wrong(prefix) {
                Some(why) => Err(prefix.wrong(format!("prefix: {why}"))),
                None => Ok(prefix.to_string()),
            };
        }
        match variable {
            // As in CGI: an application at the root.
            None => Ok(String::new()),
            Some(value) if value.is_empty() => Ok(String::new()),
            Some(value) => match wrong(value) {
                Some(why) => Err(wrong_variable(format!(": {why}"))),
                None => Ok(value.clone()),
            },
        }
    }
}

/// Whether a field is one of those that only trusted proxies may send.
fn is_forwarded(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match name.strip_prefix("x-forwarded-") {
        Some(rest) => !rest.is_empty() && rest.chars().all(is_letter),
        None => matches!(name.as_str(), "forwarded" | "x-real-ip"),
    }
}

/// What is wrong with a prefix.
fn wrong(prefix: &str) -> Option<String> {
    let bare = prefix.trim_matches('/');
    let hint = match bare {
        "" => "an application at the root needs none: remove the key".to_owned(),
        bare => format!("write \"/{bare}\""),
    };
    if bare.is_empty()
        || !prefix.starts_with('/')
        || prefix.starts_with("//")
        || prefix.ends_with('/')
    {
        return Some(format!(
            "must begin with one \"/\" and not end with one, not {prefix:?} ({hint})"
        ));
    }
    if prefix.contains(['?', '#', '%']) || prefix.chars().any(char::is_control) {
        return Some(format!(
            "must be a path without \"?\", \"#\", \"%\" and control characters, not {prefix:?} (write characters as they are, not encoded)"
        ));
    }
    None
}
