//! `tls`: the certificates and keys of a site. They go to the front, and to no process that runs code of an application.

use std::path::{Path, PathBuf};

use preforkd_worker::front::{Certificate, Pem, Tls};

use super::{Draft, Host, normal};
use crate::config::{Config, Place, Site, Value};

/// The largest file with a certificate or key, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Has the front check whether the certificates in its settings can be used. What it can serve all the same is added to `warnings`.
///
/// # Errors
/// What is wrong with one, at its site.
pub(super) fn check(
    config: &Config,
    settings: &str,
    program: &Path,
    host: &dyn Host,
    warnings: &mut Vec<String>,
) -> Result<(), Place> {
    if config.site.values().all(|site| site.tls.is_empty()) {
        return Ok(());
    }
    let flaws = host.certificate_flaws(program, settings);
    for line in flaws.map_err(Place::whole)?.lines() {
        let mut parts = line.splitn(3, '\t');
        let (Some(kind), Some(name), Some(why)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if kind == "warning" {
            warnings.push(why.to_owned());
            continue;
        }
        let mut sites = config.site.iter();
        let site = sites.find(|(known, _)| known.get_ref() == name);
        return Err(Place {
            span: site.and_then(|(_, site)| site.tls.place()),
            message: format!("tls: {why}"),
        });
    }
    Ok(())
}

impl Draft<'_> {
    /// What the files hold; `None` for a site without TLS. The front says whether they fit each other.
    pub(super) fn tls(&self, site: &Site) -> Result<Option<Tls>, Place> {
        let mut certificates = Vec::new();
        for written in &*site.tls {
            let written = written.get_ref();
            certificates.push(Certificate {
                chain: self.pem("cert", &written.cert, "CERTIFICATE")?,
                key: self.pem("key", &written.key, "PRIVATE KEY")?,
            });
        }
        let client_ca = None;
        let tls = Tls {
            certificates,
            client_ca,
        };
        Ok((!tls.certificates.is_empty()).then_some(tls))
    }

    /// The text of a file in PEM, read with the rights of the master. No message quotes it.
    fn pem(&self, name: &str, written: &Value<PathBuf>, label: &str) -> Result<Pem, Place> {
        let path = normal(&self.folder.join(written.as_path()));
        let shown = path.display().to_string();
        let wrong = |why: &str| written.wrong(format!("tls.{name}: {shown}: {why}"));
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
