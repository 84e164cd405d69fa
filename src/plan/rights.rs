//! What the processes of an app may do, and how much of the machine they may use.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Credentials, Draft, Landlock};
use crate::config::{Capability, Cpus, Limit, Place, Value};

/// The rights and limits of a process. The default takes nothing away from what the master has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// No program that it executes gives it more rights.
    pub no_new_privs: bool,
    /// The capabilities that it has, as a set of bits; what its user has if `None`.
    pub capabilities: Option<u64>,
    /// Soft and hard limits; `None` is no limit.
    pub limits: BTreeMap<Resource, (Option<u64>, Option<u64>)>,
    /// How soon the kernel ends it when memory runs out.
    pub oom_score_adj: Option<i32>,
    /// Its nice value.
    pub nice: Option<i32>,
    /// The CPUs that it runs on; those of the master if empty.
    pub cpus: BTreeSet<u16>,
    /// What it may reach; everything if `None`.
    pub landlock: Option<Landlock>,
}

macro_rules! resources {
    ($($name:literal $Resource:ident),+ $(,)?) => {
        /// What setrlimit(2) limits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Resource {
            $(
                #[doc = concat!("`", $name, "`.")]
                $Resource
            ),+
        }

        impl Resource {
            /// All of them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$Resource),+];

            /// Its key in `limits`.
            pub fn key(self) -> &'static str {
                match self {
                    $(Self::$Resource => $name),+
                }
            }
        }
    };
}

resources! {
    "as" As,
    "core" Core,
    "cpu" Cpu,
    "data" Data,
    "fsize" Fsize,
    "memlock" Memlock,
    "nofile" Nofile,
    "nproc" Nproc,
    "stack" Stack,
}

/// What the master may give to its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    /// The capabilities that it has, as a set of bits.
    pub capabilities: u64,
    /// Its hard limits, where there are any.
    pub hard_limits: BTreeMap<Resource, u64>,
    /// The least nice value that it may set.
    pub nice: i32,
    /// Its own `oom_score_adj`.
    pub oom_score_adj: i32,
}

impl Privileges {
    fn have(&self, capability: Capability) -> bool {
        self.capabilities & capability.bit() != 0
    }
}

impl Draft<'_> {
    /// The rights of the processes of the app, which run as `user`.
    pub(super) fn rights(
        &self,
        user: Option<&Credentials>,
        warnings: &mut Vec<String>,
    ) -> Result<Rights, Place> {
        let privileges = self.host.privileges();
        let limits = self.limits(&privileges)?;
        let uid = user.map_or(self.host.own_ids().0, |user| user.uid);
        if uid == 0 && limits.contains_key(&Resource::Nproc) {
            warnings.push(
                "limits.nproc: the kernel limits no processes of root (set `user`, or remove it)"
                    .into(),
            );
        }
        Ok(Rights {
            no_new_privs: *self.written.no_new_privs,
            capabilities: self.capabilities(&privileges)?,
            limits,
            oom_score_adj: self.oom_score_adj(&privileges)?,
            nice: self.nice(&privileges)?,
            cpus: self.cpu_affinity(),
            // It depends on the program.
            landlock: None,
        })
    }

    fn capabilities(&self, privileges: &Privileges) -> Result<Option<u64>, Place> {
        let Some(written) = &self.written.capabilities else {
            return Ok(None);
        };
        let mut all = 0;
        for capability in written.iter() {
            let (place, capability) = (capability.span(), *capability.get_ref());
            if !privileges.have(capability) {
                let message = format!(
                    "capabilities: the master does not have {capability}, so no worker can keep it (start preforkd as root, or add it to AmbientCapabilities= of the unit)"
                );
                return Err(Place::at(place, message));
            }
            all |= capability.bit();
        }
        Ok(Some(all))
    }

    fn limits(
        &self,
        privileges: &Privileges,
    ) -> Result<BTreeMap<Resource, (Option<u64>, Option<u64>)>, Place> {
        let limits = &self.written.limits;
        let written = |resource| -> &Option<Value<Limit>> {
            match resource {
                Resource::As => &limits.address_space,
                Resource::Core => &limits.core,
                Resource::Cpu => &limits.cpu,
                Resource::Data => &limits.data,
                Resource::Fsize => &limits.fsize,
                Resource::Memlock => &limits.memlock,
                Resource::Nofile => &limits.nofile,
                Resource::Nproc => &limits.nproc,
                Resource::Stack => &limits.stack,
            }
        };
        let mut found = BTreeMap::new();
        for resource in Resource::ALL {
            let Some(limit) = written(resource) else {
                continue;
            };
            let most = privileges.hard_limits.get(&resource).copied();
            let most = most.filter(|_| !privileges.have(Capability::SYS_RESOURCE));
            if let Some(most) = most.filter(|most| limit.hard.unwrap_or(u64::MAX) > *most) {
                let key = resource.key();
                return Err(limit.wrong(format!(
                    "limits.{key}: the hard limit of the master is {most}, which it may not raise (write {most} at most, or raise the limit of the master: Limit{}= of the unit, or ulimit)",
                    key.to_ascii_uppercase()
                )));
            }
            found.insert(resource, (limit.soft, limit.hard));
        }
        Ok(found)
    }

    fn oom_score_adj(&self, privileges: &Privileges) -> Result<Option<i32>, Place> {
        let Some(written) = &self.written.oom_score_adj else {
            return Ok(None);
        };
        // One that was raised may go back to what it was, which nobody can read.
        let least = privileges.oom_score_adj.min(0);
        match written.0 < least && !privileges.have(Capability::SYS_RESOURCE) {
            true => Err(written.wrong(format!(
                "oom_score_adj: only a master that runs as root can set it below its own, which is {} (start preforkd as root, or set OOMScoreAdjust= of the unit)",
                privileges.oom_score_adj
            ))),
            false => Ok(Some(written.0)),
        }
    }

    fn nice(&self, privileges: &Privileges) -> Result<Option<i32>, Place> {
        let Some(written) = &self.written.nice else {
            return Ok(None);
        };
        match written.0 < privileges.nice {
            true => Err(written.wrong(format!(
                "nice: only a master that runs as root can set it below {} (start preforkd as root, or set Nice= or LimitNICE= of the unit)",
                privileges.nice
            ))),
            false => Ok(Some(written.0)),
        }
    }

    fn cpu_affinity(&self) -> BTreeSet<u16> {
        let written = self.written.cpu_affinity.iter();
        let ranges = written.flat_map(|ranges| ranges.iter());
        ranges
            .flat_map(|Cpus(first, last)| *first..=*last)
            .collect()
    }

    /// The number of CPUs that the workers may use.
    pub(super) fn cpus(&self) -> u32 {
        let all = self.host.cpus();
        match u32::try_from(self.cpu_affinity().len()) {
            Ok(0) | Err(_) => all,
            Ok(own) => own.min(all),
        }
    }
}
