//! What is agreed on with the clients that ask for certain names, and which names an address has.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ConfigBuilder, RootCertStore, SignatureScheme, WantsVerifier};

use super::certificate::{self, Named, Pair};
use super::names::ByName;
use super::tickets::{Keys, Tickets};

/// Whether clients are to show a certificate, and who may have issued it.
#[derive(Debug, Clone, Copy)]
pub struct ClientAuthority<'a> {
    /// The certificates of the issuers, PEM.
    pub issuers: Named<'a>,
    /// A client without one is turned away; else the application decides.
    pub is_required: bool,
}

/// What is agreed on with clients: TLS 1.2 with AEAD or 1.3; no early data, no renegotiation, no compression, as the library knows none of
/// them or only if asked.
#[derive(Debug, Clone)]
pub struct Terms {
    pub(super) config: Arc<ServerConfig>,
    /// The names that all of their certificates have: for these a client may use the connection (RFC 9113 section 9.1.1).
    pub(super) names: Arc<[Box<str>]>,
    /// Which certificates of clients count; none if clients are not asked for any.
    pub(super) client_policy: Option<Arc<[u8]>>,
}

impl Terms {
    /// Terms with these certificates, of which each client gets the first whose kind of key it knows. `protocols` are those for ALPN
    /// (RFC 7301), the preferred one first, such as `http/1.1`.
    ///
    /// # Errors
    /// What is wrong with the issuers of clients' certificates.
    ///
    /// # Panics
    /// Without a certificate.
    pub fn new(
        pairs: Vec<Arc<Pair>>,
        protocols: &[&str],
        authority: Option<ClientAuthority<'_>>,
        keys: &Arc<Keys>,
    ) -> Result<Self, String> {
        assert!(!pairs.is_empty(), "terms without a certificate");
        let builder = builder()?;
        let builder = match authority {
            Some(authority) => {
                let provider = builder.crypto_provider().clone();
                builder.with_client_cert_verifier(verifier(authority, provider)?)
            }
            None => builder.with_no_client_auth(),
        };
        let pairs: Arc<[_]> = pairs.into();
        let names = common_names(&pairs);
        let context = context(authority);
        let mut config = builder.with_cert_resolver(Arc::new(ByKind(pairs)));
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Tickets::new(keys.clone(), &context);
        config.ignore_client_order = true;
        Ok(Self {
            config: Arc::new(config),
            names,
            client_policy: authority.map(|_| context.into()),
        })
    }

    /// Which certificates of clients count; none if clients are not asked for any.
    pub fn client_policy(&self) -> Option<&Arc<[u8]>> {
        self.client_policy.as_ref()
    }
}

/// What each configuration begins with: without the versions that have been broken, and the default suites have AEAD only.
pub(super) fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, String> {
    ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| format!("could not set TLS up: {error}"))
}

/// The names that each of these has, so that it does not matter which one the client was shown.
fn common_names(pairs: &[Arc<Pair>]) -> Arc<[Box<str>]> {
    let first = pairs.iter().take(1).flat_map(|pair| pair.names().all());
    let common = first.filter(|name| pairs.iter().all(|pair| pair.names().has(name)));
    common.map(Into::into).collect()
}

/// What the library has, in the order in which it is preferred: keys of 128 bits first, as SHA-384, which comes with those of 256, takes
/// a third of the time of a resumed handshake on processors with instructions for SHA-256 only. Both are safe: RFC 8446 section 9.1.
fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

/// Whether these can be the issuers of clients' certificates.
///
/// # Errors
/// What is wrong with them.
pub fn check_issuers(issuers: Named<'_>) -> Result<(), String> {
    let authority = ClientAuthority {
        issuers,
        is_required: true,
    };
    verifier(authority, Arc::new(default_provider())).map(drop)
}

fn verifier(
    authority: ClientAuthority<'_>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let name = authority.issuers.name;
    let mut roots = RootCertStore::empty();
    for (n, issuer) in certificate::certificates(authority.issuers)?
        .into_iter()
        .enumerate()
    {
        let number = n + 1;
        roots.add(issuer).map_err(|error| {
            format!("{name}: its certificate {number} cannot be an issuer: {error}")
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let builder = match authority.is_required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|error| format!("{name}: cannot be used to check certificates: {error}"))
}

/// What tells the tickets of these terms from others: a session that was begun without a certificate must not go on where one is
/// needed, nor with that of another issuer.
fn context(authority: Option<ClientAuthority<'_>>) -> Vec<u8> {
    let Some(authority) = authority else {
        return Vec::new();
    };
    let issuers = digest::digest(&digest::SHA256, authority.issuers.bytes);
    [issuers.as_ref(), &[u8::from(authority.is_required)]].concat()
}

/// Certificates of several kinds of key for the same names.
#[derive(Debug)]
struct ByKind(Arc<[Arc<Pair>]>);

impl ResolvesServerCert for ByKind {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = choose(&self.0, hello.signature_schemes())?;
        Some(pair.certified.clone())
    }
}

/// The first whose key can sign as the client knows; or else the first, which the handshake finds out.
fn choose<'a>(pairs: &'a [Arc<Pair>], schemes: &[SignatureScheme]) -> Option<&'a Arc<Pair>> {
    let can = |pair: &&Arc<Pair>| pair.certified.key.choose_scheme(schemes).is_some();
    pairs.iter().find(can).or(pairs.first())
}

/// The terms of one address by the names that clients ask for.
#[derive(Clone)]
pub struct Address {
    default: Terms,
    names: ByName<Terms>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").finish_non_exhaustive()
    }
}

impl Address {
    /// An address with terms for clients that ask for no name, or for one that is unknown.
    pub fn new(default: Terms) -> Self {
        Self {
            default,
            names: ByName::default(),
        }
    }

    /// Adds terms for a name, which may begin with `*.`. If there are some already, they stay.
    pub fn add(&mut self, name: &str, terms: &Terms) {
        self.names.insert(name, terms.clone());
    }

    pub(super) fn terms(&self, name: Option<&str>) -> &Terms {
        name.and_then(|name| self.names.get(name))
            .unwrap_or(&self.default)
    }
}
