//! Settings of a WSGI worker, passed as one JSON object (preforkd-worker(7), "PREFORKD_WSGI"), and those that it shares with others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::proxy::Proxy;

/// The maximum number of threads of a worker.
pub const MAX_THREADS: u32 = 1000;
/// The maximum number of connections of a worker.
pub const MAX_CONNECTIONS: u32 = 1_000_000;

/// The configuration of an app with `wsgi`; preforkd.toml(5) describes each key. Sizes are in bytes, times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `module:attribute`.
    pub application: String,
    /// A module with hooks: functions that are called when workers are forked, start and stop.
    pub hooks: Option<String>,
    /// The number of requests a worker runs at a time, at most [`MAX_THREADS`].
    pub threads: u32,
    /// How requests are taken.
    pub http: Http,
    /// The path below which the application is served, empty for none.
    pub prefix: String,
    /// URL prefixes and the folders or files that are served under them.
    #[serde(rename = "static")]
    pub static_files: BTreeMap<String, Mapping>,
    /// Django says which static files there are besides.
    pub django_static: bool,
    /// Why this interpreter was taken, in words that follow "it is".
    pub interpreter: String,
    /// The number of requests after which the worker asks to be replaced.
    pub max_requests: Option<u64>,
    /// A random number up to this one is added to it.
    pub max_requests_jitter: u64,
}

/// How a worker takes requests and sends responses, whatever makes these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Each request has a name.
    pub request_id: bool,
    /// The form of a line of the access log; see [`crate::access_format`].
    pub access_format: String,
    /// Proxies that may say for whom they ask.
    pub trusted_proxies: Vec<Proxy>,
    /// The fields that these proxies set; all that say for whom they ask, if there is no list.
    pub forwarded_fields: Option<Vec<String>>,
    /// Each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// The maximum size of a request's head.
    pub max_head: u64,
    /// The maximum number of fields in a request's head.
    pub max_headers: u32,
    /// The maximum size of a request's body.
    pub max_body: u64,
    /// A body larger than this goes to a temporary file.
    pub body_in_memory: u64,
    /// What the client does not accept of a response stays in memory up to this size.
    pub response_in_memory: u64,
    /// The maximum size of the temporary file for the rest; above it the thread waits for the client.
    pub response_in_file: u64,
    /// The maximum size of all request bodies and responses of a worker that are held in memory and in files.
    pub max_buffered: u64,
    /// The time in which the head of a request must arrive.
    #[serde(with = "seconds")]
    pub header_timeout: Duration,
    /// The time in which the next bytes of a body must arrive.
    #[serde(with = "seconds")]
    pub body_timeout: Duration,
    /// The time in which a client must accept more of a response.
    #[serde(with = "seconds")]
    pub write_timeout: Duration,
    /// The time an idle connection stays open.
    #[serde(with = "seconds")]
    pub keepalive_timeout: Duration,
    /// The time from SIGTERM to SIGKILL.
    #[serde(with = "seconds")]
    pub graceful_timeout: Duration,
    /// The maximum number of connections of one worker, at most [`MAX_CONNECTIONS`].
    pub max_connections: u32,
}

/// What is served below a prefix of the URL, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The folder; or the file, if the prefix does not end with a slash.
    pub path: PathBuf,
    /// Folders that are searched, in this order, for what is not there.
    pub behind: Vec<PathBuf>,
    /// The time for which clients may use a copy, in seconds.
    pub max_age: Option<u64>,
    /// Whether a file never changes under its name.
    pub immutable: bool,
    /// Fields to add to each response with a file.
    pub headers: BTreeMap<String, String>,
    /// The file that is served for a folder.
    pub index: Option<String>,
    /// Whether the application answers where there is no file.
    pub fallthrough: bool,
    /// The encodings that may lie beside a file, what is preferred first.
    pub precompressed: Vec<Coding>,
}

/// A content coding of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// `.br`
    Br,
    /// `.zst`
    Zstd,
    /// `.gz`
    Gzip,
}

impl Coding {
    /// All of them, the smallest results first.
    pub const ALL: [Self; 3] = [Self::Br, Self::Zstd, Self::Gzip];

    /// Its name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

impl Settings {
    /// Encodes the JSON object.
    ///
    /// # Errors
    /// A path is not valid UTF-8.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Parses the JSON object.
    ///
    /// # Errors
    /// A key is missing, unknown or of another type.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// Times as numbers of seconds with fractions.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// 136 years: with longer times, sums of times would overflow.
    const MOST: Duration = Duration::from_secs(u32::MAX as u64);

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.min(&MOST).as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds.min(MOST.as_secs_f64())).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            application: "site.wsgi:app".into(),
            hooks: Some("site.hooks".into()),
            threads: 4,
            http: Http {
                request_id: true,
                access_format: "{status}".into(),
                trusted_proxies: vec![Proxy::Unix, "10.0.0.0/8".parse().expect("a network")],
                forwarded_fields: Some(vec!["X-Forwarded-For".into()]),
                proxy_protocol: true,
                max_head: 1,
                max_headers: 2,
                max_body: u64::MAX,
                body_in_memory: 3,
                response_in_memory: 8,
                response_in_file: 9,
                max_buffered: 10,
                header_timeout: Duration::from_millis(1500),
                body_timeout: Duration::from_secs(2),
                write_timeout: Duration::ZERO,
                keepalive_timeout: Duration::from_secs(4),
                graceful_timeout: Duration::from_secs(5),
                max_connections: 6,
            },
            prefix: "/größe".into(),
            static_files: [("/static/".to_owned(), mapping("/srv/größe".into()))].into(),
            django_static: true,
            interpreter: "that of the key `python`".into(),
            max_requests: Some(1000),
            max_requests_jitter: 7,
        }
    }

    fn mapping(path: PathBuf) -> Mapping {
        Mapping {
            path,
            behind: vec!["/usr/share".into()],
            max_age: Some(60),
            immutable: true,
            headers: [("X-A".to_owned(), "b".to_owned())].into(),
            index: None,
            fallthrough: true,
            precompressed: Coding::ALL.to_vec(),
        }
    }

    #[test]
    fn settings_survive_encoding() {
        let mut settings = settings();
        let json = settings.encode().expect("UTF-8");
        assert_eq!(Settings::parse(&json).expect("the same type"), settings);
        assert!(json.contains("\"header_timeout\":1.5,"), "{json}");
        let codings = Coding::ALL.map(|coding| format!("\"{}\"", coding.name()));
        assert!(json.contains(&codings.join(",")), "{json}");
        settings.max_requests = None;
        settings.http.header_timeout = Duration::MAX;
        let json = settings.encode().expect("UTF-8");
        let read = Settings::parse(&json).expect("the same type");
        assert_eq!(read.max_requests, None);
        assert_eq!(
            read.http.header_timeout,
            Duration::from_secs(u64::from(u32::MAX))
        );
    }

    #[test]
    fn keys_of_another_version_are_refused() {
        let json = settings().encode().expect("UTF-8");
        for other in [
            "",
            "{}",
            &json.replacen("threads", "workers", 1),
            &json.replacen("1.5", "-1.5", 1),
            &json.replacen("1.5", "\"1.5\"", 1),
            &json.replacen('{', "{\"new\":1,", 1),
        ] {
            assert!(Settings::parse(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_cannot_be_passed() {
        use std::os::unix::ffi::OsStringExt as _;
        let mut settings = settings();
        let path = std::ffi::OsString::from_vec(b"/srv/\xff".to_vec());
        settings
            .static_files
            .insert("/x/".into(), mapping(path.into()));
        assert!(settings.encode().is_err());
    }
}
