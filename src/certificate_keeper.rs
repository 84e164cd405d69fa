//! The process that has certificates of sites issued by an authority (RFC 8555), keeps them on disk and renews them. It waits for disks, and for
//! the processes that speak with the authority, which have no rights of the master.
//!
//! It is this program, started by the master as `preforkd keep-certificates` with three memory files: descriptor 3 for the answer, descriptor 4
//! with what to do, and descriptor 5 with the challenges that the workers of the front have been told, both as JSON. When other challenges are to
//! be told, it writes these to the first one and exits with status 0; the next one goes on where it has ended, as the record of each site says.
//! A certificate that was issued goes to its file, whose watch hands it over ([`crate::certificate_watch`]).

mod policy;
mod record;
mod reports;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{error, info};
use preforkd_worker::acme::{Answer, Challenges, Failure, Outcome, Seen, Task};

use crate::effects::acme_job;
use crate::effects::host::ThisHost;
use crate::effects::state_folder::StateFolder;
use crate::plan::Host as _;
use crate::plan::acme::{Acme, file_of};
use crate::{logging, sys};
use record::{Begun, Record};

/// The descriptor for the answer.
const ANSWER: i32 = 3;
/// The descriptor with what to do.
const ORDERS: i32 = 4;
/// The descriptor with the challenges that were told.
const TOLD: i32 = 5;

/// The clock may be set: it is looked at again after this time at most.
const LOOK: u64 = 600;

/// Until then an order that was begun is worth going on with, in seconds. Its challenges are good for days.
const FRESH: u64 = 3600;

/// Keeps certificates until other challenges are to be told, and writes these.
///
/// # Errors
/// It was not started by a master, or the folder cannot be used.
pub fn run() -> Result<(), String> {
    logging::begin(false);
    let could_not = |error: io::Error| format!("cannot keep certificates: {error}");
    let mut answer = File::from(sys::adopt(ANSWER).map_err(could_not)?);
    let acme: Acme = parsed(ORDERS).map_err(could_not)?;
    let told: Challenges = parsed(TOLD).map_err(could_not)?;
    let folder = StateFolder::open(&acme.state, crate::plan::acme::BELOW);
    let folder = folder.map_err(|error| {
        format!(
            "cannot keep certificates in {}: {error} (`[master] state` names another folder)",
            acme.state.display()
        )
    })?;
    let keeper = Keeper { acme, told, folder };
    let challenges = keeper.keep().map_err(could_not)?;
    let text = challenges.encode().map_err(io::Error::from);
    let written = text.and_then(|text| answer.write_all(text.as_bytes()));
    written.map_err(could_not)
}

fn parsed<T: serde::de::DeserializeOwned>(descriptor: i32) -> io::Result<T> {
    let mut file = File::from(sys::adopt(descriptor)?);
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// What a process keeps.
struct Keeper {
    acme: Acme,
    told: Challenges,
    folder: StateFolder,
}

impl Keeper {
    /// Orders what is due, one after the other. Returns when other challenges are to be told.
    fn keep(&self) -> io::Result<Challenges> {
        let mut told_is_wanted = self.told.is_empty();
        // What was begun comes first, whichever site it is for.
        for (site, hosts) in &self.acme.sites {
            let mut record = self.record(site, hosts)?;
            let Some(begun) = record.order.clone() else {
                continue;
            };
            if now().saturating_sub(begun.at) > FRESH {
                record.order = None;
                self.write(site, &record)?;
                continue;
            }
            if !contains(&self.told, &begun.challenges) {
                return Ok(begun.challenges);
            }
            // A process that dies with it must not try it again and again.
            record.order = None;
            self.write(site, &record)?;
            self.attempt(site, hosts, &mut record, Some(begun))?;
            told_is_wanted = false;
        }
        if !told_is_wanted {
            return Ok(Challenges::default());
        }
        self.say_waits()?;
        loop {
            let mut next = now() + LOOK;
            for (site, hosts) in &self.acme.sites {
                let mut record = self.record(site, hosts)?;
                let due = self.due(site, hosts, &record)?;
                if due > now() {
                    next = next.min(due);
                    continue;
                }
                // Before anything is asked for: a process that dies must not ask more often for that.
                record.failures = record.failures.saturating_add(1);
                record.next =
                    now() + policy::wait(record.failures, Failure::Unproven, None, chance());
                self.write(site, &record)?;
                let consequence = self.consequence(site)?;
                info!(
                    "site={site}: ordering a certificate for {} from {}; {consequence}",
                    hosts.join(", "),
                    self.acme.directory
                );
                if let Some(challenges) = self.attempt(site, hosts, &mut record, None)? {
                    return Ok(challenges);
                }
                next = now();
            }
            std::thread::sleep(Duration::from_secs(next.saturating_sub(now())));
        }
    }

    /// Says what is not ordered yet because it has failed before.
    fn say_waits(&self) -> io::Result<()> {
        for (site, hosts) in &self.acme.sites {
            let record = self.record(site, hosts)?;
            if record.failures > 0 && record.next > now() && self.told.is_empty() {
                info!(
                    "site={site}: no certificate is ordered before {}, as the latest attempt has failed; {}",
                    reports::date(record.next),
                    self.consequence(site)?
                );
            }
        }
        Ok(())
    }

    /// When a certificate is to be ordered for a site.
    fn due(&self, site: &str, hosts: &[String], record: &Record) -> io::Result<u64> {
        let seen = self.seen(site)?;
        let is_others = record
            .issued_by
            .as_deref()
            .is_some_and(|by| by != self.acme.directory);
        let due = policy::due(seen.as_ref().filter(|_| !is_others), hosts);
        Ok(due.max(record.next))
    }

    /// Does a part of an exchange for a site: the first, or the second of one that was begun. Returns the challenges that are to be told.
    fn attempt(
        &self,
        site: &str,
        hosts: &[String],
        record: &mut Record,
        begun: Option<Begun>,
    ) -> io::Result<Option<Challenges>> {
        let kinds = begun.as_ref().map(|begun| begun.kinds.clone());
        let kinds = kinds.unwrap_or_else(|| {
            // Where one kind does not work, the next attempt tries the other.
            let mut kinds = self.acme.kinds.clone();
            let tried = record.failures.saturating_sub(1) as usize;
            let count = kinds.len().max(1);
            kinds.rotate_left(tried % count);
            kinds
        });
        let account = policy::account_file(&self.acme);
        let known = self.folder.read(&account)?;
        let task = Task {
            directory: self.acme.directory.clone(),
            ca: self.acme.ca.clone(),
            email: self.acme.email.clone(),
            eab: self.acme.eab.clone(),
            account: known.clone(),
            hosts: hosts.to_vec(),
            kinds: kinds.clone(),
            order: begun.map(|begun| begun.order),
        };
        let answer = self.ask(&task);
        let outcome = match answer {
            Ok(answer) => {
                if let Some(account_now) = answer.account.filter(|now| Some(now) != known.as_ref())
                {
                    self.folder.write(&account, &account_now)?;
                }
                answer.outcome
            }
            Err(why) => Outcome::Failed {
                why,
                failure: Failure::Unreachable,
                retry_after: None,
            },
        };
        let outcome = match outcome {
            Outcome::Issued(text) => match self.checked(&text, hosts) {
                Ok(seen) => {
                    self.folder.write(&file_of(site), &text)?;
                    let by = Some(self.acme.directory.clone());
                    *record = Record::new(&self.acme, hosts).with_issuer(by);
                    self.write(site, record)?;
                    info!(
                        "site={site}: a certificate for {} was issued, which expires on {} and is renewed from {} on",
                        hosts.join(", "),
                        reports::date(seen.not_after),
                        reports::date(policy::renewal(&seen)),
                    );
                    return Ok(None);
                }
                Err(why) => Outcome::Failed {
                    why: format!("what was issued cannot be used: {why}"),
                    failure: Failure::Refused,
                    retry_after: None,
                },
            },
            other => other,
        };
        match outcome {
            Outcome::Begun { order, challenges } => {
                record.order = Some(Begun {
                    order,
                    challenges: challenges.clone(),
                    kinds,
                    at: now(),
                });
                self.write(site, record)?;
                Ok(Some(challenges))
            }
            Outcome::Failed {
                why,
                failure,
                retry_after,
            } => {
                let wait = policy::wait(record.failures, failure, retry_after, chance());
                record.next = now() + wait;
                self.write(site, record)?;
                error!(
                    "site={site}: cannot get a certificate for {}: {why} ({}); {}, trying again in {}",
                    hosts.join(", "),
                    reports::advice(failure),
                    self.consequence(site)?,
                    reports::time(wait),
                );
                Ok(None)
            }
            Outcome::Issued(_) => Ok(None),
        }
    }

    /// Has a process speak with the authority.
    fn ask(&self, task: &Task) -> Result<Answer, String> {
        let text = serde_json::to_string(task).map_err(|error| error.to_string())?;
        let program = &self.acme.program;
        let answer = acme_job::ask(program, self.acme.user.as_ref(), &text)
            .map_err(|error| format!("{} acme: {error}", program.display()))?;
        serde_json::from_str(&answer)
            .map_err(|_| format!("{} acme has ended without an answer", program.display()))
    }

    /// What the process has made of it is data: it must be a certificate for these hosts, with its key.
    fn checked(&self, text: &str, hosts: &[String]) -> Result<Seen, String> {
        let seen = ThisHost.look(&self.acme.program, text)?;
        if let Some(host) = hosts.iter().find(|host| !seen.names.contains(host)) {
            return Err(format!("it is not for {host}"));
        }
        match seen.not_after > now() {
            true => Ok(seen),
            false => Err(format!(
                "it has expired on {}",
                reports::date(seen.not_after)
            )),
        }
    }

    /// What is in the file of a site, if that can be used.
    fn seen(&self, site: &str) -> io::Result<Option<Seen>> {
        let text = self.folder.read(&file_of(site))?;
        Ok(text.and_then(|text| ThisHost.look(&self.acme.program, &text).ok()))
    }

    /// What clients are shown meanwhile.
    fn consequence(&self, site: &str) -> io::Result<String> {
        Ok(match self.seen(site)? {
            None => "clients are shown one that stands for itself until then".into(),
            Some(seen) if seen.not_after > now() => format!(
                "the one that runs is good until {}",
                reports::date(seen.not_after)
            ),
            Some(seen) => format!(
                "the one that runs has expired on {}",
                reports::date(seen.not_after)
            ),
        })
    }

    fn record(&self, site: &str, hosts: &[String]) -> io::Result<Record> {
        let text = self.folder.read(&record_of(site))?;
        let kept = text.and_then(|text| serde_json::from_str::<Record>(&text).ok());
        let new = Record::new(&self.acme, hosts);
        Ok(match kept {
            Some(kept) if kept.is_about(&new) => kept,
            // The operator has changed something, which may be what helps.
            Some(kept) => new.with_issuer(kept.issued_by),
            None => new,
        })
    }

    fn write(&self, site: &str, record: &Record) -> io::Result<()> {
        let text = serde_json::to_string(record)?;
        self.folder.write(&record_of(site), &text)
    }
}

fn record_of(site: &str) -> String {
    format!("site-{site}.json")
}

fn contains(all: &Challenges, some: &Challenges) -> bool {
    let mut http = some.http.iter();
    let mut tls = some.tls.iter();
    http.all(|(token, answer)| all.http.get(token) == Some(answer))
        && tls.all(|(host, proof)| all.tls.get(host) == Some(proof))
}

/// Between 0 and 1, so that the hosts of a fleet do not ask at the same time.
fn chance() -> f64 {
    fastrand::f64()
}
