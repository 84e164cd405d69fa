//! What layers found out about an exchange.

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// What layers say of an exchange, for later layers, for the handler and for the access log. What none has said is as the request and
/// its connection show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The peer is a proxy whose word counts.
    pub trusted: bool,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The client's port.
    pub client_port: Option<u16>,
    /// Whether the client speaks TLS.
    pub https: Option<bool>,
    /// Host, with its port if it has one, that the client asked for.
    pub host: Option<Box<[u8]>>,
    /// The port that the client asked for.
    pub port: Option<u16>,
    /// The path below which the application is reached; begins with a slash and does not end with one.
    pub prefix: Option<Box<[u8]>>,
    /// The name of this exchange in logs.
    pub request_id: Option<Box<str>>,
    /// The encryption of the connection, if it is encrypted here.
    pub tls: Option<Arc<Tls>>,
    /// The most bytes that the body of the request may have, if that is less than the server allows.
    pub max_body: Option<u64>,
    /// What the program has noted.
    pub note: Option<Note>,
}

/// What the program that uses this crate has noted of an exchange, for its own layers and what answers.
#[derive(Clone)]
pub struct Note(Arc<Noted<dyn Any + Send + Sync>>);

struct Noted<T: ?Sized> {
    user: OnceLock<Box<[u8]>>,
    what: T,
}

impl Note {
    /// Notes this.
    pub fn new(what: impl Any + Send + Sync) -> Self {
        Self(Arc::new(Noted {
            user: OnceLock::new(),
            what,
        }))
    }

    /// What was noted, if it has this type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.what.downcast_ref()
    }

    /// Notes who the client is, for the access log. The first one counts.
    pub fn set_user(&self, user: &[u8]) {
        let _ = self.0.user.set(user.into());
    }

    /// Who the client is, if it was noted.
    pub fn user(&self) -> Option<&[u8]> {
        self.0.user.get().map(|user| &user[..])
    }
}

impl PartialEq for Note {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Note {}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Note").finish_non_exhaustive()
    }
}

/// What a handshake of TLS has agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The version as OpenSSL writes it, such as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its name in the registry of the IANA, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The name that the client has asked for (RFC 6066 section 3), in lower case.
    pub server_name: Option<Box<str>>,
    /// The protocol that was agreed on (RFC 7301), such as `h2`.
    pub protocol: Option<Box<[u8]>>,
    /// The session goes on from an earlier one.
    pub resumed: bool,
    /// The certificate of the client, if it was asked for and has shown one that was verified.
    pub client: Option<ClientCertificate>,
    /// The names of the certificate that was shown to the client, in lower case; some may begin with `*.`.
    pub names: Arc<[Box<str>]>,
    /// Which certificates of clients count; none if clients are not asked for any. What is served under other terms is not for this
    /// connection.
    pub client_policy: Option<Arc<[u8]>>,
}

/// What the certificate of a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject (RFC 4514), such as `CN=alice,O=Example`.
    pub subject: Box<str>,
    /// Its issuer in the same form.
    pub issuer: Box<str>,
    /// Its serial number in hexadecimal digits.
    pub serial: Box<str>,
    /// SHA-256 of the certificate in hexadecimal digits.
    pub fingerprint: Box<str>,
}
