//! A small certificate authority (RFC 8555), strict about what clients must do: signatures, nonces, URLs and challenges.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
};
use serde_json::{Value, json};

/// How it behaves.
pub struct Behaviour {
    /// The kinds of challenges that it offers.
    pub offers: &'static [&'static str],
    /// How long certificates are good, in seconds.
    pub life: u64,
    /// It takes no orders: its answer, with the seconds of Retry-After.
    pub refuses: Option<(Value, u64)>,
    /// Orders are not ready, and are to be asked for again after so many seconds.
    pub later: Option<u64>,
    /// Validation waits until it is let go on.
    pub holds: bool,
    /// It issues certificates for this host, whatever was ordered.
    pub mistakes: Option<&'static str>,
    /// How often it asks for a challenge, as from different places.
    pub looks: usize,
    /// Accounts must be bound to the external one of this name and key.
    pub external: Option<(&'static str, &'static [u8])>,
}

impl Behaviour {
    /// Takes everything at once.
    pub fn offering(offers: &'static [&'static str]) -> Self {
        Self {
            offers,
            life: 90 * 24 * 3600,
            refuses: None,
            later: None,
            holds: false,
            mistakes: None,
            looks: 8,
            external: None,
        }
    }
}

/// What it has been asked.
#[derive(Default)]
struct State {
    nonces: BTreeSet<String>,
    made: u64,
    has_refused_a_nonce: bool,
    /// The keys of accounts, and their contacts.
    accounts: Vec<(Value, Value)>,
    orders: Vec<Order>,
    asked: usize,
    /// The users of the clients that have connected.
    users: BTreeSet<u32>,
}

struct Order {
    account: usize,
    hosts: Vec<String>,
    proven: BTreeMap<usize, Result<(), String>>,
    certificate: Option<String>,
}

pub struct Authority {
    /// The URL of its directory.
    pub directory: String,
    base: String,
    issuer: Issuer<'static, KeyPair>,
    pub behaviour: Mutex<Behaviour>,
    changed: Condvar,
    state: Mutex<State>,
    /// The folder with the sockets of the front.
    sockets: PathBuf,
}

type Answer = (u16, Vec<(&'static str, String)>, String);

impl Authority {
    /// Begins to serve. Its own certificate goes to `ca.pem` in this folder, in which the front has its sockets.
    pub fn begin(folder: &Path, behaviour: Behaviour) -> Arc<Self> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the authority of tests");
        let own = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.join("ca.pem"), own.pem()).expect("room");
        let issuer = Issuer::new(params, key);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("https://{}", listener.local_addr().expect("an address"));
        let server = server(&issuer);
        let authority = Arc::new(Self {
            directory: format!("{base}/directory"),
            base,
            issuer,
            behaviour: Mutex::new(behaviour),
            changed: Condvar::new(),
            state: Mutex::default(),
            sockets: folder.to_owned(),
        });
        let serving = authority.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (serving, server) = (serving.clone(), server.clone());
                std::thread::spawn(move || serving.serve(connection, server));
            }
        });
        authority
    }

    /// How many orders it was asked for, whatever it answered.
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// How many accounts it has.
    pub fn accounts(&self) -> usize {
        self.state().accounts.len()
    }

    /// What the latest account wants to be told at.
    pub fn contact(&self) -> Value {
        let state = self.state();
        state.accounts.last().expect("one").1.clone()
    }

    /// The users of the processes that have asked it.
    pub fn users(&self) -> Vec<u32> {
        self.state().users.iter().copied().collect()
    }

    /// Forgets all accounts.
    pub fn forget_accounts(&self) {
        self.state().accounts.clear();
    }

    /// Changes how it behaves.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().expect("nobody panics"));
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn serve(&self, connection: TcpStream, server: Arc<ServerConfig>) {
        let ends = [connection.peer_addr(), connection.local_addr()];
        let ends = ends.map(|end| end.expect("it is connected").port());
        if let Some(user) = user_of(ends) {
            self.state().users.insert(user);
        }
        let tls = ServerConnection::new(server).expect("a connection");
        let mut stream = BufReader::new(StreamOwned::new(tls, connection));
        while let Some((method, path, body)) = request(&mut stream) {
            let (status, fields, text) = self.answer(&method, &path, &body);
            let mut head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nReplay-Nonce: {}\r\n",
                text.len(),
                self.nonce()
            );
            for (name, value) in fields {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let text = if method == "HEAD" { "" } else { &text };
            let whole = format!("{head}\r\n{text}");
            let stream = stream.get_mut();
            if stream.write_all(whole.as_bytes()).is_err() || stream.flush().is_err() {
                return;
            }
        }
    }

    fn nonce(&self) -> String {
        let mut state = self.state();
        state.made += 1;
        let nonce = format!("nonce{}", state.made);
        state.nonces.insert(nonce.clone());
        nonce
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let url = |path: &str| format!("{}/{path}", self.base);
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if parts == ["directory"] {
            let directory = json!({"newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
                "revokeCert": url("revoke"), "keyChange": url("key")});
            return ok(200, directory);
        }
        if parts == ["nonce"] {
            return (200, Vec::new(), String::new());
        }
        let (account, payload) = match self.verified(method, path, body) {
            Ok(found) => found,
            Err((kind, why)) => return problem(400, kind, &why),
        };
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<usize>().ok());
        match (parts[0], number(1), number(2), account) {
            ("account", None, None, Signer::Key(jwk)) => {
                assert_eq!(payload["termsOfServiceAgreed"], true);
                if let Err((kind, why)) = self.check_binding(&jwk, &payload) {
                    return problem(403, kind, why);
                }
                let mut state = self.state();
                state.accounts.push((jwk, payload["contact"].clone()));
                let location = url(&format!("account/{}", state.accounts.len() - 1));
                (
                    201,
                    vec![("Location", location)],
                    json!({"status": "valid"}).to_string(),
                )
            }
            ("account", Some(at), None, Signer::Account(own)) if at == own => {
                self.state().accounts[at].1 = payload["contact"].clone();
                ok(200, json!({"status": "valid"}))
            }
            ("order", None, None, Signer::Account(account)) => self.order(account, &payload),
            ("order", Some(at), None, Signer::Account(account)) => {
                assert_eq!(self.state().orders[at].account, account);
                let later = self.behaviour.lock().expect("nobody panics").later;
                let mut shown = self.shown(at);
                let Some(after) = later else {
                    return ok(200, shown);
                };
                shown["status"] = "pending".into();
                let fields = vec![("Retry-After", after.to_string())];
                (200, fields, shown.to_string())
            }
            ("authorization", Some(at), Some(host), Signer::Account(account)) => {
                ok(200, self.authorization(at, host, account))
            }
            ("challenge", Some(at), Some(host), Signer::Account(account)) => {
                let kind = parts[3];
                let verdict = self.validate(at, host, kind, account);
                self.state().orders[at].proven.insert(host, verdict);
                ok(
                    200,
                    json!({"type": kind, "url": url(path), "token": token(at, host), "status": "processing"}),
                )
            }
            ("finalize", Some(at), None, Signer::Account(_)) => {
                let csr = payload["csr"].as_str().expect("a request");
                let csr = BASE64_URL_SAFE_NO_PAD.decode(csr).expect("base64url");
                let issued = self.issue(&csr, at);
                self.state().orders[at].certificate = Some(issued);
                ok(200, self.shown(at))
            }
            ("certificate", Some(at), None, Signer::Account(_)) => {
                let text = self.state().orders[at].certificate.clone();
                let kind = (
                    "Content-Type",
                    "application/pem-certificate-chain".to_owned(),
                );
                (200, vec![kind], text.expect("it was issued"))
            }
            _ => problem(404, "malformed", &format!("there is no {path}")),
        }
    }

    /// Whether a new account is bound to the external one: RFC 8555 section 7.3.4.
    fn check_binding(
        &self,
        jwk: &Value,
        payload: &Value,
    ) -> Result<(), (&'static str, &'static str)> {
        let external = self.behaviour.lock().expect("nobody panics").external;
        let Some((name, key)) = external else {
            return Ok(());
        };
        let binding = &payload["externalAccountBinding"];
        let part = |name: &str| binding[name].as_str().unwrap_or_default();
        if binding.is_null() {
            return Err(("externalAccountRequired", "there is no external account"));
        }
        let decoded = |name: &str| {
            BASE64_URL_SAFE_NO_PAD
                .decode(part(name))
                .expect("base64url")
        };
        let header: Value = serde_json::from_slice(&decoded("protected")).expect("JSON");
        assert_eq!(header["alg"], "HS256");
        assert_eq!(header["url"], format!("{}/account", self.base));
        assert!(header["nonce"].is_null());
        let bound: Value = serde_json::from_slice(&decoded("payload")).expect("JSON");
        assert_eq!(bound, *jwk);
        let signed = format!("{}.{}", part("protected"), part("payload"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let verified = hmac::verify(&key, signed.as_bytes(), &decoded("signature"));
        match verified.is_ok() && header["kid"] == name {
            true => Ok(()),
            false => Err(("unauthorized", "that is not the external account")),
        }
    }

    fn order(&self, account: usize, payload: &Value) -> Answer {
        self.state().asked += 1;
        let refuses = self
            .behaviour
            .lock()
            .expect("nobody panics")
            .refuses
            .clone();
        if let Some((problem, after)) = refuses {
            let status = problem["status"].as_u64().expect("a status") as u16;
            return (
                status,
                vec![("Retry-After", after.to_string())],
                problem.to_string(),
            );
        }
        let hosts = payload["identifiers"].as_array().expect("a list").iter();
        let hosts = hosts.map(|host| host["value"].as_str().expect("a name").to_owned());
        let order = Order {
            account,
            hosts: hosts.collect(),
            proven: BTreeMap::new(),
            certificate: None,
        };
        let at = {
            let mut state = self.state();
            state.orders.push(order);
            state.orders.len() - 1
        };
        let location = format!("{}/order/{at}", self.base);
        (
            201,
            vec![("Location", location)],
            self.shown(at).to_string(),
        )
    }

    fn shown(&self, at: usize) -> Value {
        let state = self.state();
        let order = &state.orders[at];
        let is_proven = |host| matches!(order.proven.get(&host), Some(Ok(())));
        let status = match () {
            () if order.certificate.is_some() => "valid",
            () if order.proven.values().any(Result::is_err) => "invalid",
            () if (0..order.hosts.len()).all(is_proven) => "ready",
            () => "pending",
        };
        let hosts = order
            .hosts
            .iter()
            .map(|host| json!({"type": "dns", "value": host}));
        let all = 0..order.hosts.len();
        let all = all.map(|host| format!("{}/authorization/{at}/{host}", self.base));
        let mut shown = json!({"status": status, "identifiers": hosts.collect::<Vec<_>>(),
            "authorizations": all.collect::<Vec<_>>(), "finalize": format!("{}/finalize/{at}", self.base)});
        if order.certificate.is_some() {
            shown["certificate"] = format!("{}/certificate/{at}", self.base).into();
        }
        shown
    }

    fn authorization(&self, at: usize, host: usize, account: usize) -> Value {
        let state = self.state();
        let order = &state.orders[at];
        assert_eq!(order.account, account);
        let verdict = order.proven.get(&host);
        let status = match verdict {
            None => "pending",
            Some(Ok(())) => "valid",
            Some(Err(_)) => "invalid",
        };
        let challenge = |kind: &&str| {
            let mut shown = json!({"type": kind, "token": token(at, host), "status": status,
                "url": format!("{}/challenge/{at}/{host}/{kind}", self.base)});
            if let Some(Err(why)) = verdict {
                shown["error"] = json!({"type": "urn:ietf:params:acme:error:unauthorized", "detail": why, "status": 403});
            }
            shown
        };
        let offers = self.behaviour.lock().expect("nobody panics").offers;
        let challenges: Vec<_> = offers.iter().map(challenge).collect();
        json!({"identifier": {"type": "dns", "value": order.hosts[host]}, "status": status, "challenges": challenges})
    }

    /// Whether the front has the answer, at each look.
    fn validate(&self, at: usize, host: usize, kind: &str, account: usize) -> Result<(), String> {
        let looks = {
            let held = self.behaviour.lock().expect("nobody panics");
            let released = self.changed.wait_while(held, |now| now.holds);
            released.expect("nobody panics").looks
        };
        let (name, expected) = {
            let state = self.state();
            let thumbprint = thumbprint(&state.accounts[account].0);
            let expected = format!("{}.{thumbprint}", token(at, host));
            (state.orders[at].hosts[host].clone(), expected)
        };
        for _ in 0..looks {
            match kind {
                "http-01" => self.ask_http(&name, &token(at, host), &expected)?,
                "tls-alpn-01" => self.ask_tls(&name, &expected)?,
                other => return Err(format!("{other} was not offered")),
            }
        }
        Ok(())
    }

    fn ask_http(&self, host: &str, token: &str, expected: &str) -> Result<(), String> {
        let connected = UnixStream::connect(self.sockets.join("http.sock"));
        let mut socket = connected.map_err(|error| error.to_string())?;
        let request = format!(
            "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        );
        let mut text = String::new();
        let asked = socket.write_all(request.as_bytes());
        let asked = asked.and_then(|()| socket.read_to_string(&mut text));
        asked.map_err(|error| error.to_string())?;
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        match text.starts_with("HTTP/1.1 200 ") && body == Some(expected) {
            true => Ok(()),
            false => Err(format!("the answer of {host} was {text}")),
        }
    }

    fn ask_tls(&self, host: &str, expected: &str) -> Result<(), String> {
        let connected = UnixStream::connect(self.sockets.join("tls.sock"));
        let socket = connected.map_err(|error| error.to_string())?;
        let provider = Arc::new(default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let mut stream = StreamOwned::new(tls, socket);
        while stream.conn.is_handshaking() {
            let done = stream.conn.complete_io(&mut stream.sock);
            done.map_err(|error| format!("no handshake with {host}: {error}"))?;
        }
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        let shown = stream.conn.peer_certificates().expect("one")[0].to_vec();
        // RFC 8737 section 3: critical, with the digest of the key authorization.
        let mut proof =
            b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20".to_vec();
        proof.extend(digest(&SHA256, expected.as_bytes()).as_ref());
        if !shown.windows(proof.len()).any(|part| part == proof) {
            return Err(format!("the certificate of {host} proves nothing"));
        }
        // It is no connection for requests.
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        match answer.is_empty() {
            true => Ok(()),
            false => Err(format!("{host} has answered a request")),
        }
    }

    /// The certificate for a request, and its chain.
    fn issue(&self, csr: &[u8], at: usize) -> String {
        let mut request =
            CertificateSigningRequestParams::from_der(&csr.into()).expect("a request");
        let names = request.params.subject_alt_names.iter();
        let names: BTreeSet<String> = names
            .map(|name| match name {
                rcgen::SanType::DnsName(name) => name.as_str().to_owned(),
                other => panic!("{other:?}"),
            })
            .collect();
        let hosts = self.state().orders[at].hosts.iter().cloned().collect();
        assert_eq!(names, hosts);
        let (life, mistakes) = {
            let now = self.behaviour.lock().expect("nobody panics");
            (now.life, now.mistakes)
        };
        if let Some(host) = mistakes {
            let other = CertificateParams::new([host.to_owned()]).expect("a name");
            request.params.subject_alt_names = other.subject_alt_names;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs());
        request.params.not_before = now;
        request.params.not_after = now + Duration::from_secs(life);
        let issued = request.signed_by(&self.issuer).expect("a certificate");
        issued.pem()
    }

    /// Who has signed a request, and its payload.
    fn verified(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(Signer, Value), (&'static str, String)> {
        let wrong = |why: &str| ("malformed", why.to_owned());
        if method != "POST" {
            return Err(wrong("it must be a POST"));
        }
        let body: Value = serde_json::from_slice(body).map_err(|_| wrong("no JSON"))?;
        let part = |name: &str| body[name].as_str().unwrap_or_default();
        let decoded = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let header: Value = serde_json::from_slice(&decoded(part("protected"))).expect("JSON");
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["url"], format!("{}{path}", self.base));
        let signer = match header["jwk"].is_object() {
            true => Signer::Key(header["jwk"].clone()),
            false => {
                let id = header["kid"].as_str().and_then(|id| id.rsplit('/').next());
                Signer::Account(id.and_then(|id| id.parse().ok()).expect("an account"))
            }
        };
        let mut state = self.state();
        let key = match &signer {
            Signer::Key(key) => key.clone(),
            Signer::Account(at) => match state.accounts.get(*at) {
                Some((key, _)) => key.clone(),
                None => return Err(("accountDoesNotExist", "it is unknown".into())),
            },
        };
        let coordinate = |name: &str| decoded(key[name].as_str().expect("a coordinate"));
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let signed = format!("{}.{}", part("protected"), part("payload"));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &decoded(part("signature")))
            .map_err(|_| wrong("the signature is wrong"))?;
        let nonce = header["nonce"].as_str().unwrap_or_default();
        let is_known = state.nonces.remove(nonce);
        // Clients must bear that one is refused (section 6.5).
        let is_refused = !std::mem::replace(&mut state.has_refused_a_nonce, true);
        if !is_known || is_refused {
            return Err(("badNonce", "it was used, or is not ours".into()));
        }
        let payload = decoded(part("payload"));
        let payload = match payload.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&payload).expect("JSON"),
        };
        Ok((signer, payload))
    }
}

enum Signer {
    Key(Value),
    Account(usize),
}

fn ok(status: u16, json: Value) -> Answer {
    (status, Vec::new(), json.to_string())
}

fn problem(status: u16, kind: &str, why: &str) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    ok(
        status,
        json!({"type": kind, "detail": why, "status": status}),
    )
}

fn token(order: usize, host: usize) -> String {
    format!("token-{order}-{host}")
}

/// The user of the socket that is connected from the first of these ports of 127.0.0.1 to the second: proc_net(5). The kernel no longer
/// knows the user of one that is closed (TIME_WAIT), and connections to other ports may begin at the same one.
fn user_of(ends: [u16; 2]) -> Option<u32> {
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let ends = ends.map(|port| format!("0100007F:{port:04X}"));
    let rows = table.lines().map(|row| row.split_whitespace());
    let mut rows = rows.map(Iterator::collect::<Vec<_>>);
    let row = rows.find(|row| row.get(1..3).is_some_and(|found| found == ends))?;
    match row.get(3) {
        Some(&TIME_WAIT) => None,
        _ => row.get(7)?.parse().ok(),
    }
}

/// RFC 7638.
fn thumbprint(jwk: &Value) -> String {
    let text = format!(
        "{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":{},\"y\":{}}}",
        jwk["x"], jwk["y"]
    );
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// The way in which it serves.
fn server(issuer: &Issuer<'static, KeyPair>) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let provider = Arc::new(default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key);
    Arc::new(config.expect("they fit"))
}

/// Method, path and body of the next request.
fn request(stream: &mut impl BufRead) -> Option<(String, String, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut field = String::new();
        stream.read_line(&mut field).ok()?;
        let field = field.trim_end().to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((method, path, body))
}

/// Validation believes any certificate, as it looks at what stands in it.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
