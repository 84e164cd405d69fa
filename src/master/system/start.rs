//! Starting processes with what the contract promises them, and reading what they write until they are ready.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use log::warn;
use nix::unistd::Pid;
use preforkd_worker::stderr;

use super::System;
use super::templates::stop_order;
use crate::config::Stdin;
use crate::effects::launch::{Contract, Output, launch};
use crate::effects::log_files::LogFiles;
use crate::effects::private;
use crate::effects::sealed::sealed;
use crate::effects::tail::{Destination, ReadState, Tail};
use crate::effects::template::Template;
use crate::launcher::progress::Launching;
use crate::master::world::{Private, Role, Source, Start};
use crate::plan::LogFile;

/// A process whose output has log writers of its own, if it gets a prefix.
#[derive(Clone, Copy)]
struct Own {
    slot: Option<u32>,
    /// A number that no other process has.
    process: u64,
}

impl Own {
    fn of(self, file: &LogFile) -> LogFile {
        file.of_process(self.slot, self.process)
    }
}

impl System {
    /// Starts a process, and polls its progress and its output.
    pub(super) fn start_process(&mut self, start: &Start) -> io::Result<Pid> {
        // Its launch may lack the user, and must not run as that of the master.
        if let Some(why) = &start.plan.unfit {
            return Err(io::Error::other(why.clone()));
        }
        self.started += 1;
        let own = Own {
            slot: start.role.slot(),
            process: self.started,
        };
        let is_check = matches!(start.role, Role::Check(_));
        let files = match is_check {
            true => Vec::new(),
            false => self.open_output(start, own),
        };
        let started = self.start_with_output(start, own);
        match started {
            Err(_) => self.log_files.close(&files),
            Ok(pid) if !files.is_empty() => {
                self.own_output.insert(pid, files);
            }
            Ok(_) => {}
        }
        started
    }

    fn start_with_output(&mut self, start: &Start, own: Own) -> io::Result<Pid> {
        let private = self.private(start);
        let tail = match start.captured {
            true if matches!(start.role, Role::Check(_)) => Some(Tail::quoted_only()?),
            true => Self::tail(start, own),
            false => None,
        };
        let (tail, theirs) = tail.unzip();
        let is_ours = matches!(start.role, Role::Worker(..)) && start.plan.output.taken_over;
        let (stop, their_stop) = is_ours.then(|| stop_order(start)).flatten().unzip();
        let their_stop = their_stop.as_ref().map(AsFd::as_fd);
        let settings = start.launch.settings.as_ref();
        let settings = settings.map(|settings| sealed(&settings.0)).transpose()?;
        let own_listener = match start.role {
            Role::Worker(_, Some(record)) => self.own_listeners.take(start.app, record),
            _ => None,
        };
        let updates = settings.as_ref();
        let updates = updates.map(|_| self.first_updates(start.plan.certificates.as_ref()));
        let (updates, their_updates) = updates.transpose()?.unzip();
        let mut contract = self.contract(start, own, private.as_ref(), theirs.as_ref(), their_stop);
        contract.front = settings.as_ref().map(AsFd::as_fd);
        contract.own = own_listener.as_ref().map(AsFd::as_fd);
        contract.updates = their_updates.as_ref().map(AsFd::as_fd);
        let board = self.scoreboards.get(start.app);
        let board = board.filter(|_| settings.is_some());
        contract.wake = board.map(|board| board.wake()).transpose()?;
        let own_address = start.plan.own_address.as_ref();
        let (pid, launching, template) = match start.role {
            Role::Template => {
                let (template, launching) = Template::start(start.launch, contract)?;
                (template.pid, launching, Some(template))
            }
            Role::Worker(..) | Role::Job | Role::Check(_) | Role::Run => {
                let reserved =
                    own_address.filter(|_| matches!(start.role, Role::Worker(..) | Role::Run));
                let reserved = reserved.map(|wanted| self.addresses.reserve(wanted));
                let reserved = reserved.transpose()?;
                let filled = reserved.as_ref().map(|own| start.launch.at(own.address));
                let (pid, launching) = launch(filled.as_ref().unwrap_or(start.launch), &contract)?;
                if let Some(reserved) = reserved {
                    self.addresses.hold(pid, reserved);
                }
                (pid, launching, None)
            }
        };
        self.guarded.started(start, pid);
        if let Some(template) = template {
            if let Err(error) = self
                .watches
                .add_readable(template.fd(), Source::Template(pid))
            {
                warn!("{start} pid={pid}: cannot watch its socket: {error}");
            }
            self.templates.insert(pid, template);
        }
        if let Some(stop) = stop {
            self.stop_orders.insert(pid, stop);
        }
        if let Some(updates) = updates {
            self.follow_updates(pid, updates);
            if let Role::Worker(_, Some(record)) = start.role {
                self.fronts.insert(pid, (start.app.clone(), record));
            }
        }
        self.follow(pid, launching, tail);
        Ok(pid)
    }

    /// Polls the pipes of a process that was started: its progress and its output.
    fn follow(&mut self, pid: Pid, launching: Launching, tail: Option<Tail>) {
        if let Err(error) = self
            .watches
            .add_readable(launching.as_raw_fd(), Source::Launch(pid))
        {
            // A failure is then seen when the process is reaped.
            warn!("cannot watch the start of pid={pid}: {error}");
        }
        self.launching.insert(pid, launching);
        if let Some(tail) = tail {
            if let Err(error) = self.watches.add_readable(tail.fd(), Source::Stderr(pid)) {
                warn!("cannot watch the output of pid={pid}: {error}");
            }
            self.tails.insert(pid, tail);
        }
    }

    /// The private listener of a process; it is kept if it will be probed.
    fn private(&mut self, start: &Start) -> Option<OwnedFd> {
        if start.private == Private::None {
            return None;
        }
        let made = private::Private::new().and_then(|private| {
            let theirs = private.socket().try_clone_to_owned()?;
            Ok((private, theirs))
        });
        let (private, theirs) = made
            .inspect_err(|error| warn!("{start}: cannot create a listener for its check: {error}"))
            .ok()?;
        // An unused one is dropped, so no one can connect to it.
        if start.private == Private::Probed {
            self.privates.insert(start.app.clone(), private);
        }
        Some(theirs)
    }

    /// Starts the log writers of a process, if its lines have a prefix, and returns their files.
    fn open_output(&mut self, start: &Start, own: Own) -> Vec<LogFile> {
        let output = &start.plan.output;
        let files = [&output.stdout, &output.stderr].into_iter().flatten();
        let files = files.filter(|file| file.prefix.is_some());
        let mut opened = Vec::new();
        for file in files.map(|file| own.of(file)) {
            match self.log_files.open_for_process(&file) {
                Ok(()) => opened.push(file),
                Err(error) => {
                    warn!(
                        "{start}: {error}; its output goes to that of preforkd, without a prefix"
                    );
                }
            }
        }
        opened
    }

    /// The output of a process. One whose output is read while it starts switches to that of the others when it is ready.
    fn output<'a>(&'a self, start: &Start, own: Own, theirs: Option<&'a OwnedFd>) -> Output<'a> {
        let plan = start.plan;
        let file = |file: &Option<LogFile>| self.log_files.input(&own.of(file.as_ref()?));
        let stderr: Option<BorrowedFd> = file(&plan.output.stderr);
        let theirs = theirs.map(AsFd::as_fd);
        if matches!(start.role, Role::Check(_)) {
            // What it says is quoted if it fails.
            return Output {
                stdout: theirs,
                stderr: theirs,
                ..Output::default()
            };
        }
        Output {
            stdout: file(&plan.output.stdout),
            stderr: theirs.or(stderr),
            stderr_later: theirs
                .filter(|_| plan.output.taken_over)
                .map(|_| stderr.unwrap_or(self.errors.as_fd())),
            access_log: file(&plan.output.access_log),
        }
    }

    fn contract<'a>(
        &'a self,
        start: &Start<'a>,
        own: Own,
        private: Option<&'a OwnedFd>,
        theirs: Option<&'a OwnedFd>,
        stop: Option<BorrowedFd<'a>>,
    ) -> Contract<'a> {
        let is_job = matches!(start.role, Role::Job | Role::Check(_) | Role::Run);
        let listeners = || start.plan.sockets.iter().filter(|_| !is_job);
        let sockets = |at| self.listeners.sockets(at, start.generation);
        let first = listeners().filter_map(|(name, at)| Some((name.as_str(), sockets(at).next()?)));
        // Further sockets of the same listener come last, where they do not change the numbers of the others.
        let further = listeners()
            .flat_map(|(name, at)| sockets(at).skip(1).map(|socket| (name.as_str(), socket)));
        let board = self.scoreboards.get(start.app);
        let (slot, record) = match start.role {
            Role::Worker(slot, record) => (Some(slot), record),
            Role::Check(slot) => (Some(slot), None),
            Role::Template | Role::Job | Role::Run => (None, None),
        };
        let is_check = matches!(start.role, Role::Check(_));
        let notify = self.notify.address(start.app).filter(|_| !is_check);
        let has_record = record.is_some() || start.role == Role::Template;
        let mut contract = Contract {
            app: start.app,
            slot,
            generation: start.generation,
            sockets: first.collect(),
            notify_socket: notify.unwrap_or_default(),
            scoreboard: board
                .filter(|_| has_record)
                .map(|board| (board.fd(), record)),
            template: None,
            check: None,
            stop,
            front: None,
            own: None,
            updates: None,
            wake: None,
            stdin: None,
            on_master_death: start.plan.stop.signal.into(),
            is_ours: start.plan.output.taken_over && !is_job,
            output: self.output(start, own, theirs),
        };
        let first = contract.sockets.first().map(|(_, socket)| *socket);
        contract.stdin = first.filter(|_| start.plan.stdin == Stdin::Listener);
        let known = start.plan.output.taken_over;
        contract.add_private(private.map(AsFd::as_fd), known);
        contract.sockets.extend(further);
        contract
    }

    /// A pipe for the standard error of a process that is about to start; `None` if it cannot be created.
    fn tail(start: &Start, own: Own) -> Option<(Tail, OwnedFd)> {
        let stderr = start.plan.output.stderr.as_ref();
        let tail = Tail::new(stderr.map(|file| own.of(file)));
        tail.inspect_err(|error| {
            warn!("{start}: cannot read its output while it starts: {error}");
        })
        .ok()
    }

    /// Reads the standard error of a process, and forwards it.
    pub(super) fn read_tail(
        &mut self,
        pid: Pid,
        read: impl FnOnce(&mut Tail, &mut dyn FnMut(&[u8])) -> ReadState,
    ) -> ReadState {
        let Some(tail) = self.tails.get_mut(&pid) else {
            return ReadState::End;
        };
        let to = tail.to.clone();
        read(tail, &mut |bytes| forward(&self.log_files, &to, bytes))
    }
}

/// Forwards output to where a process will write it itself.
pub(super) fn forward(files: &LogFiles, to: &Destination, bytes: &[u8]) {
    let file = match to {
        Destination::Nowhere => return,
        Destination::Stderr => None,
        Destination::File(file) => files.input(file),
    };
    match file {
        Some(pipe) => stderr::forward(pipe, bytes),
        None => stderr::forward(io::stderr(), bytes),
    }
}
