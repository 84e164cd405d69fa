//! Certificates that prove to an authority that a host is ours, in handshakes for that only (RFC 8737).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use preforkd_worker::acme::PROTOCOL;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{Named, of_challenge};
use super::terms::builder;

/// What such handshakes are answered with, by the host that they ask for.
#[derive(Clone, Default)]
pub struct Proofs(Arc<RwLock<HashMap<String, Arc<ServerConfig>>>>);

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").finish_non_exhaustive()
    }
}

/// The certificate of one host.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl Proofs {
    /// Takes others instead: keys and certificates in PEM, by the hosts.
    ///
    /// # Errors
    /// What is wrong with one.
    pub fn replace(&self, all: &BTreeMap<String, String>) -> Result<(), String> {
        let mut proofs = HashMap::new();
        for (host, text) in all {
            let file = Named {
                name: host,
                bytes: text.as_bytes(),
            };
            let mut config = builder()?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(One(Arc::new(of_challenge(file)?))));
            config.alpn_protocols = vec![PROTOCOL.to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            proofs.insert(host.to_ascii_lowercase(), Arc::new(config));
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = proofs;
        Ok(())
    }

    /// What a handshake is answered with that asks for a proof, if it does and there is one.
    pub(super) fn find(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        // It may offer nothing else (RFC 8737 section 3).
        let mut offered = hello.alpn()?;
        if offered.next() != Some(PROTOCOL) || offered.next().is_some() {
            return None;
        }
        let host = hello.server_name()?.to_ascii_lowercase();
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&host).cloned()
    }
}
