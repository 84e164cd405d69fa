//! Whether a connection with TLS may be used for a request: clients use one for all hosts that its certificate covers (RFC 9113
//! section 9.1.1), and must not get by that what only others with a certificate of theirs get.

use std::sync::{Arc, PoisonError, RwLock};

use preforkd_http::Tls;

use crate::hosts::without_port;
use crate::tls::names::covers;

/// Which certificates of clients each site asks for, by its number. They can be exchanged: connections that have begun under others are
/// not for the site then.
#[derive(Debug, Default)]
pub struct Policies(RwLock<Vec<Option<Arc<[u8]>>>>);

impl Policies {
    /// Takes others instead.
    pub fn replace(&self, policies: Vec<Option<Arc<[u8]>>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = policies;
    }

    /// Whether a site asks for the certificates for which the connection has asked.
    fn agree(&self, site: usize, tls: &Tls) -> bool {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(site).and_then(Option::as_ref) == tls.client_policy.as_ref()
    }

    /// Whether a request for this site and host may come on this connection. `by_name` finds the site of the name that the client has
    /// asked for in the handshake.
    ///
    /// A client that has asked for no name has accepted what it was shown; one that asks for another name than before can know by the
    /// certificate that this is the same server.
    pub fn allow(
        &self,
        site: usize,
        host: Option<&[u8]>,
        tls: &Tls,
        by_name: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> bool {
        if !self.agree(site, tls) {
            return false;
        }
        let (Some(name), Some(host)) = (tls.server_name.as_deref(), host) else {
            return true;
        };
        let host = without_port(host);
        host.eq_ignore_ascii_case(name.as_bytes())
            || by_name(name.as_bytes()) == Some(site)
            || str::from_utf8(host)
                .is_ok_and(|host| covers(tls.names.iter().map(AsRef::as_ref), host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(server_name: Option<&str>, policy: Option<&[u8]>) -> Tls {
        Tls {
            version: "TLSv1.3",
            cipher: "",
            server_name: server_name.map(Into::into),
            protocol: None,
            resumed: false,
            client: None,
            names: ["a.example", "*.a.example"].map(Into::into).into(),
            client_policy: policy.map(Into::into),
        }
    }

    #[test]
    fn a_connection_is_for_what_its_certificate_covers() {
        let policies = Policies::default();
        policies.replace(vec![None; 2]);
        for (name, host, allowed) in [
            (Some("a.example"), Some("a.example"), true),
            (Some("a.example"), Some("A.example:8443"), true),
            (Some("a.example"), Some("b.a.example"), true),
            (Some("a.example"), Some("c.b.a.example"), false),
            (Some("a.example"), Some("other.example"), false),
            (Some("a.example"), Some("127.0.0.1"), false),
            // Not covered, and the client has seen that.
            (Some("other.example"), Some("other.example"), true),
            (None, Some("other.example"), true),
            (Some("a.example"), None, true),
            // The other name has the same site.
            (Some("alias.example"), Some("other.example"), true),
        ] {
            let tls = tls(name, None);
            let by_name = |name: &[u8]| Some(usize::from(name == b"alias.example"));
            let found = policies.allow(1, host.map(str::as_bytes), &tls, by_name);
            assert_eq!(found, allowed, "{name:?} {host:?}");
        }
    }

    #[test]
    fn nobody_gets_past_the_certificates_of_another_site() {
        let policies = Policies::default();
        policies.replace(vec![None, Some((*b"ca").into()), Some((*b"other").into())]);
        for (policy, site, allowed) in [
            (None, 0, true),
            (None, 1, false),
            (Some(&b"ca"[..]), 0, false),
            (Some(b"ca"), 1, true),
            (Some(b"ca"), 2, false),
        ] {
            for name in [None, Some("a.example")] {
                let tls = tls(name, policy);
                let found = policies.allow(site, Some(b"a.example"), &tls, |_| Some(site));
                assert_eq!(found, allowed, "{policy:?} {site}");
            }
        }
    }
}
