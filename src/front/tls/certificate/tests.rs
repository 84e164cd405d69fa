//! What is said of files that are wrong.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

use super::*;

struct Chain {
    leaf: String,
    intermediate: String,
    root: String,
    key: String,
    key_of_intermediate: String,
}

fn issuer(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

fn chain() -> Chain {
    let root = CertifiedIssuer::self_signed(issuer("root"), KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let key_of_intermediate = key.serialize_pem();
    let intermediate = CertifiedIssuer::signed_by(issuer("intermediate"), key, &root).unwrap();
    let names = ["Example.com", "*.example.com", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.not_before = date_time_ymd(2025, 3, 1);
    parameters.not_after = date_time_ymd(2026, 1, 2);
    let key = KeyPair::generate().unwrap();
    Chain {
        leaf: parameters.signed_by(&key, &intermediate).unwrap().pem(),
        intermediate: intermediate.pem(),
        root: root.pem(),
        key: key.serialize_pem(),
        key_of_intermediate,
    }
}

fn load(chain: &str, key: &str) -> Result<Pair, String> {
    let named = |name, text: &'static str| Named {
        name,
        bytes: text.as_bytes(),
    };
    Pair::load(
        named("cert.pem", chain.to_owned().leak()),
        named("key.pem", key.to_owned().leak()),
    )
}

/// Midnight of the 1st of January of 2026, and so many days later.
fn day_of_2026(day: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600 + day * 86_400)
}

#[test]
fn a_good_pair_knows_its_names_and_its_time() {
    let Chain {
        leaf,
        intermediate,
        root,
        key,
        ..
    } = chain();
    for chain in [
        leaf.clone(),
        format!("{leaf}{intermediate}"),
        format!("a comment\n{leaf}\n\n{intermediate}{root}"),
    ] {
        let pair = load(&chain, &key).unwrap();
        assert_eq!(pair.names().hosts(), ["example.com", "*.example.com"]);
        assert!(pair.names().cover("192.0.2.1") && pair.names().cover("[2001:db8::1]"));
        assert_eq!(pair.expires(), 1_767_225_600 + 86_400);
        assert_eq!(pair.check_time(day_of_2026(0)), Ok(()));
        assert_eq!(
            pair.check_time(day_of_2026(2)),
            Err("cert.pem: expired on 2026-01-02".to_owned())
        );
        assert_eq!(
            pair.check_time(UNIX_EPOCH),
            Err("cert.pem: is not valid before 2025-03-01".to_owned())
        );
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let Chain {
        leaf,
        intermediate,
        root,
        key,
        key_of_intermediate,
    } = chain();
    let error = |chain: &str, key: &str| load(chain, key).unwrap_err();
    let other = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(error(&leaf, &other), "key.pem does not belong to cert.pem");
    assert_eq!(
        error(&format!("{intermediate}{leaf}"), &key),
        "cert.pem: key.pem belongs to its certificate 2 (put that first)"
    );
    assert_eq!(
        error(&format!("{leaf}{root}{intermediate}"), &key),
        "cert.pem: its certificate 1 (CN=rcgen self signed cert) was not issued by the next one (CN=root), but by CN=intermediate \
         (put each issuer behind what it has issued)"
    );
    assert_eq!(
        error(&format!("{leaf}{leaf}"), &key_of_intermediate),
        "key.pem does not belong to cert.pem"
    );
}

#[test]
fn files_that_hold_something_else_are_named() {
    let Chain { leaf, key, .. } = chain();
    let error = |chain: &str, key: &str| load(chain, key).unwrap_err();
    for (chain, key, expected) in [
        ("", &*key, "cert.pem: holds no certificate (such as"),
        (
            &*key,
            &*leaf,
            "cert.pem: holds no certificate (a private key is there instead; are the two",
        ),
        (
            &*leaf,
            &*leaf,
            "key.pem: holds no private key (a certificate is there instead; are the two",
        ),
        (&*leaf, "text", "key.pem: holds no private key (such as"),
        (
            &*leaf,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "key.pem: the key is encrypted (`openssl pkey -in key.pem`",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &*key,
            "cert.pem: its certificate 1 cannot be read: ",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
            &*key,
            "cert.pem: is not in the form PEM: ",
        ),
        (
            &*leaf,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "key.pem: is no key that can be used (ECDSA",
        ),
    ] {
        let error = error(chain, key);
        assert!(error.starts_with(expected), "{error}");
    }
    // A file that was written half.
    for length in [leaf.len() / 2, leaf.len() - 3] {
        assert!(error(&leaf[..length], &key).starts_with("cert.pem: "));
    }
}
