//! `tls = "auto"`: certificates that an authority issues (RFC 8555), and what is known of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use preforkd_worker::acme::{ExternalAccount, Kind};
use preforkd_worker::front::{Certificate, Pem};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::certificates::MAX_FILE;
use super::{Credentials, Draft, Host, lossless};
use crate::config::{self, Address, Config, Place, Site, Sources};

/// The folder of a service where the init system names none.
const FOLDER: &str = "/var/lib/preforkd";

/// The folder below that of the service.
pub const BELOW: &str = "acme";

/// How certificates are ordered, kept and renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acme {
    /// The program that orders them: `preforkd-front`.
    #[serde(with = "lossless")]
    pub program: PathBuf,
    /// The user that it runs as; that of the master if `None`.
    pub user: Option<Credentials>,
    /// The folder of the service.
    #[serde(with = "lossless")]
    pub state: PathBuf,
    /// The URL of the directory of the authority.
    pub directory: String,
    /// Who has issued the certificate of that server, in PEM.
    pub ca: Option<String>,
    /// The address for messages to the operator.
    pub email: Option<String>,
    /// The external account to which the account is bound.
    pub eab: Option<ExternalAccount>,
    /// The kinds of challenges, what is preferred first.
    pub kinds: Vec<Kind>,
    /// The hosts of the sites that want one, by the names of the sites.
    pub sites: BTreeMap<String, Vec<String>>,
}

/// The name of the file with the key, the certificate and its chain of a site.
pub fn file_of(site: &str) -> String {
    format!("site-{site}.pem")
}

/// The folder for what outlasts a restart.
pub(super) fn state(config: &Config, sources: &Sources, host: &dyn Host) -> PathBuf {
    let written = config.master.state.as_ref().map(|path| path.as_path());
    let of_init = || {
        let all = host.variable("STATE_DIRECTORY")?;
        let first = all.split(':').next().filter(|first| !first.is_empty());
        first.map(PathBuf::from)
    };
    let place = written.map(Path::to_owned).or_else(of_init);
    let place = place.unwrap_or_else(|| FOLDER.into());
    sources.folder(0).join(place)
}

impl Acme {
    /// As `[front]` says, for no site yet.
    pub(super) fn new(
        config: &Config,
        draft: &Draft<'_>,
        state: PathBuf,
        program: &Path,
        user: Option<&Credentials>,
    ) -> Result<Self, Place> {
        let written: &config::Acme = &config.front.acme;
        let directory = &written.directory;
        if !directory.starts_with("https://") {
            return Err(directory.wrong(format!(
                "acme.directory: \"{}\" is not the URL of a directory (it begins with https://)",
                directory.as_str()
            )));
        }
        if let Some(email) = &written.email
            && !is_email(email)
        {
            return Err(email.wrong(format!(
                "acme.email: \"{}\" is no address (write for example \"admin@example.com\")",
                email.as_str()
            )));
        }
        let ca = written.ca.as_ref();
        let ca = ca.map(|file| Ok(draft.pem("acme.ca", file, "CERTIFICATE")?.text));
        let eab = written.eab.as_ref();
        let eab = eab.map(|keys| external_account(draft, keys, user));
        let kinds = match &written.challenges {
            Some(written) if written.is_empty() => {
                return Err(written.wrong("acme.challenges: is empty (remove it for both kinds)"));
            }
            Some(written) => written.iter().map(|challenge| challenge.0).collect(),
            None => vec![Kind::Http, Kind::TlsAlpn],
        };
        Ok(Self {
            program: program.to_owned(),
            user: user.cloned(),
            state,
            directory: directory.as_str().to_owned(),
            ca: ca.transpose()?,
            email: written
                .email
                .as_ref()
                .map(|email| email.as_str().to_owned()),
            eab: eab.transpose()?,
            kinds,
            sites: BTreeMap::new(),
        })
    }

    /// The path of the file with the certificate of a site.
    pub fn path_of(&self, site: &str) -> PathBuf {
        self.state.join(BELOW).join(file_of(site))
    }

    /// A site wants one, for these hosts. Returns what is shown: the one that is kept, or one that stands for itself until one was issued.
    pub(super) fn add(
        &mut self,
        draft: &Draft<'_>,
        site: &Site,
        hosts: &[String],
        warnings: &mut Vec<String>,
    ) -> Result<Certificate, Place> {
        check(site, hosts)?;
        let path = self.path_of(draft.name);
        self.sites.insert(draft.name.to_owned(), hosts.to_vec());
        let kept = match draft.host.is_file(&path) {
            true => self.kept(draft.host, &path),
            false => Ok(None),
        };
        let kept = kept.unwrap_or_else(|why| {
            warnings.push(format!(
                "cannot use the certificate of [site.{}] that was issued: {}: {why}; another one is ordered",
                draft.name,
                path.display()
            ));
            None
        });
        let text = match kept {
            Some(text) => text,
            None => draft
                .host
                .self_signed(&self.program, hosts)
                .map_err(|why| site.tls.wrong(format!("tls: {why}")))?,
        };
        let pem = Pem {
            path: path.display().to_string(),
            text,
        };
        Ok(Certificate {
            chain: pem.clone(),
            key: pem,
        })
    }

    /// The one that is kept; none if it is not to be read by who checks the configuration without the rights of the master.
    fn kept(&self, host: &dyn Host, path: &Path) -> Result<Option<String>, String> {
        let text = host.data(path, None, MAX_FILE)?;
        host.look(&self.program, &text)?;
        Ok(Some(text))
    }

    /// Prefers what the listeners of the sites are for: a request comes to port 80 only.
    pub(super) fn prefer<'a>(&mut self, plain: impl Iterator<Item = &'a Address>) {
        let is_usual = |address: &Address| matches!(address, Address::Tcp(at) if at.port() == 80);
        if !plain.into_iter().any(is_usual) {
            self.kinds.sort_by_key(|kind| *kind == Kind::Http);
        }
    }
}

/// Whether an authority can issue one for these hosts.
fn check(site: &Site, hosts: &[String]) -> Result<(), Place> {
    if hosts.is_empty() {
        return Err(site
            .tls
            .wrong("tls: \"auto\" needs the names that the certificate is for (add `hosts`)"));
    }
    for (host, written) in hosts.iter().zip(&*site.hosts) {
        let wrong = |why: &str| {
            let message = format!("hosts: {why} (or name files in `tls`)");
            Err(Place::at(Spanned::span(written), message))
        };
        if host.starts_with("*.") {
            return wrong(&format!(
                "\"{host}\" cannot stand in a site with tls = \"auto\": an authority wants a record in DNS for it (write the names instead)"
            ));
        }
        if host.parse::<IpAddr>().is_ok() {
            return wrong(&format!(
                "\"{host}\" cannot stand in a site with tls = \"auto\": certificates are ordered for names only (write a name)"
            ));
        }
    }
    Ok(())
}

/// The external account of these keys. The process that speaks with the authority runs as `user`.
fn external_account(
    draft: &Draft<'_>,
    keys: &config::Eab,
    user: Option<&Credentials>,
) -> Result<ExternalAccount, Place> {
    let key_id = keys.key_id.as_str();
    if key_id.is_empty() || key_id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(keys.key_id.wrong(
            "acme.eab.key_id: must be the name of the account, without spaces (copy it from the authority)",
        ));
    }
    let wrong = |why: String| keys.hmac_key.wrong(format!("acme.eab.hmac_key: {why}"));
    let text = draft
        .named_secret(keys.hmac_key.as_str(), user)
        .map_err(wrong)?;
    let hmac_key = text.trim().trim_end_matches('=');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if hmac_key.is_empty() || !hmac_key.chars().all(is_plain) || hmac_key.len() % 4 == 1 {
        return Err(wrong(
            "what is there is no key in the base64 of URLs (copy it from the authority as it is)"
                .into(),
        ));
    }
    Ok(ExternalAccount {
        key_id: key_id.to_owned(),
        hmac_key: hmac_key.to_owned(),
    })
}

fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"?&,;<>".contains(c);
    text.chars().all(is_plain)
        && parts.is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
}
