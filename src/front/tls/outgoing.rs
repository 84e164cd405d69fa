//! Connections that this program opens with TLS: to a certificate authority.

use std::sync::Arc;

use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};

use super::certificate::{self, Named};

/// What opens connections.
pub type Connector = HttpsConnector<HttpConnector>;

/// What opens connections for HTTPS only, to servers whose certificates one of these authorities has issued, in PEM, or one that the system trusts.
///
/// # Errors
/// There is no authority that can be used.
pub fn connector(ca: Option<&str>) -> Result<Connector, String> {
    let provider = Arc::new(default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("could not set TLS up: {error}"))?;
    let config = match ca {
        None => builder
            .try_with_platform_verifier()
            .map_err(|error| {
                format!("the system has no certificates of authorities: {error} (install ca-certificates)")
            })?
            .with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            let file = Named {
                name: "acme.ca",
                bytes: pem.as_bytes(),
            };
            for issuer in certificate::certificates(file)? {
                let added = roots.add(issuer);
                added.map_err(|error| format!("acme.ca: is no authority: {error}"))?;
            }
            builder
                .with_root_certificates(roots)
                .with_no_client_auth()
        }
    };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder.https_only().enable_http1().build())
}
