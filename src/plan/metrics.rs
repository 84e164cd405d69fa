//! `[master] metrics`: where counters and health are told, and by whom.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sockets::{self, both};
use super::{Credentials, Host, Listener, Plan, identity, lossless};
use crate::config::{Address, Config, Place, Sources};

/// The user of the process if the master is root: the one that owns nothing, by its number in every system (`nobody`).
const NOBODY: u32 = 65_534;
/// Few clients ask, and one after the other.
const BACKLOG: u32 = 64;

/// The process that answers `/metrics`, `/healthz` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Its program.
    #[serde(with = "lossless")]
    pub program: PathBuf,
    /// Its listeners.
    pub listeners: Vec<Address>,
    /// Its user; that of the master if `None`.
    pub user: Option<Credentials>,
}

/// Adds the listeners of the process to those of the plan, which has those of all apps and sites.
///
/// # Errors
/// The first error, with its position.
pub(super) fn metrics(
    config: &Config,
    sources: &Sources,
    host: &dyn Host,
    plan: &mut Plan,
) -> Result<Option<Metrics>, Place> {
    let mut own = Vec::new();
    for entry in &*config.master.metrics {
        let (place, written) = (entry.span(), &entry.get_ref().0);
        let wrong = |message: String| {
            let message = message
                .strip_prefix("listen: ")
                .unwrap_or(&message)
                .to_owned();
            Place::at(place.clone(), format!("metrics: {message}"))
        };
        if let Some(name) = &written.name {
            return Err(name.wrong("metrics: `name` is for the listeners of an app (remove it)"));
        }
        let folder = sources.folder(place.start);
        let address = sockets::address(folder, written).map_err(wrong)?;
        if let Address::Unix(path) = &address {
            sockets::check_folder(host, path).map_err(wrong)?;
        }
        let mut others = plan.listeners.iter();
        if let Some(other) = others.find(|other| other.address.excludes(&address)) {
            return Err(wrong(both(&address, &other.address)));
        }
        let owner = written.owner.as_ref().map(|name| {
            let user = host.user(&name.0);
            let missing = || name.wrong(identity::no_user("metrics.owner", &name.0));
            user.map(|user| user.uid).ok_or_else(missing)
        });
        let group = written.group.as_ref();
        let group = group.map(|group| identity::group("metrics.group", group, host));
        plan.listeners.push(Listener {
            address: address.clone(),
            backlog: BACKLOG,
            v6only: false,
            is_lent: false,
            mode: written.mode.as_ref().map(|mode| mode.0),
            owner: owner.transpose()?,
            group: group.transpose()?,
            required: true,
            stays_open: true,
        });
        own.push(address);
    }
    let Some(first) = config.master.metrics.first() else {
        return Ok(None);
    };
    let place = first.span();
    let wrong = |message: String| Place::at(place.clone(), format!("metrics: {message}"));
    let program = host.front().map_err(wrong)?;
    let user = (host.own_ids().0 == 0).then(|| Credentials {
        uid: NOBODY,
        gid: NOBODY,
        groups: Vec::new(),
    });
    if let Some(folder) = host
        .closed_to(&program, user.as_ref())
        .filter(|_| user.is_some())
    {
        return Err(wrong(format!(
            "user {NOBODY} (nobody), as whom the process runs, may not enter {} on the way to {} (chmod o+x it)",
            folder.display(),
            program.display()
        )));
    }
    Ok(Some(Metrics {
        program,
        listeners: own,
        user,
    }))
}
