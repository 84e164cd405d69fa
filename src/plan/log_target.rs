//! Where the lines of a log go: a file, the standard output of preforkd, or syslog.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lossless;

/// What a log writer writes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogTarget {
    /// A file.
    File(#[serde(with = "lossless")] PathBuf),
    /// The standard output of the master.
    Stdout,
    /// A syslog server.
    Syslog(Syslog),
}

/// A syslog server, and how lines are marked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Syslog {
    /// Its socket.
    pub socket: SyslogSocket,
    /// The name of the facility.
    pub facility: String,
    /// The tag, which names the program.
    pub tag: String,
}

/// The socket of a syslog server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SyslogSocket {
    /// A Unix datagram socket.
    Unix(String),
    /// UDP, to a host (a name, or an address without brackets) and port.
    Udp(String, u16),
}

/// The prefix of the address of a syslog server.
const PREFIX: &str = "syslog:";
/// The socket on this host.
pub const LOCAL: &str = "/dev/log";
/// The port that RFC 5426 section 3.3 assigns.
const PORT: u16 = 514;
/// The maximum length of a tag: RFC 3164 section 4.1.3.
const MAX_TAG: usize = 32;

/// The facilities by their numbers: RFC 5424 section 6.2.1, with the names of syslog.conf(5). Those without a name there are
/// not for programs.
const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl LogTarget {
    /// Parses what [`fmt::Display`] writes. A path is absolute.
    ///
    /// # Errors
    /// What is wrong with the address of a syslog server.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        match text.to_str() {
            Some("-") => Ok(Self::Stdout),
            Some(text) if text.starts_with(PREFIX) => Syslog::parse(text).map(Self::Syslog),
            _ => Ok(Self::File(text.into())),
        }
    }

    /// The argument for the log writer.
    pub fn argument(&self) -> OsString {
        match self {
            Self::File(path) => path.clone().into_os_string(),
            Self::Stdout => "-".into(),
            Self::Syslog(syslog) => syslog.to_string().into(),
        }
    }

    /// Whether to open it may need a name service.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Syslog(syslog) if matches!(syslog.socket, SyslogSocket::Udp(..)))
    }

    /// Whether it may be opened later, though that has failed now: a syslog server that is not there yet.
    pub fn may_come(&self, error: &io::Error) -> bool {
        let is_absent = matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused
        );
        self.is_remote() || matches!(self, Self::Syslog(_)) && is_absent
    }

    /// What to do if it cannot be opened.
    pub fn hint(&self, error: &io::Error) -> &'static str {
        match (self, error.kind()) {
            (Self::Syslog(_), _) if self.is_remote() => "",
            (Self::Syslog(_), _) if self.may_come(error) => " (no syslog server listens there)",
            (Self::Syslog(_), ErrorKind::PermissionDenied) => {
                " (the user of the master, or in a folder that others can change its owner, needs permission to write to the socket)"
            }
            (_, ErrorKind::PermissionDenied) => {
                " (the user of the master, or in a folder that others can change its owner, needs permission to write to the folder and the file)"
            }
            (Self::File(_), ErrorKind::NotFound) => " (create the folder first)",
            _ => "",
        }
    }

    /// Whether the text, as written in the configuration, is more than a path.
    pub fn is_special(text: &OsStr) -> bool {
        text == "-" || text.as_bytes().starts_with(PREFIX.as_bytes())
    }
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the log file {}", path.display()),
            Self::Stdout => f.write_str("the access log on standard output"),
            Self::Syslog(syslog) => write!(f, "the log {syslog}"),
        }
    }
}

impl Syslog {
    fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(PREFIX).unwrap_or(text);
        let mut parts = rest.split(',');
        let mut syslog = Self {
            socket: SyslogSocket::parse(parts.next().unwrap_or_default())?,
            facility: "local7".into(),
            tag: "preforkd".into(),
        };
        for option in parts {
            match option.split_once('=') {
                Some(("facility", name)) if FACILITIES.iter().any(|known| known.0 == name) => {
                    syslog.facility = name.into();
                }
                Some(("facility", name)) => {
                    return Err(format!(
                        "{name:?} is not a facility (write for example facility=local7)"
                    ));
                }
                Some(("tag", tag)) if is_tag(tag) => syslog.tag = tag.into(),
                Some(("tag", tag)) => {
                    return Err(format!(
                        "{tag:?} cannot be a tag (write up to {MAX_TAG} ASCII letters, digits, \"_\", \"-\" or \".\")"
                    ));
                }
                _ => {
                    return Err(format!(
                        "{option:?} is not an option of syslog (write facility=NAME or tag=NAME)"
                    ));
                }
            }
        }
        Ok(syslog)
    }

    /// The value in front of each line: RFC 5424 section 6.2.1, with the severity "informational".
    pub fn priority(&self) -> u8 {
        let known = FACILITIES.iter().filter(|known| known.0 == self.facility);
        known.map(|known| known.1).sum::<u8>() * 8 + 6
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            socket,
            facility,
            tag,
        } = self;
        write!(f, "{PREFIX}{socket},facility={facility},tag={tag}")
    }
}

fn is_tag(tag: &str) -> bool {
    (1..=MAX_TAG).contains(&tag.len())
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

impl SyslogSocket {
    fn parse(address: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{address:?} is not the address of a syslog server (write \"{PREFIX}\" for {LOCAL}, \"{PREFIX}/PATH\", \"{PREFIX}HOST\" or \"{PREFIX}HOST:PORT\")"
            )
        };
        if address.is_empty() {
            return Ok(Self::Unix(LOCAL.into()));
        }
        if address.starts_with('/') {
            return Ok(Self::Unix(address.into()));
        }
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                let host = host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                (host.to_string(), port)
            }
            None => {
                let at = address.find(':').unwrap_or(address.len());
                (address[..at].to_owned(), &address[at..])
            }
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if port.is_empty() => PORT,
            None => return Err(wrong()),
        };
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        match port != 0 && !host.is_empty() && host.bytes().all(is_part) {
            true => Ok(Self::Udp(host, port)),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for SyslogSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => f.write_str(path),
            Self::Udp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Udp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_of_a_writer_says_what_the_configuration_said() {
        for (text, said) in [
            ("-", "-"),
            ("/var/log/a.log", "/var/log/a.log"),
            ("syslog:", "syslog:/dev/log,facility=local7,tag=preforkd"),
            (
                "syslog:/run/log,tag=shop-1",
                "syslog:/run/log,facility=local7,tag=shop-1",
            ),
            (
                "syslog:log.example,facility=user",
                "syslog:log.example:514,facility=user,tag=preforkd",
            ),
            (
                "syslog:[::1]:1514",
                "syslog:[::1]:1514,facility=local7,tag=preforkd",
            ),
        ] {
            let target = LogTarget::parse(text.as_ref()).expect(text);
            assert_eq!(target.argument(), said);
            assert_eq!(LogTarget::parse(&target.argument()), Ok(target));
        }
    }

    #[test]
    fn what_is_wrong_with_the_address_of_a_syslog_server() {
        for (text, said) in [
            ("syslog:a:b", "\"a:b\" is not the address"),
            ("syslog:::1", "\"::1\" is not the address"),
            ("syslog::514", "\":514\" is not the address"),
            ("syslog:a:0", "\"a:0\" is not the address"),
            ("syslog:a:70000", "\"a:70000\" is not the address"),
            ("syslog:[a]:5", "\"[a]:5\" is not the address"),
            ("syslog:a b", "\"a b\" is not the address"),
            (
                "syslog:,facility=loud",
                "\"loud\" is not a facility (write for example",
            ),
            ("syslog:,tag=", "\"\" cannot be a tag"),
            ("syslog:,tag=a b", "\"a b\" cannot be a tag"),
            (
                "syslog:,severity=info",
                "\"severity=info\" is not an option",
            ),
        ] {
            let error = LogTarget::parse(text.as_ref()).expect_err(text);
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn the_priority_has_facility_and_severity() {
        for (text, priority) in [
            ("syslog:", 190),
            ("syslog:,facility=kern", 6),
            ("syslog:,facility=user", 14),
        ] {
            let Ok(LogTarget::Syslog(syslog)) = LogTarget::parse(text.as_ref()) else {
                panic!("{text}")
            };
            assert_eq!(syslog.priority(), priority);
        }
    }
}
