//! Values of the keys that say what workers may do, and how much of the machine they may use.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::units;
use super::value::Typed;

/// A whole number that may be negative, from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer<const LEAST: i32, const MOST: i32>(pub i32);

/// A soft and a hard limit; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What counts.
    pub soft: Option<u64>,
    /// What the process may raise it to.
    pub hard: Option<u64>,
}

/// A capability, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(pub u8);

/// CPUs, from the first number to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus(pub u16, pub u16);

/// The number of a TCP port; 0 is any that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Port(pub u16);

/// The highest number of a CPU, which is what a set of CPUs has room for: sched_setaffinity(2).
const MAX_CPU: u16 = 1023;

impl Capability {
    /// The names of all, by their numbers: capabilities(7).
    const NAMES: [&'static str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];

    /// CAP_SYS_NICE.
    pub const SYS_NICE: Self = Self(23);
    /// CAP_SYS_RESOURCE.
    pub const SYS_RESOURCE: Self = Self(24);

    /// Its bit in a set.
    pub fn bit(self) -> u64 {
        1 << self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let number = Self::NAMES.iter().position(|known| *known == name)?;
        u8::try_from(number).ok().map(Self)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.get(usize::from(self.0)).copied();
        write!(f, "CAP_{}", name.unwrap_or("?"))
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let known = Self::NAMES.map(|name| (name, strsim::jaro_winkler(name, &text.to_ascii_uppercase())));
            let nearest = known.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            let nearest = nearest.map_or("NET_BIND_SERVICE", |(name, _)| name);
            D::Error::custom(format!(
                "{text:?} is no capability (write a name of capabilities(7), such as \"CAP_{nearest}\")"
            ))
        })
    }
}

/// One of the two numbers of a limit.
fn amount(text: &str) -> Result<Option<u64>, String> {
    match text {
        "unlimited" => Ok(None),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let number = digits.parse().ok().filter(|number| *number < u64::MAX);
            number.map(Some).ok_or_else(|| {
                format!("{digits} is more than a limit can be (write \"unlimited\")")
            })
        }
        other => units::size(other).map(Some).map_err(|_| {
            format!(
                "\"{other}\" is no limit (write a number, a size such as \"512MiB\", \"unlimited\", or \"SOFT:HARD\")"
            )
        }),
    }
}

impl Limit {
    fn parse(text: &str) -> Result<Self, String> {
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let (soft, hard) = (amount(soft.trim())?, amount(hard.trim())?);
        match soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            true => Err(format!(
                "the soft limit must not be above the hard limit, but it is in \"{text}\" (write \"SOFT:HARD\")"
            )),
            false => Ok(Self { soft, hard }),
        }
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number, a size, \"unlimited\" or \"SOFT:HARD\"")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Limit, E> {
        let number = u64::try_from(number).map_err(|_| {
            E::custom(format!(
                "must be at least 0, not {number} (for no limit write \"unlimited\")"
            ))
        })?;
        Ok(Limit {
            soft: Some(number),
            hard: Some(number),
        })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
        Limit::parse(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

impl<'de, const LEAST: i32, const MOST: i32> Deserialize<'de> for Integer<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfInteger<const LEAST: i32, const MOST: i32>;
        impl<const LEAST: i32, const MOST: i32> Visitor<'_> for OfInteger<LEAST, MOST> {
            type Value = Integer<LEAST, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a {}", Integer::<LEAST, MOST>::description())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                let found = i32::try_from(number).ok();
                let found = found.filter(|found| (LEAST..=MOST).contains(found));
                found.map(Integer).ok_or_else(|| {
                    E::custom(format!("must be between {LEAST} and {MOST}, not {number}"))
                })
            }

            // A reference to a variable can stand in strings only.
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                match text.parse() {
                    Ok(number) => self.visit_i64(number),
                    Err(_) => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(OfInteger)
    }
}

struct CpusVisitor;

impl CpusVisitor {
    fn number(text: &str) -> Option<u16> {
        text.trim().parse().ok().filter(|cpu| *cpu <= MAX_CPU)
    }
}

impl Visitor<'_> for CpusVisitor {
    type Value = Cpus;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the number of a CPU, or a range such as \"0-3\"")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Cpus, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cpus, E> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (Self::number(first), Self::number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Cpus(first, last)),
            _ => Err(E::custom(format!(
                "\"{text}\" names no CPUs (write a number from 0 to {MAX_CPU}, or a range such as \"0-3\")"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CpusVisitor)
    }
}

impl Typed for Limit {
    fn description() -> String {
        "limit".into()
    }
}

impl<const LEAST: i32, const MOST: i32> Typed for Integer<LEAST, MOST> {
    fn description() -> String {
        format!("number from {LEAST} to {MOST}")
    }
}

impl Typed for Capability {
    fn description() -> String {
        "capability name".into()
    }
}

impl Typed for Port {
    fn description() -> String {
        "port".into()
    }
}

impl Typed for Cpus {
    fn description() -> String {
        "CPU".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_a_size_or_both_limits() {
        let both = |soft, hard| Ok(Limit { soft, hard });
        for (text, limit) in [
            ("0", both(Some(0), Some(0))),
            ("4096", both(Some(4096), Some(4096))),
            ("2KiB", both(Some(2048), Some(2048))),
            ("unlimited", both(None, None)),
            ("1024:unlimited", both(Some(1024), None)),
            ("1KiB : 2KiB", both(Some(1024), Some(2048))),
        ] {
            assert_eq!(Limit::parse(text), limit, "{text}");
        }
        for (text, why) in [
            ("", "no limit"),
            ("-1", "no limit"),
            ("5:", "no limit"),
            ("1:2:3", "no limit"),
            ("unlimited:1", "must not be above"),
            ("2:1", "must not be above"),
            ("18446744073709551615", "more than a limit can be"),
            ("99999999999999999999999", "more than a limit can be"),
        ] {
            let error = Limit::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_capability_has_the_number_that_the_kernel_knows() {
        for (text, number) in [
            ("CAP_CHOWN", 0),
            ("net_bind_service", 10),
            ("cap_sys_admin", 21),
            ("CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(Capability::parse(text), Some(Capability(number)), "{text}");
        }
        assert_eq!(Capability::parse("CAP_CAP_CHOWN"), None);
        assert_eq!(Capability::SYS_NICE.to_string(), "CAP_SYS_NICE");
        assert_eq!(Capability::SYS_RESOURCE.to_string(), "CAP_SYS_RESOURCE");
    }
}
