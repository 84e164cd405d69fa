//! What the refusals of an authority mean (RFC 8555 section 6.7).

use std::error::Error as _;

use instant_acme::{Error, Problem};
use preforkd_worker::acme::Failure;

/// Before the names of errors.
const NAMES: &str = "urn:ietf:params:acme:error:";

/// Which kind of failure an error is, and what it says, in one line.
pub fn judge(error: &Error) -> (Failure, String) {
    let failure = match error {
        Error::Api(problem) => kind(problem),
        Error::Timeout(_) | Error::Http(_) | Error::Other(_) | Error::Json(_) => {
            Failure::Unreachable
        }
        Error::InvalidUri(_) | Error::KeyRejected | Error::Unsupported(_) => Failure::Refused,
        _ => Failure::Unreachable,
    };
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        cause = inner.source();
    }
    (failure, line(&why))
}

fn kind(problem: &Problem) -> Failure {
    let name = problem.r#type.as_deref().unwrap_or_default();
    match name.strip_prefix(NAMES).unwrap_or_default() {
        "rateLimited" => Failure::Limited,
        "connection" | "dns" | "tls" | "caa" | "incorrectResponse" | "unauthorized"
            if problem.status.is_none_or(|status| status < 500) =>
        {
            Failure::Unproven
        }
        "serverInternal" | "badNonce" => Failure::Unreachable,
        _ if problem.status.is_some_and(|status| status == 429) => Failure::Limited,
        _ if problem.status.is_some_and(|status| status >= 500) => Failure::Unreachable,
        _ => Failure::Refused,
    }
}

/// Whether the authority does not know the account any more.
pub fn has_no_account(error: &Error) -> bool {
    let Error::Api(problem) = error else {
        return false;
    };
    let name = problem
        .r#type
        .as_deref()
        .and_then(|name| name.strip_prefix(NAMES));
    name == Some("accountDoesNotExist")
}

/// A text of somebody else, as a part of a line of the log.
pub fn line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(visible).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Error {
        Error::Api(serde_json::from_str(json).expect("a problem"))
    }

    #[test]
    fn refusals_are_told_apart_by_what_helps() {
        for (json, failure) in [
            (
                r#"{"type": "urn:ietf:params:acme:error:rateLimited", "status": 429}"#,
                Failure::Limited,
            ),
            (
                r#"{"type": "urn:example:busy", "status": 429}"#,
                Failure::Limited,
            ),
            (
                r#"{"type": "urn:ietf:params:acme:error:dns", "status": 400}"#,
                Failure::Unproven,
            ),
            (
                r#"{"type": "urn:ietf:params:acme:error:unauthorized", "status": 403}"#,
                Failure::Unproven,
            ),
            (
                r#"{"type": "urn:ietf:params:acme:error:serverInternal", "status": 500}"#,
                Failure::Unreachable,
            ),
            (r#"{"status": 503}"#, Failure::Unreachable),
            (
                r#"{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "status": 400}"#,
                Failure::Refused,
            ),
            (
                r#"{"type": "urn:ietf:params:acme:error:userActionRequired"}"#,
                Failure::Refused,
            ),
        ] {
            assert_eq!(judge(&problem(json)).0, failure, "{json}");
        }
        let (_, why) = judge(&problem(r#"{"detail": "no\nsuch host"}"#));
        assert!(why.contains("no such host"), "{why}");
    }
}
