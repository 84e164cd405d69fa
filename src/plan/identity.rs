//! `user`, `group` and `groups`: the user that workers run as.

use super::{Credentials, Draft, Host};
use crate::config::{GroupName, Place, Value};

/// The variables that a login sets.
pub(super) type Login = Vec<(&'static str, String)>;

impl Draft<'_> {
    /// The user that the workers run as, and the variables that a login sets.
    pub(super) fn user(&self) -> Result<(Option<Credentials>, Login), Place> {
        let (found, login) = self.user_without_more_groups()?;
        let more = self.groups()?;
        if more.is_empty() {
            return Ok((found, login));
        }
        let own = self.host.own_ids();
        let mut found = found.unwrap_or(Credentials {
            uid: own.0,
            gid: own.1,
            groups: vec![own.1],
        });
        for gid in more {
            if !found.groups.contains(&gid) {
                found.groups.push(gid);
            }
        }
        Ok((Some(found), login))
    }

    /// `groups`.
    fn groups(&self) -> Result<Vec<u32>, Place> {
        let mut found = Vec::new();
        for name in self.written.groups.iter() {
            let place = name.span();
            if self.host.own_ids().0 != 0 {
                return Err(Place::at(
                    place,
                    "groups: only a master that runs as root can give workers further groups (start preforkd as root, or set SupplementaryGroups= of the unit and remove the key)",
                ));
            }
            match self.host.group(&name.get_ref().0) {
                Some(gid) => found.push(gid),
                None => self.lacks(Place::at(place, no_group("groups", &name.get_ref().0)), ())?,
            }
        }
        Ok(found)
    }

    fn user_without_more_groups(&self) -> Result<(Option<Credentials>, Login), Place> {
        let mut login = Login::new();
        let group = &self.written.group;
        let gid = group
            .as_ref()
            .map(|group| match self.group("group", group) {
                Ok(gid) => Ok(Some(gid)),
                Err(missing) => self.lacks(missing, None),
            })
            .transpose()?
            .flatten();
        let Some(user) = &self.written.user else {
            let (Some(group), Some(gid)) = (group, gid) else {
                return Ok((None, login));
            };
            let own = self.host.own_ids();
            if own.1 == gid && own.0 != 0 {
                return Ok((None, login));
            }
            if own.0 != 0 {
                return Err(group.wrong(not_root("group")));
            }
            let credentials = Credentials {
                uid: own.0,
                gid,
                groups: vec![gid],
            };
            return Ok((Some(credentials), login));
        };
        let Some(found) = self.host.user(&user.0) else {
            let missing = user.wrong(no_user("user", &user.0));
            return self.lacks(missing, (None, login));
        };
        let own = self.host.own_ids();
        if own.0 != 0 && own.0 != found.uid {
            return Err(user.wrong(not_root("user")));
        }
        login.extend([
            ("USER", found.name.clone()),
            ("LOGNAME", found.name.clone()),
            ("HOME", found.home.clone()),
        ]);
        if own.0 == found.uid && own.0 != 0 && gid.is_none_or(|gid| gid == own.1) {
            // It is already this user, and an unprivileged master could not set the groups.
            return Ok((None, login));
        }
        let credentials = Credentials {
            uid: found.uid,
            gid: gid.unwrap_or(found.gid),
            groups: found.groups,
        };
        Ok((Some(credentials), login))
    }

    pub(super) fn group(&self, key: &str, name: &Value<GroupName>) -> Result<u32, Place> {
        group(key, name, self.host)
    }
}

/// The id of a group.
pub(super) fn group(key: &str, name: &Value<GroupName>, host: &dyn Host) -> Result<u32, Place> {
    let group = host.group(&name.0);
    group.ok_or_else(|| name.wrong(no_group(key, &name.0)))
}

fn no_group(key: &str, name: &str) -> String {
    format!("{key}: there is no group \"{name}\" on this host (create it first)")
}

pub(super) fn no_user(key: &str, name: &str) -> String {
    format!("{key}: there is no user \"{name}\" on this host (create it first)")
}

fn not_root(key: &str) -> String {
    format!(
        "{key}: only a master that runs as root can run workers as another user or group (start preforkd as root, or remove the key)"
    )
}
