//! The environ of a request (PEP 3333, "environ Variables"; RFC 3875).
//!
//! What is the same for every request of a listener is made once and copied. The keys of header fields and the last value
//! of each are kept, as the same client sends the same fields again and again: making, hashing and freeing strings
//! would otherwise be most of the work of a small request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};

use preforkd_http::{Facts, Origin, Request, percent_decode};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::input::Input;
use crate::text;

mod constant;

use constant::constant;

/// Names of fields that are kept; a client can invent names without end.
const MOST_NAMES: usize = 1024;
/// Longer names are not kept.
const LONGEST_NAME: usize = 64;
/// Ports that are kept.
const PORTS: usize = 128;
/// Longer values are not kept.
const LONGEST_VALUE: usize = 256;

/// The address of a listener; none for a unix socket.
pub(crate) type Local = Option<SocketAddr>;

/// Where an application is served.
#[derive(Clone)]
pub(crate) struct Served {
    pub listeners: Vec<Local>,
    /// SCRIPT_NAME.
    pub prefix: String,
}

pub(crate) struct Environs<'py> {
    py: Python<'py>,
    /// For each listener.
    constant: Vec<Bound<'py, PyDict>>,
    prefix: Vec<u8>,
    names: Vec<Name<'py>>,
    /// Indexes into `names` by the name as sent.
    spellings: HashMap<Box<[u8]>, usize, BuildHasherDefault<Fnv>>,
    /// The same by the key.
    keys: HashMap<String, usize>,
    methods: Vec<(&'static [u8], Bound<'py, PyString>)>,
    peer: Option<(IpAddr, Bound<'py, PyString>)>,
    /// Ports of clients, each at its number modulo [`PORTS`]: kept connections come back.
    ports: Vec<Option<(u16, Bound<'py, PyString>)>>,
    path: Vec<u8>,
    /// Counts requests, to see a name that comes twice in one.
    serial: u64,
}

struct Name<'py> {
    kind: Kind,
    key: Bound<'py, PyString>,
    last: Option<(Box<[u8]>, Bound<'py, PyString>)>,
    seen: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Not kept from request to request: it changes, or nobody wants it to stay in memory.
    Private,
    Cookie,
    /// What the server has dealt with, or what would be taken for something else.
    Dropped,
}

impl<'py> Environs<'py> {
    pub fn new(
        py: Python<'py>,
        served: &Served,
        threads: bool,
        empty: &Bound<'py, Input>,
    ) -> PyResult<Self> {
        let prefix = served.prefix.as_bytes();
        let constant = served
            .listeners
            .iter()
            .map(|local| constant(py, local.as_ref(), prefix, threads, empty))
            .collect::<PyResult<_>>()?;
        let methods: [&'static str; 8] = [
            "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "REPORT",
        ];
        Ok(Self {
            py,
            constant,
            prefix: prefix.to_vec(),
            names: Vec::new(),
            spellings: HashMap::default(),
            keys: HashMap::new(),
            methods: methods
                .iter()
                .map(|method| (method.as_bytes(), PyString::intern(py, method)))
                .collect(),
            peer: None,
            ports: vec![const { None }; PORTS],
            path: Vec::new(),
            serial: 0,
        })
    }

    /// The environ of a request, with an empty input.
    pub fn make(&mut self, request: Request<'_>, origin: &Origin) -> PyResult<Bound<'py, PyDict>> {
        let py = self.py;
        let environ = self.constant[origin.listener].copy()?;
        let set =
            |key: &Bound<'py, PyString>, value: &Bound<'py, PyString>| environ.set_item(key, value);

        let method = request.method();
        if method != b"GET" {
            let known = self.methods.iter().find(|(name, _)| *name == method);
            match known {
                Some((_, object)) => set(intern!(py, "REQUEST_METHOD"), object)?,
                None => set(intern!(py, "REQUEST_METHOD"), &text::decode(py, method))?,
            }
        }
        self.target(&environ, request)?;
        if !request.query().is_empty() {
            set(
                intern!(py, "QUERY_STRING"),
                &text::decode(py, request.query()),
            )?;
        }
        if !request.is_http11() {
            set(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.0"))?;
        }
        let facts = request.facts();
        if let Some(client) = facts.and_then(|facts| facts.client) {
            self.address(&environ, client)?;
            match facts.and_then(|facts| facts.client_port) {
                Some(port) => self.port(&environ, port)?,
                // That of the proxy would be wrong.
                None => drop(
                    environ.call_method1(intern!(py, "pop"), (intern!(py, "REMOTE_PORT"), ()))?,
                ),
            }
        } else if let Some(peer) = origin.peer {
            self.address(&environ, peer.ip())?;
            self.port(&environ, peer.port())?;
        }
        // Also for a chunked body, whose length is known by now: frameworks read no body without it.
        if let Some(length) = request.body_length() {
            environ.set_item(intern!(py, "CONTENT_LENGTH"), decimal(py, length))?;
        }
        self.serial += 1;
        for (name, value) in request.fields() {
            self.field(&environ, name, value)?;
        }
        if let Some(authority) = request.authority() {
            environ.set_item(intern!(py, "HTTP_HOST"), text::decode(py, authority))?;
        }
        if let Some(server) = origin.relayed.and_then(|relayed| relayed.server) {
            let name = server.ip().to_canonical().to_string();
            environ.set_item(intern!(py, "SERVER_NAME"), name)?;
            environ.set_item(
                intern!(py, "SERVER_PORT"),
                decimal(py, server.port().into()),
            )?;
        }
        if let Some(facts) = facts {
            url(&environ, facts)?;
            if let Some(id) = &facts.request_id {
                environ.set_item(intern!(py, "HTTP_X_REQUEST_ID"), PyString::new(py, id))?;
            }
        }
        Ok(environ)
    }

    /// Target and path; `/` is there already.
    fn target(&mut self, environ: &Bound<'py, PyDict>, request: Request<'_>) -> PyResult<()> {
        let py = self.py;
        let (target, path) = (request.target(), request.path());
        let forwarded = request.facts().and_then(|facts| facts.prefix.as_deref());
        let prefix = forwarded.unwrap_or(&self.prefix);
        if target == b"/" {
            return Ok(());
        }
        let raw = text::decode(py, target);
        environ.set_item(intern!(py, "RAW_URI"), &raw)?;
        environ.set_item(intern!(py, "REQUEST_URI"), &raw)?;
        let path = if path.contains(&b'%') {
            percent_decode(path, &mut self.path);
            text::decode(py, below(&self.path, prefix))
        } else if path.len() == target.len() && prefix.is_empty() {
            raw
        } else {
            text::decode(py, below(path, prefix))
        };
        environ.set_item(intern!(py, "PATH_INFO"), path)
    }

    fn address(&mut self, environ: &Bound<'py, PyDict>, client: IpAddr) -> PyResult<()> {
        let py = self.py;
        let address = match &self.peer {
            Some((ip, address)) if *ip == client => address,
            _ => {
                let address = PyString::new(py, &client.to_canonical().to_string());
                &self.peer.insert((client, address)).1
            }
        };
        environ.set_item(intern!(py, "REMOTE_ADDR"), address)
    }

    fn port(&mut self, environ: &Bound<'py, PyDict>, client: u16) -> PyResult<()> {
        let py = self.py;
        let port = match &mut self.ports[usize::from(client) % PORTS] {
            Some((number, port)) if *number == client => port,
            other => &mut other.insert((client, decimal(py, client.into()))).1,
        };
        environ.set_item(intern!(py, "REMOTE_PORT"), &*port)
    }

    fn field(&mut self, environ: &Bound<'py, PyDict>, raw: &[u8], value: &[u8]) -> PyResult<()> {
        let py = self.py;
        let (kind, again) = match self.entry(raw) {
            Some(index) => {
                let name = &mut self.names[index];
                let again = std::mem::replace(&mut name.seen, self.serial) == self.serial;
                if name.kind == Kind::Dropped {
                    return Ok(());
                }
                if !again {
                    let value = name.value(py, value);
                    return environ.set_item(&name.key, value);
                }
                (name.kind, name.key.clone())
            }
            None => {
                let name = Name::new(py, &key(raw));
                if name.kind == Kind::Dropped {
                    return Ok(());
                }
                if !environ.contains(&name.key)? {
                    return environ.set_item(&name.key, text::decode(py, value));
                }
                (name.kind, name.key)
            }
        };
        // RFC 9110 section 5.3, and RFC 6265 section 5.4 for cookies.
        let separator = if kind == Kind::Cookie { "; " } else { "," };
        let before = environ
            .get_item(&again)?
            .map(|value| value.to_string())
            .unwrap_or_default();
        environ.set_item(
            &again,
            format!("{before}{separator}{}", text::decode(py, value)),
        )
    }

    /// The index of a name that is kept; a name is one whatever its spelling.
    fn entry(&mut self, raw: &[u8]) -> Option<usize> {
        if let Some(&index) = self.spellings.get(raw) {
            return Some(index);
        }
        if raw.len() > LONGEST_NAME {
            return None;
        }
        let key = key(raw);
        if self.spellings.len() >= MOST_NAMES {
            return self.keys.get(&key).copied();
        }
        let index = match self.keys.get(&key) {
            Some(&index) => index,
            None => {
                self.names.push(Name::new(self.py, &key));
                self.keys.insert(key, self.names.len() - 1);
                self.names.len() - 1
            }
        };
        self.spellings.insert(raw.into(), index);
        Some(index)
    }
}

/// The URL that the client has asked for, as a trusted proxy tells it.
#[cold]
fn url(environ: &Bound<'_, PyDict>, facts: &Facts) -> PyResult<()> {
    let py = environ.py();
    if facts.https == Some(true) {
        environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
    }
    if let Some(host) = &facts.host {
        environ.set_item(intern!(py, "HTTP_HOST"), text::decode(py, host))?;
        environ.set_item(intern!(py, "SERVER_NAME"), text::decode(py, name(host)))?;
    }
    if let Some(port) = facts.port {
        environ.set_item(intern!(py, "SERVER_PORT"), decimal(py, port.into()))?;
    }
    if let Some(prefix) = &facts.prefix {
        environ.set_item(intern!(py, "SCRIPT_NAME"), text::decode(py, prefix))?;
    }
    Ok(())
}

/// A host without its port.
fn name(host: &[u8]) -> &[u8] {
    // An IPv6 address stands in brackets and has colons of its own.
    let literal = host.iter().rposition(|&b| b == b']').map_or(0, |at| at + 1);
    let end = host[literal..].iter().position(|&b| b == b':');
    end.map_or(host, |end| &host[..literal + end])
}

/// The path without the prefix (PEP 3333, "environ Variables"). It stays as it is where a proxy has removed the prefix already.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> &'a [u8] {
    match path.strip_prefix(prefix) {
        Some(rest @ ([] | [b'/', ..])) => rest,
        _ => path,
    }
}

/// `HTTP_` and the name in upper case with underscores; the parser lets no name with an underscore of its own pass.
fn key(raw: &[u8]) -> String {
    let name = raw.iter().map(|&b| {
        if b == b'-' {
            '_'
        } else {
            char::from(b.to_ascii_uppercase())
        }
    });
    let name: String = name.collect();
    if name == "CONTENT_TYPE" {
        name
    } else {
        format!("HTTP_{name}")
    }
}

impl<'py> Name<'py> {
    fn new(py: Python<'py>, key: &str) -> Self {
        let kind = match key {
            "HTTP_COOKIE" => Kind::Cookie,
            "HTTP_AUTHORIZATION" | "HTTP_PROXY_AUTHORIZATION" | "HTTP_X_CSRFTOKEN" => Kind::Private,
            // Length and coding were dealt with; HTTP_PROXY is a setting of HTTP clients (CVE-2016-5385).
            "HTTP_CONTENT_LENGTH" | "HTTP_TRANSFER_ENCODING" | "HTTP_PROXY" => Kind::Dropped,
            _ => Kind::Plain,
        };
        Self {
            kind,
            // Not interned: some versions of CPython never give an interned string back, and clients invent names.
            key: PyString::new(py, key),
            last: None,
            seen: 0,
        }
    }

    fn value(&mut self, py: Python<'py>, value: &[u8]) -> Bound<'py, PyString> {
        match &self.last {
            Some((bytes, object)) if **bytes == *value => object.clone(),
            _ => {
                let object = text::decode(py, value);
                if self.kind == Kind::Plain && value.len() <= LONGEST_VALUE {
                    self.last = Some((value.into(), object.clone()));
                }
                object
            }
        }
    }
}

fn decimal(py: Python<'_>, number: u64) -> Bound<'_, PyString> {
    PyString::new(py, &number.to_string())
}

/// FNV-1a: names are short, few and checked, and there are at most [`MOST_NAMES`] of them, so collisions cannot hurt.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
