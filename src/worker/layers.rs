//! Settings of the layers of the front: what it does with requests and responses besides passing them on (preforkd.toml(5)).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::proxy::Proxy;
use crate::settings::Coding;

/// The layers of a site or of one of its routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// The clients that are served; all, if there are none.
    pub allow: Vec<Proxy>,
    /// The clients that are not.
    pub deny: Vec<Proxy>,
    /// What changes in the heads of responses.
    pub response_headers: Changes,
    /// The codings in which responses are compressed, what is preferred first. For a route, `None` is what the site says.
    pub compress: Option<Vec<Coding>>,
    /// The largest request body. For a route, `None` is what the site says.
    pub max_body: Option<u64>,
    /// How many requests a client may send.
    pub rate_limits: Vec<RateLimit>,
    /// What the front sends in place of its own texts, by the status.
    pub error_pages: BTreeMap<u16, Page>,
    /// What answers all requests.
    pub maintenance: Option<Maintenance>,
}

/// Changes of the fields of a response, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// The names of fields that are removed.
    pub remove: Vec<String>,
    /// Fields that take the place of those with the same name.
    pub set: Vec<(String, String)>,
    /// Fields that are added.
    pub add: Vec<(String, String)>,
}

/// How many requests a client may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many requests,
    pub requests: u32,
    /// in so many seconds,
    pub seconds: u64,
    /// and so many more at once.
    pub burst: u32,
    /// The name of the field that tells clients apart; by their addresses, if there is none.
    pub key: Option<String>,
}

/// A text that the front sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Its content type.
    pub content_type: String,
    /// The text.
    pub text: String,
}

/// What answers while a site is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// The page.
    pub page: Page,
    /// After so many seconds a client may ask again.
    pub retry_after: u64,
    /// The clients that are served all the same.
    pub except: Vec<Proxy>,
}

impl Layers {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
