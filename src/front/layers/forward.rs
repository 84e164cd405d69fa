//! `forward_auth`: somebody else is asked whether a request may pass.
//!
//! The question is a request of its own, to which a response of 2xx lets the request pass. One of 401, 403 or 3xx is for the client: it may
//! ask for a password, or lead to a page for logging in. Anything else tells nothing, so nobody passes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use preforkd_http::Head;
use preforkd_worker::layers::{Changes, Question};

/// Whom to ask, compiled.
#[derive(Debug)]
pub struct Asked {
    /// The name of the upstream.
    pub upstream: String,
    /// What it is asked for.
    pub target: Vec<u8>,
    /// The fields that no client can send.
    pub strip: Changes,
    headers: Vec<String>,
    user: String,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request passes.
    Passes,
    /// The answer is for the client.
    Refused,
    /// Nothing that can be understood.
    Unclear,
}

impl Asked {
    /// Of these settings.
    pub fn new(question: &Question) -> Self {
        let Question {
            upstream,
            path,
            headers,
            user,
        } = question;
        let mut remove = headers.clone();
        if !headers.iter().any(|name| name.eq_ignore_ascii_case(user)) {
            remove.push(user.clone());
        }
        Self {
            upstream: upstream.clone(),
            target: path.as_bytes().to_vec(),
            strip: Changes {
                remove,
                ..Changes::default()
            },
            headers: headers.clone(),
            user: user.clone(),
        }
    }

    /// Who the client is, as the answer says.
    pub fn user<'a>(&self, head: &'a Head) -> Option<&'a [u8]> {
        let user = head.get(self.user.as_bytes());
        user.filter(|user| !user.is_empty())
    }

    /// The fields of the answer that the request gets. One that is no text is left out.
    fn fields(&self, head: &Head) -> Vec<(String, String)> {
        let named = |name: &[u8]| {
            let mut headers = self.headers.iter();
            headers.find(|header| name.eq_ignore_ascii_case(header.as_bytes()))
        };
        let copy = |(name, value)| {
            let value = String::from_utf8(<[u8]>::to_vec(value)).ok()?;
            Some((named(name)?.clone(), value))
        };
        head.fields().filter_map(copy).collect()
    }
}

/// What the status of an answer says.
pub fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Passes,
        304 => Verdict::Unclear,
        401 | 403 | 300..=399 => Verdict::Refused,
        _ => Verdict::Unclear,
    }
}

/// What is to be asked for a request, and what was answered.
#[derive(Debug, Default)]
pub struct Questions {
    open: Mutex<Vec<Arc<Asked>>>,
    copied: Mutex<Changes>,
    answered: AtomicBool,
}

impl Questions {
    /// These are to be asked, each once.
    pub fn add<'a>(&self, asked: impl Iterator<Item = &'a Arc<Asked>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for asked in asked {
            if !open.iter().any(|other| Arc::ptr_eq(other, asked)) {
                open.push(asked.clone());
            }
        }
    }

    /// Who is asked next.
    pub fn next(&self) -> Option<Arc<Asked>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.first().cloned()
    }

    /// The request may pass, says this answer. Of several the first counts.
    pub fn passes(&self, asked: &Arc<Asked>, head: &Head) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !Arc::ptr_eq(other, asked));
        self.answered.store(true, Ordering::Relaxed);
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        let known = copied.set.len();
        for (name, value) in asked.fields(head) {
            let mut before = copied.set[..known].iter();
            if !before.any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
                copied.set.push((name, value));
            }
        }
    }

    /// Whether an answer has let the request pass: it is one of a user.
    pub fn were_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The fields that the request gets.
    pub fn copied(&self) -> Option<Changes> {
        let copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        (!copied.is_empty()).then(|| copied.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_success_lets_a_request_pass() {
        for (status, expected) in [
            (200, Verdict::Passes),
            (202, Verdict::Passes),
            (204, Verdict::Passes),
            (301, Verdict::Refused),
            (302, Verdict::Refused),
            (307, Verdict::Refused),
            (401, Verdict::Refused),
            (403, Verdict::Refused),
            (304, Verdict::Unclear),
            (400, Verdict::Unclear),
            (404, Verdict::Unclear),
            (429, Verdict::Unclear),
            (500, Verdict::Unclear),
            (503, Verdict::Unclear),
            (999, Verdict::Unclear),
        ] {
            assert_eq!(verdict(status), expected, "{status}");
        }
    }
}
