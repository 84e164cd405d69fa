//! Who is served: `allow` and `deny`, by the address of the client.

use std::net::IpAddr;

use preforkd_http::TrustedProxies as Clients;
use preforkd_worker::layers::Layers;

/// The rules of a site or route.
#[derive(Debug, Default)]
pub struct Access {
    /// All, if there are none.
    allow: Option<Clients>,
    deny: Option<Clients>,
}

impl Access {
    /// Of these settings.
    pub fn new(layers: &Layers) -> Self {
        let clients = |written: &[_]| (!written.is_empty()).then(|| written.into());
        Self {
            allow: clients(&layers.allow),
            deny: clients(&layers.deny),
        }
    }

    /// Whether a client is served; one without an address has come over a Unix socket. A client that is in both lists is not.
    pub fn allows(&self, client: Option<IpAddr>) -> bool {
        self.allow.as_ref().is_none_or(|allow| is_in(allow, client))
            && !self.deny.as_ref().is_some_and(|deny| is_in(deny, client))
    }
}

/// Whether these are clients of the list.
pub fn is_in(list: &Clients, client: Option<IpAddr>) -> bool {
    match client {
        Some(client) => list.has(client),
        None => list.unix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let read = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Access::new(&Layers {
            allow: read(allow),
            deny: read(deny),
            ..Layers::default()
        })
    }

    #[test]
    fn a_client_must_be_allowed_and_not_denied() {
        for (allow, deny, client, is) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.0.0.1", false),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&[], &["10.1.0.0/16"], "10.1.2.3", false),
            (&[], &["10.1.0.0/16"], "10.2.0.1", true),
            (&["2001:db8::/32"], &[], "2001:db8::1", true),
            (&["2001:db8::/32"], &[], "10.0.0.1", false),
            // A Unix socket.
            (&["10.0.0.0/8"], &[], "", false),
            (&["unix"], &[], "", true),
            (&["unix"], &[], "10.0.0.1", false),
            (&[], &["unix"], "", false),
            (&[], &["0.0.0.0/0", "::/0"], "", true),
        ] {
            let client = client.parse().ok();
            let found = access(allow, deny).allows(client);
            assert_eq!(found, is, "{allow:?} {deny:?} {client:?}");
        }
    }
}
