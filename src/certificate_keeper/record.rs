//! What is known of a site between two processes, and across a restart.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use preforkd_worker::acme::{Challenges, Kind};
use serde::{Deserialize, Serialize};

use crate::plan::Acme;

/// What is known of a site, in a file of its own.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// What it is about: when it is another one, failures count no longer.
    directory: String,
    hosts: Vec<String>,
    email: Option<String>,
    kinds: Vec<Kind>,
    /// A hash of the external account, without which a wrong key would count until its waits are over.
    eab: Option<u64>,
    /// The directory of the authority that has issued the certificate; unknown if there is none.
    pub issued_by: Option<String>,
    /// Attempts that were begun since then.
    pub failures: u32,
    /// When the next one may begin, in seconds since 1970.
    pub next: u64,
    /// The order that waits for its challenges.
    pub order: Option<Begun>,
}

/// An order that waits for its challenges.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Begun {
    /// Its URL.
    pub order: String,
    /// The challenges.
    pub challenges: Challenges,
    /// The kinds of which they were chosen.
    pub kinds: Vec<Kind>,
    /// When it was begun.
    pub at: u64,
}

impl Record {
    pub fn new(acme: &Acme, hosts: &[String]) -> Self {
        Self {
            directory: acme.directory.clone(),
            hosts: hosts.to_vec(),
            email: acme.email.clone(),
            kinds: acme.kinds.clone(),
            eab: acme.eab.as_ref().map(|eab| {
                let mut hasher = DefaultHasher::new();
                eab.hash(&mut hasher);
                hasher.finish()
            }),
            issued_by: None,
            failures: 0,
            next: 0,
            order: None,
        }
    }

    /// The same, with the directory of the authority that has issued the certificate.
    pub fn with_issuer(self, issued_by: Option<String>) -> Self {
        Self { issued_by, ..self }
    }

    /// Whether what it knows still counts for this one.
    pub fn is_about(&self, new: &Self) -> bool {
        self.directory == new.directory
            && self.hosts == new.hosts
            && self.email == new.email
            && self.kinds == new.kinds
            && self.eab == new.eab
    }
}
