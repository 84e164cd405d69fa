//! `listen`: the sockets, and the apps that get them.

use std::ops::Range;
use std::path::Path;

use preforkd_worker::env::FRONT_LISTENER;

use super::identity::no_user;
use super::{Draft, Host, Listener, normal};
use crate::config::{Address, Listen, Place, Workers};

/// Why an address cannot be bound beside another one that it [excludes](Address::excludes).
pub(super) fn both(address: &Address, other: &Address) -> String {
    match address == other {
        true => format!("listen: {address} is configured twice (remove one)"),
        false => format!("listen: {address} and {other} cannot both be bound (remove one)"),
    }
}

impl Draft<'_> {
    /// Adds the app's listeners to `all`, and returns those of its workers.
    pub(super) fn sockets(
        &self,
        all: &mut Vec<Listener>,
        has_address: bool,
        notices: &mut Vec<String>,
    ) -> Result<Vec<(String, Address)>, Place> {
        let mut sockets: Vec<(String, Address)> = Vec::new();
        let from_platform = self.port(notices)?;
        let from_platform = from_platform
            .iter()
            .map(|listen| (self.header.clone(), listen));
        let entries = self.written.listen.iter();
        let entries = entries.map(|entry| (entry.span(), &entry.get_ref().0));
        for (place, written) in entries.chain(from_platform) {
            let address = self
                .address(written)
                .map_err(|message| Place::at(place.clone(), message))?;
            if let Address::Unix(path) = &address {
                self.check_folder(path, place.clone())?;
            }
            if let Some(other) = all.iter().find(|other| other.address.excludes(&address)) {
                return Err(Place::at(place, both(&address, &other.address)));
            }
            let name = written
                .name
                .as_ref()
                .map_or(self.name, |name| name.as_str());
            if name.is_empty() || name.contains(|c: char| c == ':' || !c.is_ascii_graphic()) {
                let message = format!(
                    "listen: {name:?} is not a valid name for a listener (use visible ASCII characters without colons)"
                );
                return Err(Place::at(place, message));
            }
            if name == FRONT_LISTENER {
                let message = format!(
                    "listen: \"{name}\" is the name of the listener for requests of sites (choose another one)"
                );
                return Err(Place::at(place, message));
            }
            sockets.push((name.to_owned(), address.clone()));
            all.push(self.listener(written, address)?);
        }
        let is_lent = self.written.command.is_some();
        // A program may accept on the listeners only of which it was told, and one with an address of its own on that one.
        if self.reached.has(self.name) && !has_address && (!is_lent || sockets.is_empty()) {
            let backlog = self.written.backlog.0;
            let stays_open = self.stays_open();
            let listener = self
                .reached
                .listener(self.name, backlog, is_lent, stays_open)?;
            if all.iter().any(|other| other.address == listener.address) {
                return Err(self.wrong(format!(
                    "listen: {} is that of the listener for requests of sites (choose another one)",
                    listener.address
                )));
            }
            sockets.push((FRONT_LISTENER.to_owned(), listener.address.clone()));
            all.push(listener);
        }
        Ok(sockets)
    }

    pub(super) fn listener(&self, written: &Listen, address: Address) -> Result<Listener, Place> {
        let owner = match &written.owner {
            None => None,
            Some(name) => {
                let user = self.host.user(&name.0);
                match user {
                    Some(user) => Some(user.uid),
                    None => self.lacks(name.wrong(no_user("listen.owner", &name.0)), None)?,
                }
            }
        };
        let group = match &written.group {
            None => None,
            Some(name) => match self.group("listen.group", name) {
                Ok(group) => Some(group),
                Err(missing) => self.lacks(missing, None)?,
            },
        };
        Ok(Listener {
            address,
            backlog: self.written.backlog.0,
            v6only: false,
            is_lent: self.written.command.is_some(),
            mode: written.mode.as_ref().map(|mode| mode.0),
            owner,
            group,
            required: *self.written.required,
            stays_open: self.stays_open(),
        })
    }

    /// Whether its listeners are open also while it has no worker: then the load that they report may start one.
    fn stays_open(&self) -> bool {
        *self.written.required || matches!(*self.written.workers, Workers::Range(_))
    }

    /// The address, with an absolute path.
    pub(super) fn address(&self, written: &Listen) -> Result<Address, String> {
        address(self.folder, written)
    }

    /// Refuses a socket in a folder that does not exist.
    pub(super) fn check_folder(&self, path: &Path, place: Range<usize>) -> Result<(), Place> {
        check_folder(self.host, path).or_else(|why| self.may_come(Place::at(place, why)))
    }
}

/// The address, with an absolute path. A relative one starts at `folder`.
pub(super) fn address(folder: &Path, written: &Listen) -> Result<Address, String> {
    let address: &Address = &written.address;
    let Address::Unix(path) = address else {
        if written.mode.is_some() || written.owner.is_some() || written.group.is_some() {
            return Err(format!(
                "listen: {address}: `mode`, `owner` and `group` are for unix sockets only (remove them)"
            ));
        }
        return Ok(address.clone());
    };
    let path = normal(&folder.join(path));
    let shown = path.display();
    // sockaddr_un(7): 108 bytes with the final NUL.
    if path.as_os_str().len() > 107 {
        return Err(format!(
            "listen: unix:{shown} is too long (the path of a socket has at most 107 bytes)"
        ));
    }
    Ok(Address::Unix(path))
}

/// Refuses a socket in a folder that does not exist.
pub(super) fn check_folder(host: &dyn Host, path: &Path) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    match host.is_folder(folder) {
        true => Ok(()),
        false => Err(format!(
            "listen: unix:{}: there is no folder {} (create it first)",
            path.display(),
            folder.display()
        )),
    }
}
