//! The path of the control socket.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Host, identity, variables};
use crate::config::{Master, Place};

/// The mode of the socket: for its owner, or for its owner and group.
const PRIVATE: u32 = 0o600;
const OF_GROUP: u32 = 0o660;

/// Checks the configured path.
///
/// # Errors
/// It is empty, or an address.
pub(super) fn check(master: &Master) -> Result<(), Place> {
    let Some(control) = &master.control else {
        return Ok(());
    };
    if control.as_os_str().is_empty() {
        return Err(control.wrong(
            "control: must be the path of a socket, not \"\" (remove the key for the usual path)",
        ));
    }
    match control.to_str().and_then(|text| text.strip_prefix("unix:")) {
        Some(path) => Err(control.wrong(format!(
            "control: must be the path of a socket, not an address (write {path:?})"
        ))),
        None => Ok(()),
    }
}

/// Mode and group of the socket.
pub(super) fn rights(master: &Master, host: &dyn Host) -> Result<(u32, Option<u32>), Place> {
    let group = master.control_group.as_ref();
    let group = group.map(|group| identity::group("control_group", group, host));
    let group = group.transpose()?;
    let default = if group.is_some() { OF_GROUP } else { PRIVATE };
    let mode = master.control_mode.as_ref().map_or(default, |mode| mode.0);
    Ok((mode, group))
}

/// The name of the socket in a folder of the service.
const NAME: &str = "preforkd.sock";

/// The folder of the service where the init system names none: the usual one of a service of this name.
const FOLDER: &str = "/run/preforkd";

/// As configured, else beside the pid file, else in the runtime directory of the service.
pub(super) fn place(
    control: Option<&Path>,
    pid_file: Option<&Path>,
    folder: &Path,
    host: &dyn Host,
) -> Option<PathBuf> {
    let place = written(control, pid_file).or_else(|| in_runtime_directory(host))?;
    Some(folder.join(place))
}

fn written(control: Option<&Path>, pid_file: Option<&Path>) -> Option<PathBuf> {
    let beside = || pid_file.map(|path| path.with_extension("sock"));
    control.map(Path::to_owned).or_else(beside)
}

/// systemd.exec(5): several folders are separated by colons.
fn in_runtime_directory(host: &dyn Host) -> Option<PathBuf> {
    let all = host.variable("RUNTIME_DIRECTORY")?;
    Some(Path::new(all.split(':').next()?).join(NAME))
}

/// What the name of a socket in a usual folder begins and ends with. In between is a number of 16 hexadecimal digits.
const BEGIN: &str = "preforkd-";
const END: &str = ".sock";

/// Whether a master gives a socket in a usual folder such a name.
pub fn is_usual_name(name: &str) -> bool {
    let number = name
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END));
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    number.is_some_and(|number| number.len() == 16 && number.bytes().all(is_digit))
}

/// A folder in which a master may listen, if nothing says where it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usual {
    /// The folder.
    #[serde(with = "super::lossless")]
    pub folder: PathBuf,
    /// The mode to make it with, if it may be made.
    pub mode: Option<u32>,
    /// The name of the socket in it.
    pub name: String,
}

impl Usual {
    /// The path of the socket.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }
}

/// The folders in which a master with the configuration `file` may listen, in the order in which they are tried. Each must be its user's
/// alone. The path of the configuration counts as it is given: behind a link are other releases, and the path of a socket is short.
pub(super) fn usual(file: &Path, host: &dyn Host) -> Vec<Usual> {
    let user = host.own_ids().0;
    let name = format!("{BEGIN}{:016x}{END}", hash(&host.absolute(file)));
    let runtime = host.variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute());
    let of_user = Path::new("/tmp").join(format!("preforkd-{user}"));
    let folders = [
        // Only root can make it.
        Some((FOLDER.into(), (user == 0).then_some(0o755))),
        runtime.map(|folder| (folder, None)),
        Some((of_user, Some(0o700))),
    ];
    let usual = folders.into_iter().flatten();
    usual
        .map(|(folder, mode)| Usual {
            folder,
            mode,
            name: name.clone(),
        })
        .collect()
}

/// Whether a master makes this folder for its control socket.
pub fn is_made(folder: &Path) -> bool {
    let of_user = folder.strip_prefix("/tmp/").ok();
    let user = of_user.and_then(|name| name.to_str()?.strip_prefix("preforkd-"));
    folder == Path::new(FOLDER) || user.is_some_and(|user| user.parse::<u32>().is_ok())
}

/// A number that follows from a path: FNV-1a.
pub(super) fn hash(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Where a master with this configuration may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where the file says.
    pub written: Option<PathBuf>,
    /// Where it may be otherwise, in a folder of its service. Another master may be there.
    pub of_service: Vec<PathBuf>,
    /// Where it may be if nothing says where.
    pub usual: Vec<Usual>,
}

impl Places {
    /// The places by the text of a configuration file, which may be faulty: a running master stays reachable while its
    /// configuration is edited.
    pub fn find(text: &str, file: &Path, host: &dyn Host) -> Self {
        let file = host.absolute(file);
        let folder = file.parent().unwrap_or(Path::new("/"));
        let master = match text.parse::<toml::Table>() {
            Ok(table) => master_of(table),
            Err(_) => legible_part(text),
        };
        let path = |key: &str| {
            let written = master.get(key)?.as_str()?;
            Some(PathBuf::from(variables::expanded(written, host)?))
        };
        let written = written(path("control").as_deref(), path("pid_file").as_deref());
        Self {
            written: written.map(|path| folder.join(path)),
            of_service: in_runtime_directory(host)
                .into_iter()
                .chain([Path::new(FOLDER).join(NAME)])
                .collect(),
            usual: usual(&file, host),
        }
    }
}

/// The table `master` of a file.
fn master_of(mut file: toml::Table) -> toml::Table {
    match file.remove("master") {
        Some(toml::Value::Table(master)) => master,
        _ => toml::Table::new(),
    }
}

/// What can be read of the table `master` in a file with errors, line by line.
fn legible_part(text: &str) -> toml::Table {
    let mut found = toml::Table::new();
    // The header of the current table; none at the beginning.
    let (mut begun, mut in_master) = (false, false);
    for line in text.lines() {
        let table = line.parse::<toml::Table>();
        if line.trim_start().starts_with('[') {
            let is_master = |table: toml::Table| table.len() == 1 && table.contains_key("master");
            (begun, in_master) = (true, table.is_ok_and(is_master));
        } else if let Ok(table) = table {
            match (in_master, begun) {
                (true, _) => found.extend(table),
                (false, false) => found.extend(master_of(table)),
                (false, true) => {}
            }
        }
    }
    found
}
