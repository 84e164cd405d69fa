//! Certificates with their keys, from bytes. It says what is wrong with them in words that name the files.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use preforkd_http::ClientCertificate;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use super::names::Names;

/// The bytes of a file, and the name by which messages call it.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// A certificate with its chain and key, which fit.
#[derive(Debug)]
pub struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    name: Box<str>,
    names: Names,
    not_before: Time,
    not_after: Time,
    life: (u64, u64),
    is_self_signed: bool,
}

impl Pair {
    /// A pair of the certificates in one file, the one of the server first and then each the issuer of the one before it, and the
    /// private key in another, both PEM (RFC 7468).
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn load(chain: Named<'_>, key: Named<'_>) -> Result<Self, String> {
        let certificates = certificates(chain)?;
        let parsed = certificates
            .iter()
            .enumerate()
            .map(|(n, der)| parse(der).map_err(|error| unreadable(chain.name, n, &error)))
            .collect::<Result<Vec<_>, _>>()?;
        let signing = any_supported_type(&private_key(key)?).map_err(|_| {
            format!(
                "{}: is no key that can be used (ECDSA with P-256 or P-384, RSA from 2048 bits on, or Ed25519)",
                key.name
            )
        })?;
        let fits = |der: &CertificateDer<'static>| {
            CertifiedKey::new(vec![der.clone()], signing.clone()).keys_match()
        };
        if fits(&certificates[0]).is_err() {
            let place = certificates.iter().position(|der| fits(der).is_ok());
            return Err(match place {
                Some(n) => format!(
                    "{}: {} belongs to its certificate {} (put that first)",
                    chain.name,
                    key.name,
                    n + 1
                ),
                None => format!("{} does not belong to {}", key.name, chain.name),
            });
        }
        for (n, pair) in parsed.windows(2).enumerate() {
            let (below, above) = (pair[0].tbs_certificate(), pair[1].tbs_certificate());
            if below.issuer() != above.subject() {
                return Err(format!(
                    "{}: its certificate {} ({}) was not issued by the next one ({}), but by {} (put each issuer behind what it has issued)",
                    chain.name,
                    n + 1,
                    below.subject(),
                    above.subject(),
                    below.issuer(),
                ));
            }
        }
        let own = parsed[0].tbs_certificate();
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(certificates, signing)),
            name: chain.name.into(),
            names: names(&parsed[0]).map_err(|error| unreadable(chain.name, 0, &error))?,
            // The chain is good for as long as all of it is.
            not_before: latest(&parsed, own.validity().not_before),
            not_after: earliest(&parsed, own.validity().not_after),
            life: (
                own.validity().not_before.to_unix_duration().as_secs(),
                own.validity().not_after.to_unix_duration().as_secs(),
            ),
            is_self_signed: own.issuer() == own.subject(),
        })
    }

    /// The names for which it is.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// When it expires, in seconds since 1970: the certificate, or one of its chain.
    pub fn expires(&self) -> u64 {
        self.not_after.to_unix_duration().as_secs()
    }

    /// When it begins to be valid and when it expires, without its chain, in seconds since 1970.
    pub fn life(&self) -> (u64, u64) {
        self.life
    }

    /// Whether its issuer is itself.
    pub fn is_self_signed(&self) -> bool {
        self.is_self_signed
    }

    /// Whether it is valid at this time.
    ///
    /// # Errors
    /// It is not yet, or no longer.
    pub fn check_time(&self, now: SystemTime) -> Result<(), String> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = &self.name;
        if now > self.not_after.to_unix_duration() {
            return Err(format!("{name}: expired on {}", day(&self.not_after)));
        }
        if now < self.not_before.to_unix_duration() {
            let day = day(&self.not_before);
            return Err(format!("{name}: is not valid before {day}"));
        }
        Ok(())
    }
}

fn latest(chain: &[Certificate], own: Time) -> Time {
    let all = chain
        .iter()
        .map(|one| one.tbs_certificate().validity().not_before);
    all.fold(own, |a, b| {
        match a.to_unix_duration() < b.to_unix_duration() {
            true => b,
            false => a,
        }
    })
}

fn earliest(chain: &[Certificate], own: Time) -> Time {
    let all = chain
        .iter()
        .map(|one| one.tbs_certificate().validity().not_after);
    all.fold(own, |a, b| {
        match a.to_unix_duration() > b.to_unix_duration() {
            true => b,
            false => a,
        }
    })
}

fn day(time: &Time) -> String {
    let time = time.to_date_time();
    format!("{:04}-{:02}-{:02}", time.year(), time.month(), time.day())
}

/// The certificates of a file; at least one.
///
/// # Errors
/// There is none, or what is there is no PEM.
pub fn certificates(file: Named<'_>) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = file.name;
    let all: Vec<_> = CertificateDer::pem_slice_iter(file.bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{name}: is not in the form PEM: {error}"))?;
    if all.is_empty() {
        let hint = match PrivateKeyDer::from_pem_slice(file.bytes) {
            Ok(_) => "a private key is there instead; are the two files exchanged?",
            Err(_) => "such as stands after -----BEGIN CERTIFICATE-----",
        };
        return Err(format!("{name}: holds no certificate ({hint})"));
    }
    Ok(all)
}

fn private_key(file: Named<'_>) -> Result<PrivateKeyDer<'static>, String> {
    let name = file.name;
    let is_encrypted = [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| file.bytes.windows(mark.len()).any(|part| part == *mark));
    if is_encrypted {
        return Err(format!(
            "{name}: the key is encrypted (`openssl pkey -in {name}` decrypts it; protect the file by its mode)"
        ));
    }
    PrivateKeyDer::from_pem_slice(file.bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let hint = match CertificateDer::from_pem_slice(file.bytes) {
                Ok(_) => "a certificate is there instead; are the two files exchanged?",
                Err(_) => "such as stands after -----BEGIN PRIVATE KEY-----",
            };
            format!("{name}: holds no private key ({hint})")
        }
        error => format!("{name}: is not in the form PEM: {error}"),
    })
}

fn parse(der: &CertificateDer<'_>) -> Result<Certificate, x509_cert::der::Error> {
    Certificate::from_der(der)
}

fn unreadable(file: &str, n: usize, error: &x509_cert::der::Error) -> String {
    format!("{file}: its certificate {} cannot be read: {error}", n + 1)
}

/// The key and the certificate of a challenge. Nothing tells whether they fit: the library takes no certificate with an extension that is
/// critical and unknown to it, and this one must have such an extension.
pub(super) fn of_challenge(file: Named<'_>) -> Result<CertifiedKey, String> {
    let signing = any_supported_type(&private_key(file)?);
    let signing = signing.map_err(|error| format!("{}: {error}", file.name))?;
    Ok(CertifiedKey::new(certificates(file)?, signing))
}

/// The names of a certificate. A common name counts no longer (RFC 9525 section 2).
fn names(certificate: &Certificate) -> Result<Names, x509_cert::der::Error> {
    let extension = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()?;
    let all = extension.map(|(_, names)| names.0).unwrap_or_default();
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for name in all {
        match name {
            GeneralName::DnsName(name) => hosts.push(name.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => addresses.extend(address(bytes.as_bytes())),
            _ => {}
        }
    }
    Ok(Names::new(hosts, addresses))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// What is said of the certificate of a client, which was verified; none if it cannot be read.
pub(super) fn of_client(der: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let certificate = parse(der).ok()?;
    let tbs = certificate.tbs_certificate();
    Some(ClientCertificate {
        subject: visible(&tbs.subject().to_string()),
        issuer: visible(&tbs.issuer().to_string()),
        serial: hexadecimal(tbs.serial_number().as_bytes()).into(),
        fingerprint: hexadecimal(digest::digest(&digest::SHA256, der).as_ref()).into(),
    })
}

/// A name as it can stand in a field: each byte that is not visible as a backslash and two digits (RFC 4514 section 2.4).
fn visible(name: &str) -> Box<str> {
    let mut visible = String::new();
    for byte in name.bytes() {
        match byte {
            b' '..=b'~' => visible.push(byte.into()),
            _ => visible.push_str(&format!("\\{byte:02X}")),
        }
    }
    visible.into()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
