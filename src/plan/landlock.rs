//! `landlock`: the files that workers may reach, and the TCP ports: landlock(7).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use preforkd_worker::env;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{Draft, Launch, OwnAddress, lossless, normal};
use crate::config::{Landlock as Written, Place, Port, Value};

/// The version of Landlock that restricts all that is done with files: Linux 6.2.
const FILES: u32 = 3;
/// The version that restricts TCP ports: Linux 6.7.
const PORTS: u32 = 4;

/// What every program needs to read: the system, and what is known of the machine.
const SYSTEM: [&str; 18] = [
    "/bin",
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/proc",
    // Where /etc/resolv.conf leads to.
    "/run/NetworkManager",
    "/run/current-system",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/sbin",
    "/sys",
    "/usr",
    // Where /etc/ssl leads to.
    "/var/lib/ca-certificates",
    "/dev/fd",
];

/// What every program may write to: what keeps nothing, and memory that processes share.
const DEVICES: [&str; 7] = [
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// The variable with the folder for temporary files.
const TMPDIR: &str = "TMPDIR";

/// What a process may reach. It can send no signals to processes that it has not started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// The files and folders, with all below them.
    pub paths: Vec<Reach>,
    /// The TCP ports that it may connect to; all if `None`.
    pub connect: Option<BTreeSet<u16>>,
    /// The TCP ports that it may bind; all if `None`.
    pub bind: Option<BTreeSet<u16>>,
    /// Whether the process must not run if none of this is restricted.
    pub required: bool,
}

/// A file or folder that a process may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Its path.
    #[serde(with = "lossless")]
    pub path: PathBuf,
    /// Whether it may be changed, and not only read and executed.
    pub write: bool,
    /// Whether it is an error that it does not exist.
    pub must_exist: bool,
}

impl Landlock {
    fn add(&mut self, path: impl Into<PathBuf>, write: bool, must_exist: bool) {
        let path = path.into();
        let covers = |known: &Reach| known.path == path && known.write == write;
        if !self.paths.iter().any(covers) {
            self.paths.push(Reach {
                path,
                write,
                must_exist,
            });
        }
    }

    /// Leaves out what is below a folder that may be changed: it adds nothing, and whoever may change the folder could put a link in its place.
    fn without_what_is_covered(mut self) -> Self {
        let writable: Vec<PathBuf> = self
            .paths
            .iter()
            .filter(|reach| reach.write)
            .map(|reach| reach.path.clone())
            .collect();
        let is_below = |path: &Path| {
            let mut all = writable.iter();
            all.any(|folder| path != folder && path.starts_with(folder))
        };
        self.paths.retain(|reach| !is_below(&reach.path));
        self
    }
}

impl Launch {
    /// Lets it execute its own program, if it may not reach everything.
    pub(super) fn reach_program(&mut self) {
        let program = self.chdir.join(&self.program);
        if let Some(mut landlock) = self.rights.landlock.take() {
            landlock.add(program, false, false);
            self.rights.landlock = Some(landlock.without_what_is_covered());
        }
    }
}

impl Draft<'_> {
    /// What the processes of `launch` may reach.
    pub(super) fn landlock(
        &self,
        launch: &Launch,
        own_address: Option<&OwnAddress>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Landlock>, Place> {
        let Some(written) = &self.written.landlock else {
            return Ok(None);
        };
        if !*self.written.no_new_privs {
            return Err(written.wrong(
                "landlock: it takes `no_new_privs = true` (remove no_new_privs, or this key)",
            ));
        }
        let (connect, bind) = (ports(&written.connect), ports(&written.bind));
        let bind = match own_address {
            Some(own) => self.with_own(bind, own)?,
            None => bind,
        };
        if let Some(lack) = lack(self.host.landlock(), connect.is_some() || bind.is_some()) {
            match *written.required {
                true => {
                    return Err(written.required.wrong(format!(
                        "landlock: {lack} (remove `required`, or use a later kernel)"
                    )));
                }
                false => warnings.push(format!("landlock: {lack}")),
            }
        }
        if self.host.landlock() == 0 {
            return Ok(None);
        }
        let mut found = Landlock {
            paths: self.paths(written)?,
            connect,
            bind,
            required: *written.required,
        };
        self.usual(launch, &mut found);
        Ok(Some(found.without_what_is_covered()))
    }

    /// The ports that workers bind by themselves, with those that are written.
    fn with_own(
        &self,
        bind: Option<BTreeSet<u16>>,
        own: &OwnAddress,
    ) -> Result<Option<BTreeSet<u16>>, Place> {
        let Some(mut bind) = bind else {
            return Ok(None);
        };
        if own.first == 0 {
            return Err(self.wrong(
                "landlock.bind: the port of a worker is not known beforehand (write a range of ports in `addresses`, or remove `bind`)",
            ));
        }
        bind.extend(own.first..=own.last);
        Ok(Some(bind))
    }

    /// The paths that are written.
    fn paths(&self, written: &Written) -> Result<Vec<Reach>, Place> {
        let mut found = Landlock::default();
        let mut add = |key: &str, paths: &[Spanned<PathBuf>], write| {
            for path in paths {
                let (place, path) = (path.span(), normal(&self.folder.join(path.get_ref())));
                if self.host.file_state(&path).is_none() {
                    self.may_come(Place::at(
                        place,
                        format!(
                            "landlock.{key}: there is no {} (create it first)",
                            path.display()
                        ),
                    ))?;
                }
                found.add(path, write, true);
            }
            Ok(())
        };
        if let Some(read) = &written.read {
            add("read", read, false)?;
        }
        add("write", &written.write, true)?;
        if written.read.is_none() {
            found.add("/", false, true);
        }
        Ok(found.paths)
    }

    /// What the processes of any app need.
    fn usual(&self, launch: &Launch, found: &mut Landlock) {
        for path in SYSTEM {
            found.add(path, false, false);
        }
        for path in DEVICES {
            found.add(path, true, false);
        }
        found.add(&launch.chdir, false, false);
        let inherited = || self.host.variable(TMPDIR).filter(|_| !launch.env_clear);
        let temporary = launch.env.get(TMPDIR).cloned().or_else(inherited);
        let temporary = temporary.unwrap_or_else(|| "/tmp".into());
        found.add(normal(&launch.chdir.join(temporary)), true, false);
        found.add(launch.chdir.join(&launch.program), false, false);
        if self.written.wsgi.is_none() {
            return;
        }
        // The interpreter has its modules beside itself, and a virtual environment leads to another one.
        let program = self
            .host
            .file_state(&launch.program)
            .map(|state| state.path);
        for program in program.iter().chain([&launch.program]) {
            let prefix = program.parent().and_then(Path::parent);
            if let Some(prefix) = prefix.filter(|prefix| prefix.parent().is_some()) {
                found.add(prefix, false, false);
            }
        }
        if let Some(extension) = launch.env.get(env::EXTENSION) {
            found.add(extension, false, false);
        }
        for mapped in self.written.static_files.mappings.values() {
            let folder = &mapped.get_ref().0.folder;
            found.add(normal(&self.folder.join(&**folder)), false, false);
        }
    }
}

fn ports(written: &Option<Value<Vec<Port>>>) -> Option<BTreeSet<u16>> {
    let ports = written.as_ref()?.iter();
    Some(ports.map(|port| port.0).collect())
}

/// What this version of Landlock does not restrict; 0 is none.
fn lack(version: u32, ports: bool) -> Option<&'static str> {
    match version {
        0 => Some(
            "the kernel has no Landlock (Linux 5.13), or it is switched off by lsm= of its command line or by SystemCallFilter= of the unit, so nothing is restricted",
        ),
        1..FILES => Some(
            "the kernel does not keep files from being cut off (Linux 6.2), nor restricts ports (Linux 6.7)",
        ),
        FILES..PORTS if ports => Some("the kernel does not restrict ports (Linux 6.7)"),
        _ => None,
    }
}
