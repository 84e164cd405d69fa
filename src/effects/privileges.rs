//! What this process may do, and therefore give to workers.

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource as Kind, getrlimit};

use crate::config::Capability;
use crate::launcher::rights::kind;
use crate::plan::{Privileges, Resource};
use crate::sys;

/// What this process may do. A process of the master has the same rights, but for its ambient capabilities, which it can inherit.
pub fn own() -> Privileges {
    let capabilities = sys::capabilities().map_or(0, |sets| sets.effective | sets.inheritable);
    let hard = |resource| {
        let (_, hard) = getrlimit(kind(resource)).ok()?;
        (hard != RLIM_INFINITY).then_some((resource, hard))
    };
    let score = fs::read_to_string("/proc/self/oom_score_adj");
    let score = score.ok().and_then(|text| text.trim().parse().ok());
    Privileges {
        capabilities,
        hard_limits: Resource::ALL.into_iter().filter_map(hard).collect(),
        nice: least_nice(capabilities),
        oom_score_adj: score.unwrap_or(0),
    }
}

fn least_nice(capabilities: u64) -> i32 {
    if capabilities & Capability::SYS_NICE.bit() != 0 {
        return -20;
    }
    // It stands for 20 less the nice value: setrlimit(2).
    let (allowed, _) = getrlimit(Kind::RLIMIT_NICE).unwrap_or((0, 0));
    sys::nice().min(20 - allowed.min(40) as i32)
}
