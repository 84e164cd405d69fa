//! TLS as clients see it: openssl(1), curl(1), Python and rustls, through sockets.

mod served;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use preforkd_front::tls::terms::Address;
use preforkd_front::tls::tickets::{Key, Keys};
use preforkd_http::{Files, Limits, TrustedProxies};
use preforkd_worker::settings::Mapping;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use served::{Authority, Server, keys, pair, pattern, response, serve, serve_with};
use served::{terms, terms_with};

/// A server for `localhost` and 127.0.0.1.
fn local(authority: &Authority) -> Server {
    let pair = authority.pair(&["localhost", "127.0.0.1"]);
    serve(Address::new(terms(pair, &keys(1))))
}

#[test]
fn old_versions_and_ciphers_without_authentication_are_refused() {
    let authority = Authority::new();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let pair = pair(&authority.issue(&["localhost"], &rsa));
    let server = serve(Address::new(terms(pair, &keys(1))));
    for (arguments, expected) in [
        (&["-tls1_3"][..], Some("TLSv1.3 TLS_AES_")),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            Some("TLSv1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 "),
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"],
            Some("TLSv1.2 TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 "),
        ),
        // No AEAD; no forward secrecy; old.
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"], None),
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], None),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], None),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], None),
    ] {
        let output = server.openssl(arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        match expected {
            Some(expected) => assert!(text.contains(expected), "{arguments:?}: {text}"),
            None => {
                assert!(!text.contains("200 OK"), "{arguments:?}: {text}");
                // It was told why.
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(error.contains(" alert "), "{arguments:?}: {error}");
            }
        }
    }
}

#[test]
fn nothing_is_negotiated_again() {
    let authority = Authority::new();
    let server = local(&authority);
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect"])
        .arg(server.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command that asks for it.
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"R\n").unwrap();
    let output = client.wait_with_output().unwrap();
    drop(input);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
    assert!(!output.status.success());
}

#[test]
fn the_name_chooses_the_certificate_and_an_unknown_one_gets_the_default() {
    let authority = Authority::new();
    let keys = keys(1);
    let mut address = Address::new(terms(authority.pair(&["default.example"]), &keys));
    for name in ["a.example", "*.b.example", "x.b.example"] {
        address.add(name, &terms(authority.pair(&[name]), &keys));
    }
    let server = serve(address);
    let script = authority.file(
        "names.py",
        "import socket, ssl, sys\n\
         for name in sys.argv[3:]:\n\
         \x20   context = ssl.create_default_context(cafile=sys.argv[1])\n\
         \x20   context.check_hostname = False\n\
         \x20   with socket.create_connection(('127.0.0.1', int(sys.argv[2]))) as plain:\n\
         \x20       with context.wrap_socket(plain, server_hostname=name or None) as tls:\n\
         \x20           print(tls.getpeercert()['subjectAltName'][0][1], tls.compression(), tls.selected_alpn_protocol())\n",
    );
    let output = Command::new("python3")
        .arg(script)
        .arg(authority.folder.path().join("ca.pem"))
        .arg(server.address.port().to_string())
        .args([
            "a.example",
            "A.EXAMPLE",
            "y.b.example",
            "x.b.example",
            "b.example",
            "other.example",
            "",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = ["a.example", "a.example", "*.b.example", "x.b.example"]
        .into_iter()
        .chain(["default.example"; 3])
        .map(|name| format!("{name} None None\n"))
        .collect::<String>();
    assert_eq!(
        text,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_client_gets_the_kind_of_certificate_that_it_knows() {
    let authority = Authority::new();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let rsa = pair(&authority.issue(&["localhost"], &rsa));
    let ecdsa = authority.pair(&["localhost"]);
    let server = serve(Address::new(terms_with(vec![ecdsa, rsa], None, &keys(1))));
    for (algorithms, expected) in [
        ("ECDSA+SHA256", "Peer signature type: ECDSA"),
        ("RSA-PSS+SHA256:RSA+SHA256", "Peer signature type: RSA-PSS"),
        ("RSA-PSS+SHA256:ECDSA+SHA256", "Peer signature type: ECDSA"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let output = server.openssl(&[version, "-sigalgs", algorithms]);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(expected), "{version} {algorithms}: {text}");
            assert!(text.contains("200 OK"), "{version} {algorithms}: {text}");
        }
    }
}

#[test]
fn a_session_goes_on_with_any_server_that_has_the_keys() {
    let authority = Authority::new();
    let pair = authority.pair(&["localhost"]);
    let key = |secret| Key::new([secret; 32], 0, u64::MAX);
    let server = |keys: &[Key]| {
        let terms = terms(pair.clone(), &Keys::new(keys));
        serve(Address::new(terms))
    };
    let servers = [server(&[key(1)]), server(&[key(1)])];
    for version in [&TLS13, &TLS12] {
        let config = Arc::new(authority.client_with(&[version], None));
        let kind = |server: &Server| {
            let mut client = server.client(&config, "localhost");
            let text = Server::ask(&mut client, "/");
            let kind = client.conn.handshake_kind().unwrap();
            let resumed = kind == HandshakeKind::Resumed;
            assert!(text.contains(&format!("resumed={resumed} ")), "{text}");
            resumed
        };
        assert!(!kind(&servers[0]));
        for n in 1..=50 {
            assert!(kind(&servers[n % 2]), "{n}");
        }
        // The old key is accepted beside the new one; then it is gone.
        assert!(kind(&server(&[key(2), key(1)])));
        assert!(kind(&server(&[key(2)])));
        assert!(!kind(&server(&[key(3)])));
        let too_old = Key::new([3; 32], 0, 1);
        assert!(!kind(&server(&[key(4), too_old])));
        assert!(kind(&server(&[key(4)])));
    }
}

#[test]
fn a_session_without_a_certificate_does_not_go_on_where_one_is_asked_for() {
    let authority = Authority::new();
    let (pair, keys) = (authority.pair(&["localhost"]), keys(1));
    let open = serve(Address::new(terms(pair.clone(), &keys)));
    let issuers = Some((&*authority.pem, false));
    let asks = serve(Address::new(terms_with(vec![pair], issuers, &keys)));
    for version in [&TLS13, &TLS12] {
        let config = Arc::new(authority.client_with(&[version], None));
        let resumed = |server: &Server| {
            let mut client = server.client(&config, "localhost");
            Server::ask(&mut client, "/").contains("resumed=true")
        };
        assert!(!resumed(&open));
        assert!(resumed(&open));
        assert!(!resumed(&asks));
        assert!(resumed(&asks));
        assert!(!resumed(&open));
    }
}

#[test]
fn clients_show_certificates_where_they_are_to() {
    let authority = Authority::new();
    let (pair, keys) = (authority.pair(&["localhost"]), keys(1));
    let server = |is_required| {
        let issuers = Some((&*authority.pem, is_required));
        serve(Address::new(terms_with(vec![pair.clone()], issuers, &keys)))
    };
    let alice = authority.issue(&["alice"], &KeyPair::generate().unwrap());
    let stranger = Authority::new().issue(&["alice"], &KeyPair::generate().unwrap());
    for version in [&TLS13, &TLS12] {
        let ask = |server: &Server, own| {
            let config = Arc::new(authority.client_with(&[version], own));
            let mut client = server.client(&config, "localhost");
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            response(&mut client).map(|body| String::from_utf8(body).unwrap())
        };
        let (required, asked) = (server(true), server(false));
        for server in [&required, &asked] {
            let text = ask(server, Some(&alice)).unwrap();
            let subject = "client=O=Tests\\, and more,CN=alice";
            assert!(text.ends_with(subject), "{text}");
            assert!(ask(server, Some(&stranger)).is_err());
        }
        assert!(ask(&asked, None).unwrap().ends_with("client=-"));
        let error = ask(&required, None).unwrap_err().to_string();
        assert!(
            error.contains("CertificateRequired") || error.contains("HandshakeFailure"),
            "{error}"
        );
    }
}

#[test]
fn a_response_that_breaks_off_does_not_look_whole() {
    let authority = Authority::new();
    let server = local(&authority);
    let config = Arc::new(authority.client());
    for (path, whole) in [("/whole", true), ("/cut", false)] {
        let mut client = server.client(&config, "localhost");
        let request = format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        match response(&mut client) {
            Ok(body) => assert!(whole && body == pattern(100_000), "{path}"),
            Err(error) => {
                let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
                assert!(!whole && kinds.contains(&error.kind()), "{path}: {error}");
            }
        }
    }
}

#[test]
fn plain_http_is_told_that_the_port_is_for_tls() {
    let authority = Authority::new();
    let server = local(&authority);
    for rest in [0, 1_000_000] {
        let mut client = server.connect();
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
            .unwrap();
        client.write_all(&vec![b'x'; rest]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(body.contains("plain HTTP was sent to a port for TLS"));
    }
    // What is neither gets an alert (RFC 8446 section 6), and whoever says nothing gets nothing.
    let mut client = server.connect();
    client.write_all(b"\0\0\0\0\0\0\0\0").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&21));
    let mut client = server.connect();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_handshake_ends_by_its_deadline() {
    let authority = Authority::new();
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        keepalive_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let pair = authority.pair(&["localhost"]);
    let server = serve_with(Address::new(terms(pair, &keys(1))), limits, |_| {});
    // A record of 16 kB that comes a byte at a time.
    let begin = Instant::now();
    let mut client = server.connect();
    client
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    client.write_all(&[22, 3, 1, 64, 0, 1, 0, 63]).unwrap();
    loop {
        match client.read(&mut [0; 100]) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(n) => panic!("{n} bytes"),
            Err(_) => break,
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
        if client.write_all(&[0]).is_err() {
            break;
        }
    }
    assert!(begin.elapsed() >= Duration::from_millis(300));
    // One that stops when the server has answered.
    let config = Arc::new(authority.client());
    let mut client = server.client(&config, "localhost");
    client.conn.write_tls(&mut client.sock).unwrap();
    let mut answer = Vec::new();
    client.sock.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&22));
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let authority = Authority::new();
    let server = local(&authority);
    for version in [&TLS13, &TLS12] {
        let config = Arc::new(authority.client_with(&[version], None));
        let mut client = server.client(&config, "localhost");
        client.sock.set_nodelay(true).unwrap();
        client
            .conn
            .writer()
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        while client.conn.is_handshaking() || client.conn.wants_write() {
            let mut bytes = Vec::new();
            while client.conn.wants_write() {
                client.conn.write_tls(&mut bytes).unwrap();
            }
            for byte in bytes.chunks(1) {
                client.sock.write_all(byte).unwrap();
            }
            if client.conn.is_handshaking() {
                client.conn.read_tls(&mut client.sock).unwrap();
                client.conn.process_new_packets().unwrap();
            }
        }
        let text = String::from_utf8(response(&mut client).unwrap()).unwrap();
        assert!(text.starts_with("TLSv1."), "{text}");
    }
}

#[test]
fn large_bodies_go_both_ways_at_once() {
    const LENGTH: usize = 10_000_000;
    let authority = Authority::new();
    let server = local(&authority);
    let config = Arc::new(authority.client());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = server.client(&config, "localhost");
                let head =
                    format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
                for _ in 0..2 {
                    client.write_all(head.as_bytes()).unwrap();
                    client.write_all(&pattern(LENGTH)).unwrap();
                    assert!(response(&mut client).unwrap() == pattern(LENGTH));
                }
                let text = Server::ask(&mut client, "/");
                assert!(text.starts_with("TLSv1.3"), "{text}");
            });
        }
        // Requests that come while a response is on its way.
        scope.spawn(|| {
            let mut client = server.client(&config, "localhost");
            for _ in 0..5 {
                client
                    .write_all(b"GET /file/10000000 HTTP/1.1\r\nHost: a\r\n\r\n")
                    .unwrap();
            }
            for _ in 0..5 {
                assert!(response(&mut client).unwrap() == pattern(LENGTH));
            }
        });
    });
}

#[test]
fn curl_gets_a_file_whole_and_keeps_the_connection() {
    let authority = Authority::new();
    let server = local(&authority);
    let url = server.url("localhost", "/file/3000000");
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
                "--write-out",
                "%{num_connects} %{http_version};",
            ])
            .args(match version {
                "--tlsv1.3" => &["--tlsv1.3"][..],
                _ => &["--tls-max", "1.2"],
            })
            .arg("--cacert")
            .arg(authority.folder.path().join("ca.pem"))
            .args([
                "--resolve",
                &format!("localhost:{}:127.0.0.1", server.address.port()),
            ])
            .args([&*url, "-o"])
            .arg(authority.folder.path().join("one"))
            .args([&*url, "-o"])
            .arg(authority.folder.path().join("two"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, "1 1.1;0 1.1;", "{version}: {error}");
        for name in ["one", "two"] {
            let file = std::fs::read(authority.folder.path().join(name)).unwrap();
            assert!(file == pattern(3_000_000));
        }
    }
}

#[test]
fn a_file_in_memory_comes_whole_however_slowly_it_is_taken() {
    let authority = Authority::new();
    let body = pattern(40_000);
    std::fs::write(authority.folder.path().join("small"), &body).unwrap();
    let mapping = Mapping {
        path: authority.folder.path().to_path_buf(),
        ..Mapping::default()
    };
    let address = Address::new(terms(authority.pair(&["localhost"]), &keys(1)));
    let server = serve_with(address, Limits::default(), |config| {
        config.files = Files::new(&[("/".to_owned(), mapping)].into(), "", "test".into()).unwrap();
    });
    let mut client = server.client(&Arc::new(authority.client()), "localhost");
    // More than the buffers of both sockets hold, so that writes end anywhere.
    const REQUESTS: usize = 500;
    let request = "GET /small HTTP/1.1\r\nHost: a\r\n\r\n";
    client
        .write_all(request.repeat(REQUESTS).as_bytes())
        .unwrap();
    for number in 0..REQUESTS {
        assert!(response(&mut client).unwrap() == body, "{number}");
    }
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let authority = Authority::new();
    let pair = authority.pair(&["localhost"]);
    let trusted = TrustedProxies {
        unix: false,
        networks: vec!["127.0.0.0/8".parse().unwrap()],
    };
    let address = Address::new(terms(pair, &keys(1)));
    let server = serve_with(address, Limits::default(), |config| {
        config.proxy_protocol = Some(trusted);
    });
    let config = Arc::new(authority.client());
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n";
    // In one segment with the hello, and alone.
    for together in [true, false] {
        let mut client = server.client(&config, "localhost");
        let mut bytes = header.to_vec();
        if together {
            client.conn.write_tls(&mut bytes).unwrap();
        }
        client.sock.write_all(&bytes).unwrap();
        let text = Server::ask(&mut client, "/");
        assert!(text.starts_with("TLSv1.3"), "{text}");
    }
}

#[test]
fn certificates_are_exchanged_under_open_connections() {
    let authority = Authority::new();
    let server = local(&authority);
    let config = Arc::new(authority.client());
    let mut old = server.client(&config, "localhost");
    Server::ask(&mut old, "/");
    let next = authority.pair(&["next.example"]);
    let address = Address::new(terms(next, &keys(1)));
    server.listeners.replace(vec![Some(Arc::new(address))]);
    let mut new = server.client(&config, "next.example");
    let text = Server::ask(&mut new, "/");
    assert!(text.contains("name=next.example"), "{text}");
    let text = Server::ask(&mut old, "/");
    assert!(text.contains("name=localhost"), "{text}");
}

#[test]
fn the_helper_looks_at_files_before_they_are_used() {
    let authority = Authority::new();
    let good = authority.issue(&["a.example", "*.a.example"], &KeyPair::generate().unwrap());
    let other = authority.issue(&["b.example"], &KeyPair::generate().unwrap());
    let certificate = authority.file("good.pem", &good.certificate);
    let key = authority.file("good.key", &good.key);
    let wrong = authority.file("other.key", &other.key);
    let issuers = authority.folder.path().join("ca.pem");
    let check = |arguments: &[&std::path::Path]| {
        let output = Command::new(env!("CARGO_BIN_EXE_preforkd-front"))
            .arg("check-certificates")
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (ok, names, errors) = check(&["--issuers".as_ref(), &issuers, &certificate, &key]);
    assert!(ok && errors.is_empty(), "{errors}");
    let (expires, names) = names.split_once(' ').unwrap();
    assert!(expires.parse::<u64>().unwrap() > 1_800_000_000);
    assert_eq!(names, "a.example *.a.example\n");
    let missing = authority.folder.path().join("missing");
    let (ok, names, errors) = check(&[
        &certificate,
        &wrong,
        &certificate,
        &key,
        "--issuers".as_ref(),
        &key,
        &missing,
        &key,
    ]);
    assert!(!ok);
    assert_eq!(names.lines().count(), 1);
    let errors: Vec<_> = errors.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (line, part) in errors.iter().zip([
        "other.key does not belong to ",
        "good.key: holds no certificate (a private key is there instead",
        "could not read ",
    ]) {
        assert!(line.contains(part), "{line}");
    }
}
