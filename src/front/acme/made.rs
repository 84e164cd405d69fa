//! Certificates that need no authority: what is shown until one was issued, and what proves that a host is ours.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};

use instant_acme::KeyAuthorization;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, Error, KeyPair};

/// The first argument, which asks for a certificate of these hosts on standard output.
pub const COMMAND: &str = "self-signed";

/// Writes a key and a certificate for these hosts.
///
/// # Errors
/// One is no host, or they cannot be written; the whole message.
pub fn run(hosts: impl Iterator<Item = OsString>) -> Result<(), String> {
    let could_not = |error: &dyn Display| format!("could not make a certificate: {error}");
    let hosts: Vec<_> = hosts
        .map(|host| host.to_string_lossy().into_owned())
        .collect();
    let made = self_signed(&hosts).map_err(|error| could_not(&error))?;
    let written = io::stdout().write_all(made.as_bytes());
    written.map_err(|error| could_not(&error))
}

/// A key, and a certificate for these hosts that stands for itself, in PEM.
///
/// # Errors
/// A host is none.
pub fn self_signed(hosts: &[String]) -> Result<String, Error> {
    pem(params(hosts)?)
}

/// The certificate by which a handshake is answered that proves that a host is ours (RFC 8737 section 3), with its key.
///
/// # Errors
/// The host is none.
pub fn of_challenge(host: &str, answer: &KeyAuthorization) -> Result<String, Error> {
    let mut params = params(&[host.to_owned()])?;
    let proof = CustomExtension::new_acme_identifier(answer.digest().as_ref());
    params.custom_extensions.push(proof);
    pem(params)
}

fn params(hosts: &[String]) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        "preforkd, until a certificate was issued",
    );
    Ok(params)
}

fn pem(params: CertificateParams) -> Result<String, Error> {
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}
