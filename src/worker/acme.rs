//! What the master's helper and `preforkd-front acme`, which speaks with a certificate authority (RFC 8555), tell each other, as JSON; and the
//! challenges that the workers of the front answer.
//!
//! An exchange has two parts, each a process of its own: the first begins an order and ends with the challenges; when all workers of the front
//! know these, the second one has them validated and ends with the certificate.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How the authority is shown that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// By a request over plain HTTP, to port 80 (RFC 8555 section 8.3).
    #[serde(rename = "http-01")]
    Http,
    /// By a certificate for the protocol `acme-tls/1`, at port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

/// The path below which challenges are asked for over plain HTTP.
pub const PATH: &str = "/.well-known/acme-challenge/";

/// The protocol by which a handshake asks for the certificate of a challenge.
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The challenges that the workers of the front answer.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenges {
    /// The answers to requests, by the token that the path ends with.
    pub http: BTreeMap<String, String>,
    /// Certificate and key in PEM, by the host that a handshake asks for.
    pub tls: BTreeMap<String, String>,
}

impl Challenges {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls.is_empty()
    }

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
    /// It is another one.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// Shows no keys.
impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges")
            .field("http", &self.http.keys())
            .field("tls", &self.tls.keys())
            .finish()
    }
}

/// An external account, to which an account at the authority is bound (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// Its name.
    pub key_id: String,
    /// Its key, in the base64 of URLs without padding.
    pub hmac_key: String,
}

/// Does not show the key.
impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// What one process does.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The URL of the authority's directory.
    pub directory: String,
    /// Who has issued the certificate of that server, in PEM; those that the system trusts if there is none.
    pub ca: Option<String>,
    /// The address for messages to the operator.
    pub email: Option<String>,
    /// The external account to which a new account is bound.
    pub eab: Option<ExternalAccount>,
    /// The account, as [`Answer::account`] was before; none makes one.
    pub account: Option<String>,
    /// The hosts.
    pub hosts: Vec<String>,
    /// The kinds of challenges that can be answered, what is preferred first.
    pub kinds: Vec<Kind>,
    /// The URL of an order whose challenges are answered by now; none begins one.
    pub order: Option<String>,
}

/// What has come of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The account with its key.
    pub account: Option<String>,
    /// The rest.
    pub outcome: Outcome,
}

/// How a process has ended.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// The order waits for these challenges.
    Begun {
        /// Its URL.
        order: String,
        /// The challenges.
        challenges: Challenges,
    },
    /// The key, the certificate and its chain, in PEM.
    Issued(String),
    /// There is no certificate.
    Failed {
        /// Why, in one line.
        why: String,
        /// Of which kind that is.
        failure: Failure,
        /// The seconds after which the authority wants to be asked again.
        retry_after: Option<u64>,
    },
}

/// Kinds of failures, by what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// Time: the authority was not reached, or has trouble of its own.
    Unreachable,
    /// More time: too much was asked of it.
    Limited,
    /// The operator: it refuses, and would again.
    Refused,
    /// The operator, or time: it did not find the answer to a challenge.
    Unproven,
}

/// What is in a file with a key, a certificate and its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// When the certificate begins to be valid, in seconds since 1970.
    pub not_before: u64,
    /// When it expires.
    pub not_after: u64,
    /// The names for which it is.
    pub names: Vec<String>,
    /// Whether it stands for itself, as what is shown until there is one of an authority.
    pub is_self_signed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_of_the_registry() {
        let names = serde_json::to_string(&[Kind::Http, Kind::TlsAlpn]).expect("texts");
        assert_eq!(names, "[\"http-01\",\"tls-alpn-01\"]");
    }

    #[test]
    fn challenges_survive_encoding_and_their_keys_are_not_shown() {
        let challenges = Challenges {
            http: [("token".to_owned(), "token.thumb".to_owned())].into(),
            tls: [("a.example".to_owned(), "PRIVATE KEY".to_owned())].into(),
        };
        let text = challenges.encode().expect("texts");
        assert_eq!(Challenges::parse(&text).ok(), Some(challenges.clone()));
        let shown = format!("{challenges:?}");
        assert!(
            shown.contains("a.example") && !shown.contains("PRIVATE"),
            "{shown}"
        );
        assert!(Challenges::parse("{}").is_err());
        let account = ExternalAccount {
            key_id: "shop".into(),
            hmac_key: "c2VjcmV0".into(),
        };
        let shown = format!("{account:?}");
        assert!(
            shown.contains("shop") && !shown.contains("c2VjcmV0"),
            "{shown}"
        );
    }
}
