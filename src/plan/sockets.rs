//! `listen`: which sockets there are and who gets them.

use super::{Draft, Listener, normal};
use crate::config::{Address, Listen, Place};

impl Draft<'_> {
    /// Enters the app's listeners into `all` and says which the workers get.
    pub(super) fn sockets(&self, all: &mut Vec<Listener>) -> Result<Vec<(String, Address)>, Place> {
        let mut sockets: Vec<(String, Address)> = Vec::new();
        for entry in &self.written.listen {
            let listener = self
                .listener(entry.get_ref())
                .map_err(|m| Place::at(entry.span(), m))?;
            if all.iter().any(|other| other.address == listener.address) {
                let message = format!("{} is listened on twice", listener.address);
                return Err(Place::at(entry.span(), message));
            }
            let name = entry.get_ref().name.as_deref().unwrap_or(self.name);
            if name.is_empty() || name.contains(|c: char| c == ':' || !c.is_ascii_graphic()) {
                let message =
                    format!("\"{name}\" is no name for a listener (no spaces, no colons)");
                return Err(Place::at(entry.span(), message));
            }
            sockets.push((name.to_owned(), listener.address.clone()));
            all.push(listener);
        }
        Ok(sockets)
    }

    fn listener(&self, written: &Listen) -> Result<Listener, String> {
        let address = match &written.address {
            Address::Unix(path) => {
                let path = normal(&self.folder.join(path));
                // sockaddr_un(7): 108 bytes with the final NUL.
                if path.as_os_str().len() > 107 {
                    return Err(format!(
                        "unix:{} is too long for a socket (107 bytes at most)",
                        path.display()
                    ));
                }
                if !path
                    .parent()
                    .is_some_and(|parent| self.host.is_folder(parent))
                {
                    return Err(format!(
                        "unix:{}: its folder does not exist",
                        path.display()
                    ));
                }
                Address::Unix(path)
            }
            other => {
                if written.mode.is_some() || written.owner.is_some() || written.group.is_some() {
                    return Err(format!(
                        "{other}: mode, owner and group are for unix sockets only"
                    ));
                }
                other.clone()
            }
        };
        let owner = match &written.owner {
            None => None,
            Some(name) => {
                let user = self.host.user(name);
                Some(
                    user.ok_or_else(|| format!("there is no user \"{name}\" on this host"))?
                        .uid,
                )
            }
        };
        Ok(Listener {
            address,
            backlog: self.written.backlog.as_ref().map_or(2048, |b| *b.get_ref()),
            v6only: false,
            mode: written.mode.map(|m| m.0),
            owner,
            group: written
                .group
                .as_deref()
                .map(|g| self.group(g))
                .transpose()?,
        })
    }
}
