//! `hsts`: what clients are told about coming back without TLS (RFC 6797).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::value::Typed;

/// A year, as lists of such sites ask for.
const USUAL: &str = "max-age=31536000";

/// The value of the field `Strict-Transport-Security`, if it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsts(pub Option<String>);

struct HstsVisitor;

impl Visitor<'_> for HstsVisitor {
    type Value = Hsts;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a boolean, or a text such as \"max-age=31536000; includeSubDomains\"")
    }

    fn visit_bool<E: Error>(self, is_sent: bool) -> Result<Hsts, E> {
        Ok(Hsts(is_sent.then(|| USUAL.to_owned())))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hsts, E> {
        let mut parts = text.split(';').map(str::trim);
        let is_age = |part: &str| {
            let digits = part.strip_prefix("max-age=").unwrap_or_default();
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !parts.next().is_some_and(is_age) {
            return Err(E::custom(format!(
                "{text:?} does not begin with max-age= and a number of seconds (such as \"{USUAL}\")"
            )));
        }
        if let Some(other) = parts.find(|part| !["includeSubDomains", "preload"].contains(part)) {
            return Err(E::custom(format!(
                "{other:?} is no directive of it (write \"includeSubDomains\" or \"preload\")"
            )));
        }
        Ok(Hsts(Some(text.to_owned())))
    }
}

impl<'de> Deserialize<'de> for Hsts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HstsVisitor)
    }
}

impl Typed for Hsts {
    fn description() -> String {
        "boolean or string".into()
    }
}
