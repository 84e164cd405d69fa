//! Settings of the layers of the front: what it does with requests and responses besides passing them on (preforkd.toml(5)).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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
    /// What changes in the heads of requests on their way to what answers them.
    pub request_headers: Changes,
    /// The codings in which responses are compressed, what is preferred first. For a route, `None` is what the site says.
    pub compress: Option<Vec<Coding>>,
    /// Whether responses are kept and given to others. For a route, `None` is what the site says.
    pub cache: Option<bool>,
    /// The largest request body. For a route, `None` is what the site says.
    pub max_body: Option<u64>,
    /// How many requests a client may send.
    pub rate_limits: Vec<RateLimit>,
    /// The most connections that are open in all workers together. Only a site has such a limit.
    pub max_connections: Option<u32>,
    /// What the front sends in place of its own texts, by the status.
    pub error_pages: BTreeMap<u16, Page>,
    /// What answers all requests.
    pub maintenance: Option<Maintenance>,
    /// Who is asked for a password.
    pub basic_auth: BasicAuth,
    /// Who is asked whether a request may pass.
    pub forward_auth: ForwardAuth,
    /// The folders of which an application may have files sent, by the prefixes under which it names them. For a route, `None` is what the
    /// site says.
    pub sendfile: Option<BTreeMap<String, PathBuf>>,
}

/// Who is asked for a user and a password (RFC 7617).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum BasicAuth {
    /// For a route, what the site says; nobody for a site.
    #[default]
    Unsaid,
    /// Nobody.
    Nobody,
    /// Everybody, and these users are served.
    All {
        /// What the users are told about what they log in to.
        realm: String,
        /// The users.
        users: Vec<User>,
    },
}

/// Who is asked whether a request may pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ForwardAuth {
    /// For a route, the one that the site says; nobody for a site.
    #[default]
    Unsaid,
    /// Nobody.
    Nobody,
    /// Somebody.
    Asks(Question),
}

/// What is asked, and what is done with the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The name of the upstream.
    pub upstream: String,
    /// The path, perhaps with a query.
    pub path: String,
    /// The fields of the answer that a request gets on its way to what answers it. No client can send them.
    pub headers: Vec<String>,
    /// The field of the answer that names the user. No client can send it either.
    pub user: String,
}

/// A user, and a hash of the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name.
    pub name: String,
    /// The hash, as htpasswd(1) or argon2(1) writes it.
    pub hash: String,
}

/// Shows no hash.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User").field(&self.name).finish()
    }
}

/// Changes of the fields of a head, in this order.
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

/// A value of a request that can stand in a text, in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestValue {
    /// The address of the client.
    ClientIp,
    /// The host that was asked for, without its port.
    Host,
    /// `http` or `https`.
    Scheme,
    /// The method.
    Method,
    /// The path, as it was sent.
    Path,
    /// The query, as it was sent, without its question mark.
    Query,
    /// The name of the request in logs.
    RequestId,
    /// The user, as `basic_auth` or `forward_auth` has found out.
    User,
    /// The subject of the certificate of the client.
    ClientCertSubject,
}

impl RequestValue {
    /// All of them, with their names.
    pub const ALL: [(&str, Self); 9] = [
        ("client_ip", Self::ClientIp),
        ("host", Self::Host),
        ("scheme", Self::Scheme),
        ("method", Self::Method),
        ("path", Self::Path),
        ("query", Self::Query),
        ("request_id", Self::RequestId),
        ("user", Self::User),
        ("client_cert_subject", Self::ClientCertSubject),
    ];
}

/// A piece of a text with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPiece<'a> {
    /// As it is.
    Text(&'a str),
    /// A value.
    Value(RequestValue),
}

/// The pieces of a text in which `{NAME}` stands for a value, and `{{` for a brace.
///
/// # Errors
/// What stands in braces and for nothing.
pub fn text_pieces(text: &str) -> Result<Vec<TextPiece<'_>>, &str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        pieces.push(TextPiece::Text(&rest[..at]));
        let inner = &rest[at + 1..];
        if let Some(after) = inner.strip_prefix('{') {
            pieces.push(TextPiece::Text("{"));
            rest = after;
            continue;
        }
        let end = inner.find('}').ok_or(&rest[at..])?;
        let mut known = RequestValue::ALL.iter();
        let known = known.find(|(name, _)| *name == &inner[..end]);
        let (_, value) = known.ok_or(&rest[at..at + end + 2])?;
        pieces.push(TextPiece::Value(*value));
        rest = &inner[end + 1..];
    }
    pieces.push(TextPiece::Text(rest));
    pieces.retain(|piece| *piece != TextPiece::Text(""));
    Ok(pieces)
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

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

impl Layers {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_braces_stand_for_values() {
        use RequestValue::{ClientIp, Path};
        use TextPiece::{Text, Value};
        for (text, expected) in [
            ("", Ok(vec![])),
            ("a", Ok(vec![Text("a")])),
            ("{path}", Ok(vec![Value(Path)])),
            (
                "for={client_ip};x",
                Ok(vec![Text("for="), Value(ClientIp), Text(";x")]),
            ),
            ("{{path}", Ok(vec![Text("{"), Text("path}")])),
            ("{{{path}}", Ok(vec![Text("{"), Value(Path), Text("}")])),
            ("a{other}b", Err("{other}")),
            ("a{", Err("{")),
            ("{path", Err("{path")),
            ("{ path}", Err("{ path}")),
            ("{}", Err("{}")),
        ] {
            assert_eq!(text_pieces(text), expected, "{text}");
        }
    }
}
