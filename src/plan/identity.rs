//! `user` and `group`: who the workers run as.

use std::collections::BTreeMap;

use super::{Credentials, Draft};
use crate::config::{Key, Place};

impl Draft<'_> {
    /// Who the workers run as; fills in what a login would set in their environment.
    pub(super) fn user(
        &self,
        env: &mut BTreeMap<String, String>,
    ) -> Result<Option<Credentials>, Place> {
        let group = match &self.written.group {
            None => None,
            Some(group) => Some(
                self.group(group.get_ref())
                    .map_err(|m| Place::at(group.span(), m))?,
            ),
        };
        let Some(user) = &self.written.user else {
            let Some(gid) = group else { return Ok(None) };
            let own = self.host.own_ids();
            if own.1 == gid && own.0 != 0 {
                return Ok(None);
            }
            if own.0 != 0 {
                return Err(self.not_root(&self.written.group));
            }
            return Ok(Some(Credentials {
                uid: own.0,
                gid,
                groups: vec![gid],
            }));
        };
        let found = self.host.user(user.get_ref()).ok_or_else(|| {
            Place::at(
                user.span(),
                format!("there is no user \"{}\" on this host", user.get_ref()),
            )
        })?;
        let own = self.host.own_ids();
        if own.0 != 0 && own.0 != found.uid {
            return Err(self.not_root(&self.written.user));
        }
        for (key, value) in [
            ("USER", &found.name),
            ("LOGNAME", &found.name),
            ("HOME", &found.home),
        ] {
            env.entry(key.into()).or_insert_with(|| value.clone());
        }
        if own.0 == found.uid && own.0 != 0 && group.is_none_or(|g| g == own.1) {
            // Already this user: an unprivileged master could not set the groups anyway.
            return Ok(None);
        }
        Ok(Some(Credentials {
            uid: found.uid,
            gid: group.unwrap_or(found.gid),
            groups: found.groups,
        }))
    }

    fn not_root(&self, key: &Key<String>) -> Place {
        let message = "only a master that runs as root can run workers as somebody else (start preforkd as root, or leave this out)";
        match key {
            Some(key) => Place::at(key.span(), message),
            None => self.wrong(message),
        }
    }

    pub(super) fn group(&self, name: &str) -> Result<u32, String> {
        let group = self.host.group(name);
        group.ok_or_else(|| format!("there is no group \"{name}\" on this host"))
    }
}
