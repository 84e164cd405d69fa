//! What the master hands over at the start and while the worker runs ([`preforkd_worker::updates`]).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use preforkd_worker::acme::Challenges;
use preforkd_worker::front::{Certificates, Settings};
use preforkd_worker::updates::{Kind, Ready, TicketKey};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use zeroize::Zeroizing;

use crate::proofs::Proofs;
use crate::scope::Policies;
use crate::terms;
use crate::tls::Listeners;
use crate::tls::tickets::{self, Key, Keys};

/// Room for the name of a kind, and of what it is about.
const PACKET: usize = 512;

/// The updates of this worker, and what they change.
#[derive(Debug)]
pub struct Updates {
    socket: Option<OwnedFd>,
    /// The master is gone: nothing more comes.
    over: bool,
    /// How many have come.
    number: u64,
    keys: Arc<Keys>,
    /// What has come and was not taken, in the order in which it came.
    upstreams: VecDeque<Ready>,
    settings: Arc<Settings>,
    /// The names of the listeners of all sockets.
    sockets: Vec<String>,
    listeners: Listeners,
    policies: Arc<Policies>,
    proofs: Arc<Proofs>,
}

impl Updates {
    /// Takes those with which the worker starts, which the master has sent before. `sockets` are the names of the listeners of all
    /// sockets, in the order of the sockets.
    ///
    /// # Errors
    /// One is missing or cannot be read, or a certificate cannot be used; the whole message.
    pub fn begin(
        socket: Option<OwnedFd>,
        settings: &Arc<Settings>,
        sockets: &[String],
    ) -> Result<Self, String> {
        let mut updates = Self {
            socket,
            over: false,
            number: 0,
            keys: Keys::new(&[]),
            upstreams: VecDeque::new(),
            settings: settings.clone(),
            sockets: sockets.into(),
            listeners: Listeners::default(),
            policies: Arc::default(),
            proofs: Arc::default(),
        };
        let mut kinds = Vec::new();
        while let Some((kind, json)) = updates.next().map_err(|error| unread(&error))? {
            updates.apply(kind, &json)?;
            kinds.push(kind);
        }
        if !kinds.contains(&Kind::Tickets) {
            return Err(unread(&"the keys of session tickets did not come"));
        }
        if !kinds.contains(&Kind::Certificates) {
            updates.use_certificates(&Certificates::default())?;
        }
        Ok(updates)
    }

    /// None: nobody sends any.
    pub fn none(settings: &Arc<Settings>) -> Self {
        Self {
            socket: None,
            over: false,
            number: 0,
            keys: Keys::new(&[]),
            settings: settings.clone(),
            sockets: Vec::new(),
            listeners: Listeners::default(),
            policies: Arc::default(),
            proofs: Arc::default(),
            upstreams: VecDeque::new(),
        }
    }

    /// What is agreed on with clients, as the latest updates say.
    pub fn listeners(&self) -> Listeners {
        self.listeners.clone()
    }

    /// Which certificates of clients the sites ask for, as the latest updates say.
    pub fn policies(&self) -> Arc<Policies> {
        self.policies.clone()
    }

    /// What requests of a certificate authority are answered with, as the latest updates say.
    pub fn proofs(&self) -> Arc<Proofs> {
        self.proofs.clone()
    }

    /// The socket to watch.
    pub fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    /// Whether the master is gone.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// How many have come, also those that could not be read.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next app of which the master has told where its workers are.
    pub fn next_upstream(&mut self) -> Option<Ready> {
        self.upstreams.pop_front()
    }

    /// Takes what has come. What cannot be read changes nothing.
    pub fn take(&mut self) {
        loop {
            let applied = match self.next() {
                Ok(None) => return,
                Ok(Some((kind, json))) => self.apply(kind, &json),
                Err(error) => Err(unread(&error)),
            };
            if let Err(why) = applied {
                log::error!("{why}; going on with what was known before");
            }
        }
    }

    /// The next one; none if there is none now, or the master is gone.
    fn next(&mut self) -> io::Result<Option<(Kind, Zeroizing<String>)>> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        let mut bytes = [0; PACKET];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut room = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = loop {
            match recvmsg(socket, &mut parts, &mut room, flags) {
                Ok(received) if received.bytes > 0 => break received,
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::CONNRESET) => {
                    self.over = true;
                    return Ok(None);
                }
                Err(_) => return Ok(None),
            }
        };
        self.number += 1;
        let file = room.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let kind = Kind::parse(&bytes[..received.bytes]).map(|(kind, _)| kind);
        let kind = kind.filter(|_| !received.flags.contains(ReturnFlags::TRUNC));
        let (Some(kind), Some(file)) = (kind, file) else {
            return Err(io::Error::other("a packet of an unknown form"));
        };
        Ok(Some((kind, read_shared(file)?)))
    }

    fn apply(&mut self, kind: Kind, json: &str) -> Result<(), String> {
        match kind {
            Kind::Tickets => self.keys.replace(&ticket_keys(json)?),
            Kind::Upstream => {
                let ready = Ready::parse(json.as_bytes()).map_err(|error| unread(&error))?;
                self.upstreams.push_back(ready);
            }
            Kind::Certificates => {
                let certificates = Certificates::parse(json).map_err(|error| unread(&error))?;
                self.use_certificates(&certificates)?;
            }
            Kind::Challenges => {
                let challenges = Challenges::parse(json).map_err(|error| unread(&error))?;
                self.proofs.replace(&challenges.http);
                let replaced = self.listeners.proofs().replace(&challenges.tls);
                replaced.map_err(|error| unread(&error))?;
            }
        }
        Ok(())
    }

    fn use_certificates(&self, all: &Certificates) -> Result<(), String> {
        let agreed = terms::addresses(&self.settings, all, &self.sockets, &self.keys)?;
        self.policies.replace(agreed.policies);
        self.listeners.replace(agreed.addresses);
        Ok(())
    }
}

fn unread(why: &dyn std::fmt::Display) -> String {
    format!("could not read an update of the master: {why}")
}

/// All of a file whose position other processes share.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read_shared(file: OwnedFd) -> io::Result<Zeroizing<String>> {
    let file = File::from(file);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(vec![0; length]);
    file.read_exact_at(&mut bytes, 0)?;
    match str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The keys, with times of our clock.
fn ticket_keys(json: &str) -> Result<Vec<Key>, String> {
    let told: Vec<TicketKey> = serde_json::from_str(json).map_err(|error| unread(&error))?;
    let now = tickets::now();
    let key = |mut told: TicketKey| {
        let digits = Zeroizing::new(std::mem::take(&mut told.secret));
        let secret = secret(&digits).ok_or_else(|| unread(&"a key has no 64 digits"))?;
        let (from, until) = (now + told.begins_in, now + told.ends_in);
        Ok(Key::new(*secret, from, until))
    };
    told.into_iter().map(key).collect()
}

/// The bytes of 64 hexadecimal digits.
fn secret(digits: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    let is_whole = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    for (at, byte) in secret.iter_mut().enumerate().filter(|_| is_whole) {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    is_whole.then_some(secret)
}
