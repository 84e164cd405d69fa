//! The types of values, and their names in the manual.

use preforkd_worker::front::Protocol;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use nix::sys::signal::Signal;
use preforkd_worker::proxy::Proxy;
use toml::Spanned;

use super::{Range, units};

/// The maximum number of workers of one app: more than a machine runs, few enough to catch a typing error.
pub const MAX_WORKERS: u32 = 10_000;

/// The maximum of a number without a limit of its own.
pub(super) const NO_LIMIT: u32 = u32::MAX;

/// A type of value.
pub trait Typed {
    /// Its name in the manual.
    fn description() -> String;
}

/// A number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const LEAST: u32, const MOST: u32>(pub u32);

/// The name or number of a user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct UserName(pub String);

/// The name or number of a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct GroupName(pub String);

/// Where the access log goes: a path, "-" or the address of a syslog server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AccessLog(pub PathBuf);

/// What happens when an app is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Running workers are kept.
    Degrade,
    /// The master stops.
    Exit,
}

/// The number of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workers {
    /// This number.
    Number(u32),
    /// The number of CPUs that the master may use.
    Auto,
    /// A number that follows the load.
    Range(Range),
}

/// A number of workers that does not follow the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedWorkers(pub Workers);

/// Permission bits, as "0660".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

/// When a worker counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// When it sends `READY=1`.
    Notify,
    /// When its program has been executed.
    Exec,
    /// This time after that.
    After(Duration),
}

/// When a worker that has ended of itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whatever its exit status.
    Always,
    /// Unless its exit status is 0.
    OnFailure,
    /// Never.
    Never,
}

/// Which comes first when a worker takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replace {
    /// The new one is ready before the old one ends.
    StartFirst,
    /// The old one has ended before the new one starts.
    StopFirst,
}

/// What the standard input of a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdin {
    /// /dev/null.
    Null,
    /// Its first listener.
    Listener,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// A client without one is turned away.
    Required,
    /// The application decides.
    Optional,
}

/// The signal that tells a worker to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum StopSignal {
    /// SIGTERM.
    Term,
    /// SIGQUIT: nginx, php-fpm.
    Quit,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH: httpd.
    Winch,
}

impl StopSignal {
    /// All, with their names.
    const ALL: [(&'static str, Self); 7] = [
        ("TERM", Self::Term),
        ("QUIT", Self::Quit),
        ("INT", Self::Int),
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
        ("WINCH", Self::Winch),
    ];
}

impl TryFrom<String> for StopSignal {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text.parse::<i32>().ok().map(Signal::try_from);
        let name = match number {
            Some(Ok(signal)) => signal.as_str().to_owned(),
            _ => text.to_ascii_uppercase(),
        };
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let known = Self::ALL.map(|(known, _)| known).join(", ");
        found.map(|(_, signal)| *signal).ok_or_else(|| {
            format!("\"{text}\" is no signal that can tell a worker to end (write one of {known})")
        })
    }
}

impl From<StopSignal> for &'static str {
    fn from(signal: StopSignal) -> Self {
        let mut all = StopSignal::ALL.iter();
        all.find(|(_, other)| *other == signal)
            .map_or("TERM", |(name, _)| name)
    }
}

struct WorkersVisitor;

impl<'de> Visitor<'de> for WorkersVisitor {
    type Value = Workers;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number of workers, \"auto\" or { min = …, max = … }")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Workers, E> {
        Number::<1, MAX_WORKERS>::read(number).map(|number| Workers::Number(number.0))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Workers, E> {
        Err(not_whole(number))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Workers, A::Error> {
        let range = Range::deserialize(MapAccessDeserializer::new(map))?;
        let (min, max) = (range.min.0, range.max.0);
        if min > max {
            return Err(A::Error::custom(format!(
                "`min` must not be greater than `max`, but min is {min} and max is {max}"
            )));
        }
        Ok(Workers::Range(range))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Workers, E> {
        match text {
            "auto" => Ok(Workers::Auto),
            number if is_number(number) => {
                Number::<1, MAX_WORKERS>::read_text(number).map(|number| Workers::Number(number.0))
            }
            _ => Err(E::custom(format!(
                "must be a number, \"auto\" or {{ min = …, max = … }}, not \"{text}\""
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WorkersVisitor)
    }
}

impl<'de> Deserialize<'de> for FixedWorkers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Workers::deserialize(deserializer)? {
            Workers::Range(_) => Err(D::Error::custom(
                "must be a number or \"auto\": this number does not follow the load",
            )),
            fixed => Ok(Self(fixed)),
        }
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(D::Error::custom(format!(
                "\"{text}\" is not a mode (write octal digits up to \"0777\", for example \"0660\")"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Ready {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "notify" => Ok(Self::Notify),
            "exec" => Ok(Self::Exec),
            other => units::time(other).map(Self::After).map_err(|_| {
                D::Error::custom(format!(
                    "must be \"notify\", \"exec\" or a time such as \"2s\", not \"{other}\""
                ))
            }),
        }
    }
}

fn not_whole<E: Error>(number: f64) -> E {
    E::custom(match number.fract() == 0.0 {
        true => format!("must be a whole number, not {number:?} (write {number})"),
        false => format!("must be a whole number, not {number:?}"),
    })
}

/// Whether a string is as good as a number: a reference to a variable can stand in strings only.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl<const LEAST: u32, const MOST: u32> Number<LEAST, MOST> {
    /// Reads a string of digits.
    fn read_text<E: Error>(digits: &str) -> Result<Self, E> {
        Self::read(digits.parse().unwrap_or(i64::MAX))
    }

    /// Checks the bounds.
    pub(super) fn read<E: Error>(number: i64) -> Result<Self, E> {
        let found = u32::try_from(number).ok();
        let found = found.filter(|found| (LEAST..=MOST).contains(found));
        found.map(Self).ok_or_else(|| {
            E::custom(match MOST {
                NO_LIMIT => format!("must be at least {LEAST}, not {number}"),
                _ => format!("must be between {LEAST} and {MOST}, not {number}"),
            })
        })
    }
}

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Number<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfNumber<const LEAST: u32, const MOST: u32>;
        impl<const LEAST: u32, const MOST: u32> Visitor<'_> for OfNumber<LEAST, MOST> {
            type Value = Number<LEAST, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a {}", Number::<LEAST, MOST>::description())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Number::read(number)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                Err(not_whole(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                match is_number(text) {
                    true => Number::read_text(text),
                    false => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(OfNumber)
    }
}

impl<const LEAST: u32, const MOST: u32> Typed for Number<LEAST, MOST> {
    fn description() -> String {
        match MOST {
            NO_LIMIT => format!("number from {LEAST}"),
            _ => format!("number from {LEAST} to {MOST}"),
        }
    }
}

macro_rules! typed {
    ($($type:ty: $text:literal),+ $(,)?) => {
        $(impl Typed for $type {
            fn description() -> String {
                $text.into()
            }
        })+
    };
}

typed! {
    String: "string",
    bool: "boolean",
    PathBuf: "path",
    Proxy: "network",
    AccessLog: "path, \"-\" or \"syslog:ADDRESS\"",
    UserName: "user",
    GroupName: "group",
    Mode: "mode",
    Ready: "\"notify\", \"exec\" or time",
    Restart: "\"always\", \"on-failure\" or \"never\"",
    Protocol: "\"http\", \"h2c\", \"fastcgi\", \"scgi\" or \"uwsgi\"",
    Replace: "\"start-first\" or \"stop-first\"",
    Stdin: "\"null\" or \"listener\"",
    ClientCertificate: "\"required\" or \"optional\"",
    StopSignal: "signal",
    Then: "\"degrade\" or \"exit\"",
}

impl Typed for Workers {
    fn description() -> String {
        format!(
            "{}, \"auto\" or table",
            Number::<1, MAX_WORKERS>::description()
        )
    }
}

impl Typed for FixedWorkers {
    fn description() -> String {
        format!("{} or \"auto\"", Number::<1, MAX_WORKERS>::description())
    }
}

impl<T: Typed> Typed for Spanned<T> {
    fn description() -> String {
        T::description()
    }
}

impl<T: Typed> Typed for Vec<T> {
    fn description() -> String {
        format!("list of {}s", T::description())
    }
}

impl<K, T: Typed> Typed for BTreeMap<K, T> {
    fn description() -> String {
        format!("table of {}s", T::description())
    }
}
