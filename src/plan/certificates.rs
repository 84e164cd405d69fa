//! `tls`: the certificates and keys of a site. They go to the front, and to no process that runs code of an application.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use preforkd_worker::front::{Certificate, Certificates, ClientCa, Pem, Tls};

use super::acme::Acme;
use super::{Draft, Host, normal};
use crate::config::{Certified, ClientCertificate, Config, Place, Site, Value};

/// The largest file with a certificate or key, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Has the front check whether these certificates can be used. What it can serve all the same is added to `warnings`.
///
/// # Errors
/// What is wrong with one, at its site.
pub(super) fn check(
    config: &Config,
    certificates: &str,
    program: &Path,
    host: &dyn Host,
    warnings: &mut Vec<String>,
) -> Result<(), Place> {
    let flaws = flaws(certificates, program, host).map_err(Place::whole)?;
    for flaw in flaws {
        if flaw.is_warning {
            warnings.push(flaw.why);
            continue;
        }
        let mut sites = config.site.iter();
        let site = sites.find(|(known, _)| *known.get_ref() == flaw.site);
        return Err(Place {
            span: site.and_then(|(_, site)| site.tls.place()),
            message: format!("tls: {}", flaw.why),
        });
    }
    Ok(())
}

/// What is wrong with a certificate.
struct Flaw {
    is_warning: bool,
    site: String,
    why: String,
}

/// What the front finds wrong with these certificates.
fn flaws(certificates: &str, program: &Path, host: &dyn Host) -> Result<Vec<Flaw>, String> {
    let said = host.certificate_flaws(program, certificates)?;
    let flaw = |line: &str| {
        let mut parts = line.splitn(3, '\t');
        let (kind, site, why) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Flaw {
            is_warning: kind == "warning",
            site: site.to_owned(),
            why: why.to_owned(),
        })
    };
    Ok(said.lines().filter_map(flaw).collect())
}

/// The files of certificates that run.
pub fn paths_of(certificates: &Certificates) -> BTreeSet<&Path> {
    let texts = certificates.0.values().flat_map(pems);
    texts.map(|pem| Path::new(&pem.path)).collect()
}

fn pems(tls: &Tls) -> impl Iterator<Item = &Pem> {
    let pairs = tls.certificates.iter();
    let pairs = pairs.flat_map(|one| [&one.chain, &one.key]);
    pairs.chain(tls.client_ca.as_ref().map(|ca| &ca.issuers))
}

/// What their files hold now.
///
/// # Errors
/// One cannot be read; the path and why.
pub fn read_again(running: &Certificates, host: &dyn Host) -> Result<Certificates, String> {
    let mut found = running.clone();
    for tls in found.0.values_mut() {
        // It comes when it was issued.
        let is_issued = |one: &Certificate| host.is_file(Path::new(&one.chain.path));
        if tls.is_automatic && !tls.certificates.iter().all(is_issued) {
            continue;
        }
        let pairs = tls.certificates.iter_mut();
        let pairs = pairs.flat_map(|one| [&mut one.chain, &mut one.key]);
        let issuers = tls.client_ca.as_mut().map(|ca| &mut ca.issuers);
        for pem in pairs.chain(issuers) {
            let read = host.data(Path::new(&pem.path), None, MAX_FILE);
            pem.text = read.map_err(|why| format!("{}: {why}", pem.path))?;
        }
    }
    Ok(found)
}

/// Has the front check whether these certificates can be used. Returns what it can serve all the same.
///
/// # Errors
/// What is wrong with one.
pub fn judge(certificates: &str, program: &Path, host: &dyn Host) -> Result<Vec<String>, String> {
    let flaws = flaws(certificates, program, host)?;
    match flaws.iter().find(|flaw| !flaw.is_warning) {
        Some(flaw) => Err(flaw.why.clone()),
        None => Ok(flaws.into_iter().map(|flaw| flaw.why).collect()),
    }
}

impl Draft<'_> {
    /// What the files hold; `None` for a site without TLS. The front says whether they fit each other.
    pub(super) fn tls(
        &self,
        site: &Site,
        hosts: &[String],
        acme: &mut Acme,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Tls>, Place> {
        let mut certificates = Vec::new();
        let is_automatic = site.tls.iter().any(|one| *one.get_ref() == Certified::Auto);
        if is_automatic && site.tls.len() > 1 {
            return Err(site
                .tls
                .wrong("tls: \"auto\" stands alone (remove it or the others)"));
        }
        for written in &*site.tls {
            let Certified::Files(written) = written.get_ref() else {
                certificates.push(acme.add(self, site, hosts, warnings)?);
                continue;
            };
            certificates.push(Certificate {
                chain: self.pem("tls.cert", &written.cert, "CERTIFICATE")?,
                key: self.pem("tls.key", &written.key, "PRIVATE KEY")?,
            });
        }
        if let (Some(file), true) = (&site.client_ca, certificates.is_empty()) {
            return Err(
                file.wrong("client_ca: clients show certificates over TLS only (add `tls`)")
            );
        }
        let client_ca = match &site.client_ca {
            Some(file) => Some(ClientCa {
                issuers: self.pem("client_ca", file, "CERTIFICATE")?,
                is_required: *site.client_certificate == ClientCertificate::Required,
            }),
            None => None,
        };
        let tls = Tls {
            is_automatic,
            certificates,
            client_ca,
        };
        Ok((!tls.certificates.is_empty()).then_some(tls))
    }

    /// The text of a file in PEM, read with the rights of the master. No message quotes it.
    pub(super) fn pem(
        &self,
        name: &str,
        written: &Value<PathBuf>,
        label: &str,
    ) -> Result<Pem, Place> {
        let path = normal(&self.folder.join(written.as_path()));
        let shown = path.display().to_string();
        let wrong = |why: &str| written.wrong(format!("{name}: {shown}: {why}"));
        let text = self
            .host
            .data(&path, None, MAX_FILE)
            .map_err(|why| wrong(&why))?;
        match text.contains(&format!("{label}-----")) {
            true => Ok(Pem { path: shown, text }),
            false => Err(wrong(&format!(
                "there is no {label} in it (write the path of a file in PEM)"
            ))),
        }
    }
}
