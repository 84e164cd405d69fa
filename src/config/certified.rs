//! An entry of `tls`: a certificate with its key, or that one is to be issued.

use preforkd_worker::acme::Kind;
use serde::Deserialize;
use serde::de::Deserializer;

use super::keys::Certificate;
use super::short::Short;
use super::value::Typed;

/// An entry of `tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certified {
    /// These files.
    Files(Certificate),
    /// The one that an authority issues.
    Auto,
}

impl Short for Certified {
    const EXPECTED: &'static str = "a table with `cert` and `key`, or \"auto\"";
    type Table = Certificate;

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            other => Err(format!(
                "{other:?} has no meaning here (write \"auto\", or a table such as {{ cert = \"fullchain.pem\", key = \"privkey.pem\" }})"
            )),
        }
    }

    fn from_table(table: Certificate) -> Self {
        Self::Files(table)
    }
}

impl<'de> Deserialize<'de> for Certified {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Typed for Certified {
    fn description() -> String {
        "\"auto\" or table".into()
    }
}

/// A kind of challenges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Challenge(pub Kind);

impl Typed for Challenge {
    fn description() -> String {
        "\"http-01\" or \"tls-alpn-01\"".into()
    }
}
