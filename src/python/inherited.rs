//! What an application has opened or started while it was loaded, and forked workers cannot share: closed where that can be
//! done, named where it cannot.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::PyList;
use rustix::net::sockopt::socket_type;
use rustix::net::{SocketAddrAny, SocketAddrUnix, SocketType, getpeername};

use crate::sys;

/// Django's backend whose connections may come from a pool.
const POOLING: &str = "django.db.backends.postgresql.base";

/// Closes what Django has opened to databases. Here and not in the worker: to close a connection there would say goodbye on a
/// socket that the template and all other workers share.
pub(crate) fn close_databases(py: Python<'_>) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    if !modules.contains("django.db")? {
        return Ok(());
    }
    // Without settings it has no connections, and does not know of which databases.
    let settings = py.import("django.conf")?.getattr("settings")?;
    if !settings.getattr("configured")?.is_truthy()? {
        return Ok(());
    }
    let connections = modules.get_item("django.db")?.getattr("connections")?;
    connections.call_method0("close_all")?;
    if !modules.contains(POOLING)? {
        return Ok(());
    }
    let backend = modules.get_item(POOLING)?.getattr("DatabaseWrapper")?;
    // A pool has only got its connection back. Whether there is one is not asked of `pool`, which would make it.
    let Some(pools) = backend.getattr_opt("_connection_pools")? else {
        return Ok(());
    };
    for alias in connections.try_iter()? {
        let alias = alias?;
        if pools.contains(&alias)? {
            connections.get_item(alias)?.call_method0("close_pool")?;
        }
    }
    Ok(())
}

/// Warns of threads.
pub(crate) fn tell_of_threads(py: Python<'_>) -> PyResult<()> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        let names: Vec<String> = py
            .import("threading")?
            .call_method0("enumerate")?
            .cast::<PyList>()?
            .iter()
            .map(|thread| thread.getattr("name").map(|name| name.to_string()))
            .collect::<PyResult<_>>()?;
        log::warn!(
            "the application started threads while it was loaded ({threads} in all; Python knows {}): a forked worker does not have \
             them, and locks that they hold stay locked (start them later, or set preload = false)",
            names.join(", ")
        );
    }
    Ok(())
}

/// Warns of connections, other than over `ours` and the standard streams.
pub(crate) fn tell_of_connections(ours: &[&Option<OwnedFd>]) {
    let ours = ours.iter().copied().flatten().map(AsRawFd::as_raw_fd);
    let known: Vec<_> = (0..=2).chain(ours).filter_map(socket).collect();
    let peers: BTreeSet<String> = descriptors()
        .filter(|&fd| socket(fd).is_some_and(|name| !known.contains(&name)))
        .filter_map(peer)
        .collect();
    if !peers.is_empty() {
        let peers = peers.into_iter().collect::<Vec<_>>().join(", ");
        log::warn!(
            "the application opened connections while it was loaded (to {peers}): all workers share them, and their traffic mixes \
             unless the library notices the fork (open them in the workers: at the first use, or with \
             os.register_at_fork(after_in_child=...); or set preload = false)"
        );
    }
}

/// All descriptors of the process.
fn descriptors() -> impl Iterator<Item = RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// What the kernel calls the socket behind a descriptor, the same for all of its descriptors; none for anything else. To look at
/// a file by a descriptor of one's own, and close that, would give up the locks that the process has on it.
fn socket(fd: RawFd) -> Option<String> {
    let name = fs::read_link(Path::new("/proc/self/fd").join(fd.to_string())).ok()?;
    let name = name.to_str()?;
    name.starts_with("socket:").then(|| name.to_owned())
}

/// Whom a socket is connected to; none if several processes may well use it: it has datagrams, or its ends have no names,
/// as those of a pair have none.
fn peer(fd: RawFd) -> Option<String> {
    let socket = sys::duplicate(fd).ok()?;
    let kind = socket_type(&socket).ok()?;
    if kind != SocketType::STREAM && kind != SocketType::SEQPACKET {
        return None;
    }
    name(&getpeername(&socket).ok()??)
}

/// An address in words.
fn name(address: &SocketAddrAny) -> Option<String> {
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return Some(SocketAddr::new(address.ip().to_canonical(), address.port()).to_string());
    }
    let address = SocketAddrUnix::try_from(address.clone()).ok()?;
    match (address.path(), address.abstract_name()) {
        (Some(path), _) => Some(path.to_bytes().escape_ascii().to_string()),
        (_, Some(name)) if !name.is_empty() => Some(format!("@{}", name.escape_ascii())),
        _ => None,
    }
}
