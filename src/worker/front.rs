//! Settings of a front worker, passed as one JSON object in a memory file, after a line with the secret for session tickets
//! (preforkd-worker(7), "PREFORKD_FRONT_FD").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::layers::Layers;
use crate::settings::{Http, Mapping, seconds};

/// What the front serves, and how; preforkd.toml(5) describes each key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How requests are taken.
    pub http: Http,
    /// The listeners, by the names that they have in `LISTEN_FDNAMES`. The kernel may have several sockets for one of them.
    pub listeners: BTreeMap<String, Listener>,
    /// The sites.
    pub sites: Vec<Site>,
    /// What routes lead to, by name: the workers of an app.
    pub upstreams: BTreeMap<String, Upstream>,
    /// How long a connection may be silent after an upgrade.
    #[serde(with = "seconds")]
    pub upgrade_timeout: Duration,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// The memory of each worker for responses that are kept, in bytes.
    pub cache_size: u64,
    /// The most connections that a client has open in all workers together.
    pub max_connections_per_client: Option<u32>,
}

/// A listener of the front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its address, for messages.
    pub address: String,
    /// Whether its clients speak TLS.
    pub tls: bool,
}

/// Names, and what is served under them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name in the configuration.
    pub name: String,
    /// The names of its listeners.
    pub listeners: Vec<String>,
    /// Its hosts, in lower case, without a port: a name, `*.` and a name, or an address. Without any it takes what no other site of its
    /// listeners takes.
    pub hosts: Vec<String>,
    /// Its routes, in the order of the configuration.
    pub routes: Vec<Route>,
    /// What else is done with its requests and responses.
    pub layers: Layers,
}

/// What a site has, by names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// What its routes are called, see [`Site::labels`].
    pub routes: Vec<String>,
    /// The upstreams to which they lead.
    pub upstreams: BTreeSet<String>,
}

impl Site {
    /// What the site has.
    pub fn outline(&self) -> Outline {
        let targets = self.routes.iter().map(|route| &route.target);
        let upstreams = targets.filter_map(|target| match target {
            Target::Upstream(name) => Some(name.clone()),
            _ => None,
        });
        Outline {
            name: self.name.clone(),
            routes: self.labels(),
            upstreams: upstreams.collect(),
        }
    }

    /// What its routes are called where requests are counted: by their path, and by their conditions, if they have some. No two are called
    /// the same, and a route is called the same as long as it stays the same.
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = Vec::new();
        for route in &self.routes {
            let mut label = route.path.clone();
            if !route.methods.is_empty() {
                label += &format!(" {}", route.methods.join(","));
            }
            for (name, value) in &route.headers {
                label += &format!(" {name}={value}");
            }
            let known = labels.iter().filter(|known| **known == label).count();
            if known > 0 {
                label += &format!(" #{}", known + 1);
            }
            labels.push(label);
        }
        labels
    }
}

/// The certificates of the sites with TLS, by the names of the sites. They are no settings, as they change while a worker runs
/// ([`crate::updates`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates(pub BTreeMap<String, Tls>);

impl Certificates {
    /// Encodes the JSON object.
    ///
    /// # Errors
    /// None is known: it is made of texts.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Parses the JSON object.
    ///
    /// # Errors
    /// A key is missing, unknown or of another type.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// Certificates and keys, in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// An authority issues them; until then there is one that stands for itself, and no file.
    pub is_automatic: bool,
    /// The certificates, each with its chain and its key.
    pub certificates: Vec<Certificate>,
    /// Who issues the certificates of clients; they are asked for none otherwise.
    pub client_ca: Option<ClientCa>,
}

/// The authorities that issue the certificates of clients.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCa {
    /// Their certificates.
    pub issuers: Pem,
    /// A client without a certificate is turned away.
    pub is_required: bool,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate, and those that lead to an authority.
    pub chain: Pem,
    /// The key.
    pub key: Pem,
}

/// A text in PEM, and the file that it was read from, for messages.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pem {
    /// The path.
    pub path: String,
    /// The content.
    pub text: String,
}

/// Shows no keys.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.certificates.iter().map(|one| &one.chain.path);
        f.debug_tuple("Tls")
            .field(&files.collect::<Vec<_>>())
            .finish()
    }
}

/// Which requests of a site are for a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The path, or the part of it before a slash; with a slash at its end, only what is below.
    pub path: String,
    /// The methods; all, if there are none.
    pub methods: Vec<String>,
    /// Fields that the request must have, in lower case, with these values; `*` is any value.
    pub headers: BTreeMap<String, String>,
    /// Whether the target does not see `path`.
    pub strip_prefix: bool,
    /// What the target sees in place of `path`; it begins with a slash and does not end with one.
    pub rewrite: Option<String>,
    /// Whether the body of a request is passed on while it arrives.
    pub stream: bool,
    /// What answers.
    pub target: Target,
    /// What else is done with its requests and responses.
    pub layers: Layers,
}

/// What answers a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Target {
    /// The upstream of this name.
    Upstream(String),
    /// The files of a folder, or one file.
    Files(Mapping),
    /// Another location.
    Redirect {
        /// The status.
        status: u16,
        /// The location, in which `{host}`, `{path}` and `{query}` stand for parts of what was asked for.
        location: String,
    },
    /// Always the same response.
    Answer {
        /// The status.
        status: u16,
        /// The content type of the body.
        content_type: String,
        /// The body.
        body: String,
    },
}

/// Where the workers of an app are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Their addresses, as in `listen`.
    pub addresses: Vec<String>,
    /// Whether the master tells where each worker is (`crate::upstreams`). Until then there is none.
    pub is_told: bool,
    /// How they are spoken to.
    pub speech: Speech,
    /// The most requests that wait for one of them.
    pub queue_length: u32,
    /// How long each waits.
    #[serde(with = "seconds")]
    pub queue_timeout: Duration,
    /// For a connection to come about.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// From the whole request to the head of the response.
    #[serde(with = "seconds")]
    pub response_timeout: Duration,
    /// Between two pieces of a request or a response.
    #[serde(with = "seconds")]
    pub idle_timeout: Duration,
    /// After so many failures one after the other an address is left alone; 0 is never.
    pub max_fails: u32,
    /// The time in which they come, and for which it is left alone.
    #[serde(with = "seconds")]
    pub fail_timeout: Duration,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speech {
    /// The protocol.
    pub protocol: Protocol,
    /// The files that answer, if the upstream is an interpreter of files.
    pub scripts: Option<Scripts>,
}

/// A protocol of upstreams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    #[default]
    Http,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
    /// FastCGI, in the role of the web server for a responder.
    FastCgi,
    /// SCGI.
    Scgi,
    /// The protocol of the server uWSGI.
    Uwsgi,
}

impl Protocol {
    /// Whether a body can be passed on whose length is not known, and fields after it.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::H2c)
    }

    /// Whether a connection goes on with another protocol if both sides wish so.
    pub fn can_switch(self) -> bool {
        self == Self::Http
    }

    /// Whether its messages are cut into frames of the connection.
    pub fn is_framed(self) -> bool {
        self == Self::H2c
    }
}

/// Files that answer requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scripts {
    /// The folder of all of them.
    pub root: PathBuf,
    /// The name of the file that answers for a folder, and for what is no file.
    pub index: String,
}

impl Settings {
    /// Encodes the JSON object.
    ///
    /// # Errors
    /// A path is not valid UTF-8.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Parses the JSON object.
    ///
    /// # Errors
    /// A key is missing, unknown or of another type.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}
