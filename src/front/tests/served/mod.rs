//! A server with TLS on a thread of its own, and certificates for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use preforkd_front::tls::Listeners;
use preforkd_front::tls::Way;
use preforkd_front::tls::certificate::{Named, Pair};
use preforkd_front::tls::terms::{Address, ClientAuthority, Terms};
use preforkd_front::tls::tickets::{Key, Keys};
use preforkd_http::{
    Body, Config, Exchange, Files, FrontListeners, Handler, Limits, Origin, Request, Sent,
    serve_inline_over,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An issuer, and a folder in which its files are for other programs.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    pub folder: tempfile::TempDir,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "the issuer of tests");
        let pem = parameters.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &pem).unwrap();
        Self {
            pem,
            issuer: Issuer::new(parameters, key),
            folder,
        }
    }

    pub fn issue(&self, names: &[&str], key: &KeyPair) -> Issued {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let subject = names[0].clone();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, subject);
        parameters
            .distinguished_name
            .push(DnType::OrganizationName, "Tests, and more");
        Issued {
            certificate: parameters.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A pair with a key for ECDSA.
    pub fn pair(&self, names: &[&str]) -> Arc<Pair> {
        pair(&self.issue(names, &KeyPair::generate().unwrap()))
    }

    /// The path of a file with this text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn client(&self) -> ClientConfig {
        Self::client_of(&self.pem)
    }

    /// A client that believes this issuer.
    pub fn client_of(pem: &str) -> ClientConfig {
        client(pem, rustls::DEFAULT_VERSIONS, None)
    }

    pub fn client_with(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> ClientConfig {
        client(&self.pem, versions, own)
    }
}

fn client(
    pem: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
    own: Option<&Issued>,
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let issuer = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(issuer).unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_webpki_verifier(verifier.unwrap());
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            let chain = vec![certificate.unwrap()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

pub fn pair(files: &Issued) -> Arc<Pair> {
    let named = |name, text: &'static str| Named {
        name,
        bytes: text.as_bytes(),
    };
    let certificate = files.certificate.clone().leak();
    let key = files.key.clone().leak();
    Arc::new(Pair::load(named("cert.pem", certificate), named("key.pem", key)).unwrap())
}

pub fn keys(secret: u8) -> Arc<Keys> {
    Keys::new(&[Key::new([secret; 32], 0, u64::MAX)])
}

pub fn terms(pair: Arc<Pair>, keys: &Arc<Keys>) -> Terms {
    terms_with(vec![pair], None, keys)
}

pub fn terms_with(
    pairs: Vec<Arc<Pair>>,
    authority: Option<(&str, bool)>,
    keys: &Arc<Keys>,
) -> Terms {
    let authority = authority.map(|(pem, is_required)| ClientAuthority {
        issuers: Named {
            name: "ca.pem",
            bytes: pem.as_bytes(),
        },
        is_required,
    });
    Terms::new(pairs, &["http/1.1"], authority, keys).unwrap()
}

/// Answers with what is known of TLS, or under `/echo` with the body; under `/file/N` with N bytes of a file; under `/whole` and `/cut` with a
/// body that ends with the connection, of which `/cut` breaks off.
#[derive(Clone)]
struct Site;

impl Handler for Site {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        mut body: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let path = String::from_utf8(request.path().to_vec()).unwrap();
        exchange.begin(b"200 OK").unwrap();
        if let Some(length) = path.strip_prefix("/file/") {
            let length = length.parse().unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&pattern(length)).unwrap();
            exchange.finish(Some(length as u64));
            exchange.send_file(file, 0, length as u64);
            return exchange;
        }
        let mut answer = Vec::new();
        match &*path {
            "/echo" => drop(body.read_to_end(&mut answer).unwrap()),
            "/whole" | "/cut" => answer = pattern(100_000),
            _ => {
                let facts = request.facts().cloned().unwrap_or_default();
                answer = match facts.tls {
                    None => b"plain".to_vec(),
                    Some(tls) => {
                        assert_eq!(facts.https, Some(true));
                        let client = tls.client.as_ref();
                        format!(
                            "{} {} name={} resumed={} client={}",
                            tls.version,
                            tls.cipher,
                            tls.server_name.as_deref().unwrap_or("-"),
                            tls.resumed,
                            client.map_or("-", |client| &client.subject),
                        )
                        .into_bytes()
                    }
                }
            }
        }
        let ends = matches!(&*path, "/whole" | "/cut");
        exchange.finish((!ends).then_some(answer.len() as u64));
        let all = answer.chunks(Exchange::SLICE).all(|slice| {
            exchange.write(slice);
            let sent = exchange.send();
            sent != Sent::Gone && (sent == Sent::Taken || exchange.wait() == Sent::Taken)
        });
        match all && path != "/cut" {
            true => exchange.end(),
            false => exchange.cut(),
        }
        exchange
    }
}

pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// A server until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub listeners: Listeners,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

pub fn serve(address: Address) -> Server {
    serve_with(address, Limits::default(), |_| {})
}

pub fn serve_with(address: Address, limits: Limits, change: impl FnOnce(&mut Config)) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let stop = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let mut config = Config {
        limits: Arc::new(limits),
        listeners: vec![listener.into()],
        files: Files::default(),
        private: false,
        front: FrontListeners::default(),
        proxy_protocol: None,
        layers: Vec::new(),
        stop: vec![stop.as_fd().try_clone_to_owned().unwrap()],
        signals: None,
    };
    change(&mut config);
    let listeners = Listeners::new(vec![Some(Arc::new(address))]);
    let shared = listeners.clone();
    let thread = thread::spawn(move || {
        serve_inline_over::<Way, _>(config, shared, &mut Site, ()).unwrap();
    });
    Server {
        address: local,
        listeners,
        stop,
        thread: Some(thread),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

pub type Client = StreamOwned<ClientConnection, TcpStream>;

impl Server {
    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        let patience = Some(Duration::from_secs(20));
        client.set_read_timeout(patience).unwrap();
        client
    }

    pub fn client(&self, config: &Arc<ClientConfig>, name: &str) -> Client {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        StreamOwned::new(connection, self.connect())
    }

    /// The body of the answer to one request, over this connection.
    pub fn ask(client: &mut Client, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        String::from_utf8(response(client).unwrap()).unwrap()
    }

    pub fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.address.port())
    }

    /// openssl(1) as a client that sends one request.
    pub fn openssl(&self, arguments: &[&str]) -> Output {
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &self.address.to_string(),
                "-ign_eof",
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // It may have ended.
        let _ = input.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        drop(input);
        child.wait_with_output().unwrap()
    }
}

/// The body of one response.
pub fn response(client: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let Some((_, length)) = head.split_once("Content-Length: ") else {
        let mut body = Vec::new();
        client.read_to_end(&mut body)?;
        return Ok(body);
    };
    let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    Ok(body)
}
