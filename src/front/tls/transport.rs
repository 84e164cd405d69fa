//! The transport of a connection with TLS, and of one that may have it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use preforkd_http::descriptors::Own;
use preforkd_http::standing::Standing;
use preforkd_http::{Origin, Plain, Single, Slice, Tls, Transport};
use preforkd_worker::counters::Handshakes;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls::server::{Accepted, Acceptor};
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use super::certificate;
use super::proofs::Proofs;
use super::terms::{Address, Terms};

/// Bytes that a connection holds for its client at most, encrypted. More than [`PIECE`] with what encryption adds.
const HELD: usize = 72 * 1024;
/// Bytes of a file that are encrypted at a time.
const PIECE: usize = 64 * 1024;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 70\r\n\
    Connection: close\r\n\r\n400 Bad Request: plain HTTP was sent to a port for TLS (use https://)\n";

thread_local! {
    /// A piece of a file on its way, for all connections of a thread.
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The addresses of a server by the numbers of its listeners; none speaks plain. They can be exchanged: connections keep what they
/// have begun with.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    addresses: Arc<Mutex<Vec<Option<Arc<Address>>>>>,
    proofs: Proofs,
    handshakes: Option<Handshakes>,
}

impl Listeners {
    /// These. Listeners beyond their number speak plain.
    pub fn new(addresses: Vec<Option<Arc<Address>>>) -> Self {
        Self {
            addresses: Arc::new(Mutex::new(addresses)),
            proofs: Proofs::default(),
            handshakes: None,
        }
    }

    /// The same; handshakes are counted there.
    pub fn counted(self, handshakes: Option<Handshakes>) -> Self {
        Self { handshakes, ..self }
    }

    /// Takes others instead, for connections that come from now on.
    pub fn replace(&self, addresses: Vec<Option<Arc<Address>>>) {
        let all = self.addresses.lock();
        *all.unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// What handshakes of certificate authorities are answered with.
    pub fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    fn of(&self, listener: usize) -> Option<Arc<Address>> {
        let all = self.addresses.lock();
        let all = all.unwrap_or_else(PoisonError::into_inner);
        all.get(listener).cloned().flatten()
    }
}

/// The transport of a connection whose listener speaks TLS or does not.
#[derive(Debug)]
pub enum Way {
    /// It does not.
    Plain(Plain),
    /// It does.
    Secure(Box<Secure>),
}

/// A connection with TLS.
#[derive(Debug)]
pub struct Secure {
    plain: Plain,
    state: State,
    /// What has come before it was the turn of TLS.
    begun: Vec<u8>,
    /// The latest read of the socket was short, and all that has come was handed over.
    drained: bool,
    tls: Option<Arc<Tls>>,
    /// What was agreed on by the hello.
    terms: Option<Terms>,
    /// Where the handshake is counted.
    handshakes: Option<Handshakes>,
    proofs: Proofs,
    /// The handshake was for a proof only, and nothing follows it.
    is_proof: bool,
}

enum State {
    /// The hello of the client is arriving; and its first byte, if it has come.
    Hello(Acceptor, Arc<Address>, Option<u8>),
    /// The handshake, and what comes after it.
    Open(ServerConnection),
    /// The client was refused: why, and what it is still to be told.
    Refused(String, Vec<u8>),
    /// Nothing is read or sent any more.
    Left,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hello(..) => "Hello",
            Self::Open(_) => "Open",
            Self::Refused(..) => "Refused",
            Self::Left => "Left",
        })
    }
}

/// The socket, as the library reads and writes it.
struct Socket<'a> {
    plain: &'a mut Plain,
    begun: &'a mut Vec<u8>,
    more: bool,
    /// What the latest read has found: fewer bytes than it asked for, and the first one.
    short: bool,
    first: Option<u8>,
}

impl<'a> Socket<'a> {
    fn new(plain: &'a mut Plain, begun: &'a mut Vec<u8>) -> Self {
        Self {
            plain,
            begun,
            more: false,
            short: false,
            first: None,
        }
    }
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match self.begun.len().min(buffer.len()) {
            0 => {
                let n = self.plain.read(buffer)?;
                self.short = n < buffer.len();
                n
            }
            n => {
                buffer[..n].copy_from_slice(&self.begun[..n]);
                self.begun.drain(..n);
                if self.begun.is_empty() {
                    *self.begun = Vec::new();
                }
                n
            }
        };
        self.first = buffer[..n].first().copied();
        Ok(n)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(self.plain.write(data, self.more)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        // A response is one piece mostly, for which the kernel need not read what describes several.
        if let [piece] = pieces {
            return self.write(piece);
        }
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, self.more);
        let mut nothing = SendAncillaryBuffer::default();
        Ok(sendmsg(self.plain.as_fd(), pieces, &mut nothing, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket with nothing to read.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::PROTO)
}

impl Secure {
    /// TLS on a socket, by the terms of an address.
    fn new(plain: Plain, address: Arc<Address>, shared: &Listeners) -> Self {
        Self {
            plain,
            state: State::Hello(Acceptor::default(), address, None),
            begun: Vec::new(),
            drained: false,
            tls: None,
            terms: None,
            handshakes: shared.handshakes,
            proofs: shared.proofs.clone(),
            is_proof: false,
        }
    }

    /// Reads from the socket until the hello is there, and chooses the terms by it.
    fn read_hello(&mut self) -> Result<(), Errno> {
        let State::Hello(acceptor, address, first) = &mut self.state else {
            return Ok(());
        };
        let mut socket = Socket::new(&mut self.plain, &mut self.begun);
        match acceptor.read_tls(&mut socket) {
            // Somebody who only looked whether the port is open.
            Ok(0) => return Err(Errno::CONNRESET),
            Ok(_) => *first = first.or(socket.first),
            Err(error) => return Err(errno(&error)),
        }
        let (error, mut alert, is_http) = match acceptor.accept() {
            Ok(None) => return Ok(()),
            Ok(Some(accepted)) => match open(accepted, address, &self.proofs) {
                Ok((connection, terms)) => {
                    self.state = State::Open(connection);
                    self.is_proof = terms.is_none();
                    self.terms = terms;
                    return match self.flush() {
                        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
                        Err(error) => Err(error),
                    };
                }
                Err((error, alert)) => (error, alert, false),
            },
            // A method of HTTP; a record of TLS that may begin a connection is none (RFC 8446 section 5.1).
            Err((error, alert)) => {
                let is_http = first.is_some_and(|byte| byte.is_ascii_uppercase());
                (error, alert, is_http)
            }
        };
        let mut answer = Vec::new();
        let why = match is_http {
            true => {
                answer.extend_from_slice(PLAIN_HTTP);
                "it speaks plain HTTP, and TLS is spoken here".to_owned()
            }
            false => {
                // Writing to memory does not fail.
                let _ = alert.write_all(&mut answer);
                could_not_agree(&error)
            }
        };
        self.note_failure();
        self.state = State::Refused(why, answer);
        let _ = self.flush();
        Err(Errno::PROTO)
    }

    fn note_failure(&self) {
        if let Some(handshakes) = self.handshakes {
            handshakes.failed();
        }
    }

    /// The handshake is over: notes what it has agreed on.
    fn note(&mut self) {
        let State::Open(connection) = &self.state else {
            return;
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        if let Some(handshakes) = self.handshakes {
            handshakes.completed(resumed);
        }
        let client = connection.peer_certificates().and_then(<[_]>::first);
        let terms = self.terms.take();
        self.tls = Some(Arc::new(Tls {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: cipher(connection),
            server_name: connection.server_name().map(Into::into),
            protocol: connection.alpn_protocol().map(Into::into),
            resumed,
            client: client.and_then(certificate::of_client),
            names: terms
                .as_ref()
                .map(|terms| terms.names.clone())
                .unwrap_or_default(),
            client_policy: terms.and_then(|terms| terms.client_policy),
        }));
    }

    /// Takes what the socket has, until there is something for the buffer.
    fn read_open(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            let State::Open(connection) = &mut self.state else {
                return Err(Errno::AGAIN);
            };
            match connection.reader().read(buffer) {
                Ok(n) => {
                    // There may be more if the buffer is full.
                    self.drained &= n < buffer.len();
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It has ended without saying so: what has come may not be all.
                Err(_) => return Err(Errno::CONNRESET),
            }
            let mut socket = Socket::new(&mut self.plain, &mut self.begun);
            let read = connection.read_tls(&mut socket);
            self.drained = socket.short;
            if let Err(error) = read {
                let error = errno(&error);
                self.drained |= error == Errno::AGAIN;
                return Err(error);
            }
            let processed = connection.process_new_packets();
            if self.tls.is_none() && !connection.is_handshaking() {
                self.note();
            }
            if let Err(error) = processed {
                self.refuse(&error);
                return Err(Errno::PROTO);
            }
            match self.flush() {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            // Whatever the client sends after it is no request.
            if self.is_proof && self.tls.is_some() {
                return Ok(0);
            }
        }
    }

    /// What the client has sent is wrong: the alert that says so goes out, behind what was already on its way.
    fn refuse(&mut self, error: &rustls::Error) {
        let mut rest = Vec::new();
        if let State::Open(connection) = &mut self.state {
            while connection.wants_write() {
                // Writing to memory does not fail.
                if connection.write_tls(&mut rest).is_err() {
                    break;
                }
            }
        }
        if self.tls.is_none() {
            self.note_failure();
        }
        self.state = State::Refused(could_not_agree(error), rest);
        let _ = self.flush();
    }

    fn write_out(&mut self, more: bool) -> Result<usize, Errno> {
        match &mut self.state {
            State::Open(connection) => {
                let mut socket = Socket::new(&mut self.plain, &mut self.begun);
                socket.more = more;
                let mut sent = 0;
                while connection.wants_write() {
                    match connection.write_tls(&mut socket) {
                        Ok(n) => sent += n,
                        Err(_) if sent > 0 => break,
                        Err(error) => return Err(errno(&error)),
                    }
                }
                Ok(sent)
            }
            State::Refused(_, rest) if !rest.is_empty() => {
                let n = self.plain.write(rest, more)?;
                rest.drain(..n);
                Ok(n)
            }
            _ => Ok(0),
        }
    }

    /// Encrypts as many of the bytes as there is room for.
    fn take(&mut self, pieces: &[IoSlice<'_>], more: bool) -> Result<usize, Errno> {
        self.write_out(more)?;
        let State::Open(connection) = &mut self.state else {
            return Err(Errno::PIPE);
        };
        let taken = connection.writer().write_vectored(pieces);
        let taken = taken.map_err(|error| errno(&error))?;
        match self.write_out(more) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        match taken {
            0 if pieces.iter().any(|piece| !piece.is_empty()) => Err(Errno::AGAIN),
            n => Ok(n),
        }
    }
}

fn could_not_agree(error: &rustls::Error) -> String {
    format!("could not agree on TLS: {error}")
}

/// Goes on with the terms for the name that the client asks for; without any, if it asks for a proof that the name is ours.
fn open(
    accepted: Accepted,
    address: &Address,
    proofs: &Proofs,
) -> Result<(ServerConnection, Option<Terms>), (rustls::Error, rustls::server::AcceptedAlert)> {
    let hello = accepted.client_hello();
    let (config, terms) = match proofs.find(&hello) {
        Some(config) => (config, None),
        None => {
            let terms = address.terms(hello.server_name());
            (terms.config.clone(), Some(terms.clone()))
        }
    };
    let mut connection = accepted.into_connection(config)?;
    connection.set_buffer_limit(Some(HELD));
    Ok((connection, terms))
}

/// The name that the registry of the IANA has for the cipher suite.
fn cipher(connection: &ServerConnection) -> &'static str {
    let suite = connection.negotiated_cipher_suite();
    match suite.and_then(|suite| suite.suite().as_str()) {
        Some("TLS13_AES_128_GCM_SHA256") => "TLS_AES_128_GCM_SHA256",
        Some("TLS13_AES_256_GCM_SHA384") => "TLS_AES_256_GCM_SHA384",
        Some("TLS13_CHACHA20_POLY1305_SHA256") => "TLS_CHACHA20_POLY1305_SHA256",
        Some(name) => name,
        None => "",
    }
}

impl Secure {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        while let State::Hello(..) = self.state {
            self.read_hello()?;
        }
        match self.state {
            State::Open(_) => self.read_open(buffer),
            // Whoever was refused may still be sending, and this is dropped.
            _ => self.plain.read(buffer),
        }
    }

    fn send_file(&mut self, file: &File, offset: &mut u64, length: usize) -> Result<usize, Errno> {
        // Not before there is room: what was read and is not taken is read again.
        self.write_out(false)?;
        if self.has_output() {
            return Err(Errno::AGAIN);
        }
        FILE.with_borrow_mut(|piece| {
            piece.resize(PIECE, 0);
            let piece = &mut piece[..length.min(PIECE)];
            let n = rustix::io::pread(file, &mut *piece, *offset)?;
            if n == 0 {
                return Ok(0);
            }
            let taken = self.take(&[IoSlice::new(&piece[..n])], n < length)?;
            *offset += taken as u64;
            Ok(taken)
        })
    }

    fn finish(&mut self) -> Result<(), Errno> {
        if let State::Open(connection) = &mut self.state {
            connection.send_close_notify();
            // If there is no room for it, the client finds the end cut off, as with a connection that breaks.
            let _ = self.write_out(false);
        }
        self.plain.finish()
    }

    /// The end is not announced by an alert, and so is a truncation to the client also where the socket cannot be reset.
    fn abort(&mut self) {
        self.state = State::Left;
        self.plain.abort();
    }

    fn leave(&mut self) {
        self.state = State::Left;
        self.plain.leave();
    }

    /// The connection is to wait. The library makes its buffer smaller at the beginning of a read if there is nothing in it.
    fn rest(&mut self) {
        if let State::Open(connection) = &mut self.state {
            // Nothing is there to read, which is no end.
            let _ = connection.read_tls(&mut Nothing);
        }
    }

    fn has_output(&self) -> bool {
        match &self.state {
            State::Open(connection) => connection.wants_write(),
            State::Refused(_, rest) => !rest.is_empty(),
            State::Hello(..) | State::Left => false,
        }
    }

    fn flush(&mut self) -> Result<usize, Errno> {
        self.write_out(false)
    }
}

impl Transport for Way {
    type Shared = Listeners;
    type Multiplex = Single;

    fn new(shared: &mut Listeners, socket: OwnedFd, origin: &Origin) -> Self {
        let plain = Plain::new(&mut (), socket, origin);
        match shared.of(origin.listener) {
            Some(address) => Self::Secure(Box::new(Secure::new(plain, address, shared))),
            None => Self::Plain(plain),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Plain(plain) => plain.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }

    fn write(&mut self, data: &[u8], more: bool) -> Result<usize, Errno> {
        match self {
            Self::Plain(plain) => plain.write(data, more),
            Self::Secure(secure) => secure.take(&[IoSlice::new(data)], more),
        }
    }

    fn write_both(&mut self, data: &[u8], slice: &Slice, more: bool) -> Result<usize, Errno> {
        match self {
            Self::Plain(plain) => plain.write_both(data, slice, more),
            Self::Secure(secure) => match data.is_empty() {
                true => secure.take(&[IoSlice::new(slice)], more),
                false => secure.take(&[IoSlice::new(data), IoSlice::new(slice)], more),
            },
        }
    }

    fn send_file(&mut self, file: &File, offset: &mut u64, length: usize) -> Result<usize, Errno> {
        match self {
            Self::Plain(plain) => plain.send_file(file, offset, length),
            Self::Secure(secure) => secure.send_file(file, offset, length),
        }
    }

    fn can_hold(&self) -> bool {
        self.plain().can_hold()
    }

    fn push(&self) {
        self.plain().push();
    }

    fn finish(&mut self) -> Result<(), Errno> {
        match self {
            Self::Plain(plain) => plain.finish(),
            Self::Secure(secure) => secure.finish(),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Plain(plain) => plain.abort(),
            Self::Secure(secure) => secure.abort(),
        }
    }

    fn leave(&mut self) {
        match self {
            Self::Plain(plain) => plain.leave(),
            Self::Secure(secure) => secure.leave(),
        }
    }

    fn reset_at_death(&mut self, reset: bool) {
        self.plain_mut().reset_at_death(reset);
    }

    fn stands(&self, standing: Standing) {
        self.plain().stands(standing);
    }

    fn watch(&mut self, epoll: &Own, key: u64, write: bool) -> io::Result<()> {
        if let Self::Secure(secure) = self {
            secure.rest();
        }
        let write = write || self.has_output();
        self.plain_mut().watch(epoll, key, write)
    }

    fn has_input(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(secure) => !secure.begun.is_empty() || !secure.drained,
        }
    }

    fn has_output(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(secure) => secure.has_output(),
        }
    }

    fn flush(&mut self) -> Result<usize, Errno> {
        match self {
            Self::Plain(_) => Ok(0),
            Self::Secure(secure) => secure.flush(),
        }
    }

    fn is_starting(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(secure) => match &secure.state {
                State::Hello(..) => true,
                State::Open(connection) => connection.is_handshaking(),
                State::Refused(..) | State::Left => false,
            },
        }
    }

    fn refusal(&self) -> Option<&str> {
        match self {
            Self::Secure(secure) => match &secure.state {
                State::Refused(why, _) => Some(why),
                _ => None,
            },
            Self::Plain(_) => None,
        }
    }

    fn tls(&self) -> Option<&Arc<Tls>> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(secure) => secure.tls.as_ref(),
        }
    }

    fn read_preamble(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.plain_mut().read(buffer)
    }

    fn begin_with<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Plain(_) => bytes,
            Self::Secure(secure) => {
                secure.begun = bytes.to_vec();
                &[]
            }
        }
    }
}

impl Way {
    fn plain(&self) -> &Plain {
        match self {
            Self::Plain(plain) => plain,
            Self::Secure(secure) => &secure.plain,
        }
    }

    fn plain_mut(&mut self) -> &mut Plain {
        match self {
            Self::Plain(plain) => plain,
            Self::Secure(secure) => &mut secure.plain,
        }
    }
}
