//! Takes rights away from a process that is about to execute a program, and limits what it uses.
//!
//! The steps have an order. What needs privileges comes before the change of the user; what the change of the user would undo comes
//! after it; and what keeps this process itself from taking the other steps comes last.

use landlock::RulesetCreated;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::{set_keepcaps, set_no_new_privs};
use nix::sys::resource::{RLIM_INFINITY, Resource as Kind, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, write};

use super::confinement;
use crate::plan::{Resource, Rights};
use crate::sys::{self, CapabilitySets, Failure, Stage};

/// The rights of a process, ready to be applied.
pub struct Preparation {
    rights: Rights,
    cpus: CpuSet,
    oom_score_adj: String,
    rules: Option<RulesetCreated>,
}

impl Preparation {
    /// Prepares these rights.
    pub fn new(rights: &Rights) -> Self {
        let mut cpus = CpuSet::new();
        for cpu in &rights.cpus {
            // The set has room for all that the configuration allows.
            let _ = cpus.set(usize::from(*cpu));
        }
        let oom_score_adj = rights.oom_score_adj.map(|score| score.to_string());
        Self {
            rights: rights.clone(),
            cpus,
            oom_score_adj: oom_score_adj.unwrap_or_default(),
            rules: None,
        }
    }

    /// Opens what it may reach, once no descriptor is overwritten any more.
    ///
    /// # Errors
    /// A path does not exist.
    pub fn open(&mut self) -> Result<(), Failure> {
        let rules = self.rights.landlock.as_ref().map(confinement::prepare);
        self.rules = rules.transpose().map_err(at(Stage::Landlock))?;
        Ok(())
    }

    /// What the process does with the rights of the master, before it becomes another user. `uid` is that of its program.
    ///
    /// # Errors
    /// The master may not do it.
    pub fn as_master(&self, uid: u32) -> Result<(), Failure> {
        if self.rights.oom_score_adj.is_some() {
            // The file belongs to root once the user has changed: proc(5).
            write_oom_score_adj(&self.oom_score_adj).map_err(at(Stage::OomScore))?;
        }
        if let Some(nice) = self.rights.nice {
            sys::set_nice(nice).map_err(at(Stage::Nice))?;
        }
        if !self.rights.cpus.is_empty() {
            sched_setaffinity(Pid::from_raw(0), &self.cpus).map_err(at(Stage::Cpus))?;
        }
        for (resource, (soft, hard)) in &self.rights.limits {
            let [soft, hard] = [soft, hard].map(|limit| limit.unwrap_or(RLIM_INFINITY));
            setrlimit(kind(*resource), soft, hard).map_err(|error| Failure {
                detail: *resource as u8,
                ..Failure::new(Stage::Limit, error)
            })?;
        }
        if let Some(kept) = self.rights.capabilities {
            bound(kept, uid).map_err(at(Stage::Capabilities))?;
            // Cleared by execve.
            set_keepcaps(true).map_err(at(Stage::Capabilities))?;
        }
        Ok(())
    }

    /// What it does as its user.
    ///
    /// # Errors
    /// The master does not have what is to be kept.
    pub fn as_user(&self) -> Result<(), Failure> {
        let Some(kept) = self.rights.capabilities else {
            return Ok(());
        };
        let failed = at(Stage::Capabilities);
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: kept,
        };
        sys::set_capabilities(sets).map_err(failed)?;
        for number in (0..u64::BITS).filter(|number| kept & 1 << number != 0) {
            sys::raise_ambient(number).map_err(failed)?;
        }
        Ok(())
    }

    /// What it does last.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn last(&mut self) -> Result<(), Failure> {
        if self.rights.no_new_privs {
            set_no_new_privs().map_err(at(Stage::NoNewPrivs))?;
        }
        if let (Some(rules), Some(wanted)) = (self.rules.take(), &self.rights.landlock) {
            confinement::confine(rules, wanted.required).map_err(at(Stage::Landlock))?;
        }
        Ok(())
    }
}

fn at(stage: Stage) -> impl Fn(Errno) -> Failure + Copy {
    move |error| Failure::new(stage, error)
}

/// Removes all capabilities but these from those that any program of the process can get.
fn bound(kept: u64, uid: u32) -> nix::Result<()> {
    for number in 0..u64::BITS {
        match sys::is_in_bounding_set(number) {
            // The kernel knows no further ones.
            None => break,
            Some(is_there) if !is_there || kept & 1 << number != 0 => continue,
            Some(_) => {}
        }
        match sys::drop_from_bounding_set(number) {
            // It takes a privilege. Without it, only a program of root would get more than the process has.
            Err(Errno::EPERM) if uid != 0 => break,
            done => done?,
        }
    }
    Ok(())
}

fn write_oom_score_adj(score: &str) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    write(&file, score.as_bytes()).map(drop)
}

/// The limit as the kernel knows it.
pub fn kind(resource: Resource) -> Kind {
    match resource {
        Resource::As => Kind::RLIMIT_AS,
        Resource::Core => Kind::RLIMIT_CORE,
        Resource::Cpu => Kind::RLIMIT_CPU,
        Resource::Data => Kind::RLIMIT_DATA,
        Resource::Fsize => Kind::RLIMIT_FSIZE,
        Resource::Memlock => Kind::RLIMIT_MEMLOCK,
        Resource::Nofile => Kind::RLIMIT_NOFILE,
        Resource::Nproc => Kind::RLIMIT_NPROC,
        Resource::Stack => Kind::RLIMIT_STACK,
    }
}
