//! An entry of `listen`: an address, or a table with an address and how to bind it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{self, Serialize, Serializer};

use super::keys::Listen;
use super::short::Short;
use super::value::Typed;

mod hint;

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// A socket inherited from the init system under this name (`LISTEN_FDNAMES`).
    Inherited(String),
}

impl Address {
    /// Whether the kernel refuses to bind one while the other listens: the same address, or one that the other's wildcard includes.
    /// A wildcard of IPv6 leaves IPv4 to the listeners for it ([`crate::plan::Listener::v6only`]).
    pub fn excludes(&self, other: &Self) -> bool {
        let (Self::Tcp(one), Self::Tcp(two)) = (self, other) else {
            return self == other;
        };
        let has_wildcard = one.ip().is_unspecified() || two.ip().is_unspecified();
        let is_in_wildcard = has_wildcard && one.is_ipv4() == two.is_ipv4() && one.port() != 0;
        one == two || is_in_wildcard && one.port() == two.port()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(name) => write!(f, "fd:{name}"),
        }
    }
}

/// An entry of `listen`: an address, or a table with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry(pub Listen);

fn address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("\"unix:\" needs a path (write for example \"unix:/run/web.sock\")".into()),
            path if path.starts_with('@') => Err(format!(
                "\"{text}\" names an abstract socket, to which every user of this host can connect (write a path: \"unix:/run/{}\", or \"unix:./{path}\" for a file)",
                path.trim_start_matches('@')
            )),
            path => Ok(Address::Unix(path.into())),
        };
    }
    if let Some(name) = text.strip_prefix("fd:") {
        return match name {
            "" => Err(
                "\"fd:\" needs the name of an inherited socket (write for example \"fd:web\")"
                    .into(),
            ),
            name if name.contains(['/', ':']) => Err(format!(
                "\"{text}\" does not name an inherited socket (write \"fd:NAME\", with the name that the init system gives it: \
                 FileDescriptorName= of the .socket unit, by default the name of that unit)"
            )),
            name => Ok(Address::Inherited(name.into())),
        };
    }
    if let Ok(address) = text.parse() {
        return Ok(Address::Tcp(address));
    }
    let hint = hint::hint(text);
    Err(format!(
        "\"{text}\" is not an address to listen on ({hint})"
    ))
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        address(&text).map_err(D::Error::custom)
    }
}

impl Serialize for Address {
    /// Encodes it as in the configuration.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Self::Unix(path) = self
            && path.to_str().is_none()
        {
            let message = format!("the path {} is not valid UTF-8", path.display());
            return Err(ser::Error::custom(message));
        }
        serializer.collect_str(self)
    }
}

impl Typed for Address {
    fn description() -> String {
        "address".into()
    }
}

impl Typed for Entry {
    fn description() -> String {
        "listener".into()
    }
}

impl Short for Entry {
    const EXPECTED: &'static str = "an address, or a table with `address`";
    type Table = Listen;

    fn from_text(text: &str) -> Result<Self, String> {
        address(text).map(|address| Self(Listen::on(address)))
    }

    fn from_table(table: Listen) -> Self {
        Self(table)
    }

    fn about_number(number: i64) -> Option<String> {
        let hint = hint::hint(&number.to_string());
        Some(format!("{number} is not an address to listen on ({hint})"))
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}
