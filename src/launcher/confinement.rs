//! What a process may reach: landlock(7).

use std::collections::BTreeSet;
use std::error::Error;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use crate::plan::{Landlock, Reach};

/// The version whose restrictions are known here. What the kernel does not know of it is left out: the plan has seen to what must not be.
const KNOWN: ABI = ABI::V7;

/// The rules for a process.
///
/// # Errors
/// A path cannot be opened, or the kernel takes no rules.
pub fn prepare(wanted: &Landlock) -> Result<RulesetCreated, Errno> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|rules| rules.scope(Scope::Signal))
        .map_err(reason)?;
    for (ports, access) in ports(wanted) {
        if ports.is_some() {
            rules = rules.handle_access(access).map_err(reason)?;
        }
    }
    let mut rules = rules.create().map_err(reason)?;
    for reach in &wanted.paths {
        if let Some(rule) = rule(reach)? {
            rules = rules.add_rule(rule).map_err(reason)?;
        }
    }
    for (ports, access) in ports(wanted) {
        for port in ports.iter().flatten() {
            rules = rules
                .add_rule(NetPort::new(*port, access))
                .map_err(reason)?;
        }
    }
    Ok(rules)
}

type Ports = Option<BTreeSet<u16>>;

fn ports(wanted: &Landlock) -> [(&Ports, AccessNet); 2] {
    [
        (&wanted.connect, AccessNet::ConnectTcp),
        (&wanted.bind, AccessNet::BindTcp),
    ]
}

/// The rule for a path; `None` if it may be missing, and is.
fn rule(reach: &Reach) -> Result<Option<PathBeneath<PathFd>>, Errno> {
    let file = match PathFd::new(&reach.path) {
        Ok(file) => file,
        Err(_) if !reach.must_exist => return Ok(None),
        Err(PathFdError::OpenCall { source, .. }) => return Err(errno(&source)),
        Err(_) => return Err(Errno::EINVAL),
    };
    let access: BitFlags<AccessFs> = match reach.write {
        true => AccessFs::from_all(KNOWN),
        false => AccessFs::from_read(KNOWN),
    };
    let mode = fstat(&file)?.st_mode;
    let is_folder = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    let access = match is_folder {
        true => access,
        false => access & AccessFs::from_file(KNOWN),
    };
    Ok(Some(PathBeneath::new(file, access)))
}

/// Restricts this process, and all that it starts.
///
/// # Errors
/// The kernel refuses it, or restricts nothing although that is required.
pub fn confine(rules: RulesetCreated, required: bool) -> Result<(), Errno> {
    let status = rules.restrict_self().map_err(reason)?;
    match status.ruleset == RulesetStatus::NotEnforced && required {
        true => Err(Errno::EOPNOTSUPP),
        false => Ok(()),
    }
}

/// The number of the error behind this one.
fn reason(error: RulesetError) -> Errno {
    let mut next: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return errno(error);
        }
        next = error.source();
    }
    Errno::EINVAL
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}
