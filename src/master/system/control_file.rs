//! The control socket of the master. Its file is looked at again at each reload, and made again when it was removed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::System;
use crate::effects::own_folder;
use crate::effects::path_watch::PathWatch;
use crate::master::world::Source;
use crate::plan::Plan;
use crate::plan::control::{self, Usual};

/// What does not work without a control socket.
const CONSEQUENCE: &str = "status, metrics, reload, scale, stop and reopen will not work";

/// How long the control socket stays removed: its folder may be going to be removed too.
const SETTLES: Duration = Duration::from_millis(100);

/// It is made again at most once in this time: who owns its folder can remove it as often as they like.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum time until it is tried again where it could not be made: what was in the way may go without a sign, as a process that
/// listened there and was killed.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// What the plan says about the control socket.
#[derive(Clone)]
struct Wanted {
    path: PathBuf,
    mode: u32,
    group: Option<u32>,
    /// Where it is if nothing says where it is to be.
    usual: Option<Usual>,
}

impl Wanted {
    /// Makes the folder again if the master makes it, and checks that it is still its user's alone. The operator's folders are not touched.
    fn prepare_folder(&self) -> io::Result<()> {
        let Some(usual) = &self.usual else {
            return Ok(());
        };
        own_folder::prepare(&usual.folder, usual.mode).map_err(|reason| match reason.kind() {
            io::ErrorKind::NotFound => io::Error::other("its folder is missing (create it)"),
            _ => io::Error::other(format!("its folder cannot be used: {reason}")),
        })
    }
}

/// Makes the control socket again when it was removed.
#[derive(Default)]
pub(super) struct ControlKeeper {
    wanted: Option<Wanted>,
    watch: Option<PathWatch>,
    /// When to look at it.
    due: Option<Instant>,
    /// When it was last made, or could not be.
    made: Option<Instant>,
    /// How often in a row it could not be.
    failures: u32,
    /// It was said that it cannot be made.
    told: bool,
    /// It was said that there is none, as no folder for it can be used.
    told_usual: bool,
}

impl ControlKeeper {
    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn is_free(&self) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_some_and(|wanted| is_free(&wanted.path))
    }

    fn look_soon(&mut self) {
        let soon = Instant::now() + SETTLES;
        let at = self.made.map_or(soon, |made| soon.max(made + MIN_INTERVAL));
        self.look_at(at);
    }

    fn look_again(&mut self) {
        let wait = MIN_INTERVAL * 2u32.pow(self.failures.clamp(1, 7) - 1);
        self.look_at(Instant::now() + wait.min(MAX_INTERVAL));
    }

    fn look_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// It was tried to make it.
    fn tried(&mut self, is_made: bool) {
        self.made = Some(Instant::now());
        self.failures = match is_made {
            true => 0,
            false => self.failures.saturating_add(1),
        };
    }
}

/// Removes the control sockets that killed masters of the same user have left in its folder.
fn remove_left_beside(own: &Usual) {
    let is_left = |name: &str| control::is_usual_name(name) && name != own.name;
    let removed = own_folder::remove_left(&own.folder, is_left);
    if removed > 0 {
        let shown = own.folder.display();
        debug!("removed {removed} control sockets of killed masters in {shown}");
    }
}

/// Whether a file could be made at a path, as far as its names tell.
fn is_free(path: &Path) -> bool {
    path.parent().is_some_and(Path::is_dir) && path.symlink_metadata().is_err()
}

impl System {
    /// Listens for commands where the plan says, also if the file of the socket was removed or replaced.
    pub(super) fn keep_control(&mut self, plan: &Plan) {
        let usual = match plan.control {
            Some(_) => None,
            None => self.usual_control(plan),
        };
        let path = plan.control.clone();
        let path = path.or_else(|| usual.as_ref().map(Usual::path));
        self.keeper.wanted = path.map(|path| Wanted {
            path,
            mode: plan.control_mode,
            group: plan.control_group,
            usual,
        });
        let was_free = self.keeper.is_free();
        self.listen_for_commands();
        self.show_control();
        self.watch_control(was_free);
    }

    /// The first of the usual places at which it listens, or can be made to. Nobody has asked for it, so nothing is wrong if there is none.
    fn usual_control(&mut self, plan: &Plan) -> Option<Usual> {
        let mut usual = plan.usual_control.iter();
        if let Some(usual) = usual.find(|usual| self.control.is_at(&usual.path())) {
            return Some(usual.clone());
        }
        let (mode, group) = (plan.control_mode, plan.control_group);
        let mut reasons = Vec::new();
        for usual in &plan.usual_control {
            let path = usual.path();
            let before = self.control.fd();
            let made = own_folder::prepare(&usual.folder, usual.mode)
                .and_then(|()| self.control.listen(&path, mode, group));
            match made {
                Ok(_) => {
                    before.into_iter().for_each(|fd| self.watches.remove(fd));
                    self.poll_control(&path);
                    debug!("the control socket is {}", path.display());
                    remove_left_beside(usual);
                    return Some(usual.clone());
                }
                Err(reason) => {
                    let shown = path.display();
                    // The name says which configuration it is.
                    if reason.kind() == io::ErrorKind::AddrInUse {
                        warn!(
                            "the control socket {shown} is in use: {reason}; another master may run with this configuration: commands reach that one, and its apps run twice"
                        );
                    }
                    reasons.push(format!("{}: {reason}", usual.folder.display()));
                }
            }
        }
        if !self.keeper.told_usual && !reasons.is_empty() {
            self.keeper.told_usual = true;
            info!(
                "no control socket, as no folder for it can be used ({}); {CONSEQUENCE} (to have one, set `control` in [master])",
                reasons.join("; ")
            );
        }
        None
    }

    /// Something has happened to the file of the control socket, or it is time to look at it.
    pub(super) fn look_at_control(&mut self, has_event: bool) {
        let keeper = &mut self.keeper;
        if has_event && keeper.watch.as_mut().is_some_and(PathWatch::has_changed) {
            keeper.look_soon();
        }
        if keeper.due.is_none_or(|at| at > Instant::now()) {
            return;
        }
        keeper.due = None;
        let was_free = keeper.is_free();
        let wanted = keeper.wanted.as_ref();
        if wanted.is_some_and(|wanted| !self.control.is_at(&wanted.path)) {
            self.make_control_again();
            self.show_control();
        }
        self.watch_control(was_free);
    }

    fn make_control_again(&mut self) {
        let Some(wanted) = self.keeper.wanted.clone() else {
            return;
        };
        let path = &wanted.path;
        let shown = path.display();
        let before = self.control.fd();
        let made = wanted
            .prepare_folder()
            .and_then(|()| self.control.listen(path, wanted.mode, wanted.group));
        self.keeper.tried(made.is_ok());
        match made {
            Ok(replaced) => {
                before.into_iter().for_each(|fd| self.watches.remove(fd));
                self.keeper.told = false;
                match replaced {
                    Some(_) => info!("the control socket {shown} was removed; made it again"),
                    None => info!("the control socket is now {shown}"),
                }
                self.poll_control(path);
            }
            Err(reason) if !self.keeper.told => {
                self.keeper.told = true;
                warn!(
                    "the control socket {shown} was removed and cannot be made again: {reason}; {CONSEQUENCE} until it can"
                );
            }
            Err(reason) => debug!("no control socket at {shown}: {reason}"),
        }
    }

    /// Watches the file of the control socket, or for the time when it can be made.
    fn watch_control(&mut self, was_free: bool) {
        let Some(path) = self
            .keeper
            .wanted
            .as_ref()
            .map(|wanted| wanted.path.clone())
        else {
            if let Some(watch) = self.keeper.watch.take() {
                self.watches.remove(watch.fd());
            }
            return;
        };
        if self.keeper.watch.is_none() {
            self.keeper.watch = self.new_watch();
        }
        let is_there = self.control.is_at(&path);
        let Some(watch) = &mut self.keeper.watch else {
            return;
        };
        let watched = match is_there {
            true => watch.watch_file(&path),
            false => watch.watch_for(&path),
        };
        if let Err(error) = watched {
            let shown = path.display();
            debug!("cannot watch {shown}: {error}; what happens to it is seen at a reload");
        }
        if !is_there {
            self.keeper.look_again();
        }
        // It may have happened before it was watched.
        if is_there != self.control.is_at(&path) || !is_there && was_free != is_free(&path) {
            self.keeper.look_soon();
        }
    }

    fn new_watch(&mut self) -> Option<PathWatch> {
        let made = PathWatch::new().and_then(|watch| {
            self.watches
                .add_readable(watch.fd(), Source::ControlFile)
                .map(|()| watch)
        });
        made.inspect_err(|error| {
            warn!(
                "cannot watch the control socket: {error}; if it is removed, only a reload makes it again"
            );
        })
        .ok()
    }

    /// Tells commands where the control socket is.
    fn show_control(&mut self) {
        let shown = self
            .beacon
            .as_ref()
            .map(|beacon| beacon.show(self.control.path()));
        if let Some(Err(error)) = shown {
            warn!(
                "cannot tell where the control socket is: {error}; commands search for it by the configuration only"
            );
        }
    }

    fn listen_for_commands(&mut self) {
        let before = self.control.fd();
        let Some(Wanted {
            path, mode, group, ..
        }) = self.keeper.wanted.clone()
        else {
            before.into_iter().for_each(|fd| self.watches.remove(fd));
            return self.control.stop_listening();
        };
        let shown = path.display();
        self.keeper.told = false;
        if self.control.is_at(&path) {
            if let Err(reason) = self.control.change(mode, group) {
                warn!("cannot change the control socket {shown}: {reason}");
            }
            return;
        }
        let made = self.control.listen(&path, mode, group);
        self.keeper.tried(made.is_ok());
        match made {
            Ok(None) => {}
            Ok(Some(replaced)) => {
                before.into_iter().for_each(|fd| self.watches.remove(fd));
                drop(replaced);
                info!("the control socket is now {shown}");
            }
            Err(reason) if before.is_none() => {
                self.keeper.told = true;
                return warn!(
                    "no control socket at {shown}: {reason}; {CONSEQUENCE} until it can be made"
                );
            }
            Err(reason) => {
                self.keeper.told = true;
                return warn!(
                    "no control socket at {shown}: {reason}; commands reach the master where they did before"
                );
            }
        }
        self.poll_control(&path);
    }

    fn poll_control(&mut self, path: &Path) {
        let shown = path.display();
        let watched = self
            .control
            .fd()
            .map(|fd| self.watches.add_readable(fd, Source::Clients));
        if let Some(Err(error)) = watched {
            warn!("cannot watch the control socket {shown}: {error}; {CONSEQUENCE}");
        }
    }
}
