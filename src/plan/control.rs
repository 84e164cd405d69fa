//! The path of the control socket.

use std::path::{Path, PathBuf};

use super::{Host, identity};
use crate::config::{Master, Place};

/// The mode of the socket: for its owner, or for its owner and group.
const PRIVATE: u32 = 0o600;
const OF_GROUP: u32 = 0o660;

/// Mode and group of the socket.
pub(super) fn rights(master: &Master, host: &dyn Host) -> Result<(u32, Option<u32>), Place> {
    let group = master.control_group.as_ref();
    let group = group.map(|group| identity::group("control_group", group, host));
    let group = group.transpose()?;
    let default = if group.is_some() { OF_GROUP } else { PRIVATE };
    let mode = master.control_mode.as_ref().map_or(default, |mode| mode.0);
    Ok((mode, group))
}

/// As configured, else beside the pid file, else in the runtime directory of the service.
pub(super) fn place(
    control: Option<&Path>,
    pid_file: Option<&Path>,
    folder: &Path,
    host: &dyn Host,
) -> Option<PathBuf> {
    let beside = || pid_file.map(|path| path.with_extension("sock"));
    // systemd.exec(5): several are separated by colons.
    let runtime = || {
        let all = host.variable("RUNTIME_DIRECTORY")?;
        Some(Path::new(all.split(':').next()?).join("preforkd.sock"))
    };
    let place = control
        .map(Path::to_owned)
        .or_else(beside)
        .or_else(runtime)?;
    Some(folder.join(place))
}

/// The same for a file that may be faulty. Only these two keys are read, so that a running master stays reachable while its
/// configuration is edited.
pub fn find(text: &str, file: &Path, host: &dyn Host) -> Option<PathBuf> {
    let file = host.absolute(file);
    let folder = file.parent().unwrap_or(Path::new("/"));
    let table = text
        .lines()
        .skip_while(|line| line.trim() != "[master]")
        .skip(1);
    let lines: Vec<&str> = table
        .take_while(|line| !line.trim_start().starts_with('['))
        .collect();
    let value = |key: &str| {
        let line = lines
            .iter()
            .find(|line| line.split('=').next().is_some_and(|k| k.trim() == key))?;
        let table: toml::Table = line.parse().ok()?;
        Some(PathBuf::from(table.get(key)?.as_str()?))
    };
    place(
        value("control").as_deref(),
        value("pid_file").as_deref(),
        folder,
        host,
    )
}
