//! Where the workers of an app are, as the master tells each front worker: one message for one app at a time, the latest counts
//! (preforkd-worker(7), "PREFORKD_UPSTREAMS_FD").

use serde::{Deserialize, Serialize};

/// The workers of an app that take requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// The name of the app.
    pub app: String,
    /// The workers.
    pub workers: Vec<Worker>,
}

/// A worker that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Its address, as in `listen`. Several workers may have the same one.
    pub address: String,
    /// The requests that it serves at a time; without a limit if it has none or it is not known.
    pub at_a_time: Option<u32>,
}

impl Ready {
    /// Encodes the message.
    ///
    /// # Errors
    /// None is known: it is made of texts and numbers.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Parses a message.
    ///
    /// # Errors
    /// It is another one.
    pub fn parse(message: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_survives_encoding() {
        let ready = Ready {
            app: "web".into(),
            workers: vec![Worker {
                address: "unix:/run/a \"b\"".into(),
                at_a_time: Some(4),
            }],
        };
        let text = ready.encode().expect("texts and numbers");
        assert_eq!(Ready::parse(text.as_bytes()).ok(), Some(ready));
        assert!(Ready::parse(b"{\"app\": 1}").is_err());
    }
}
