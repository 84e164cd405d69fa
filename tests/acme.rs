//! Sites whose certificates an authority issues: `tls = "auto"`.

#[path = "acme/authority.rs"]
mod authority;
mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use authority::{Authority, Behaviour};
use common::kept::Kept;
use common::{Run, app, build_front, worker};
use serde_json::json;

/// Two workers of the front, and a site with TLS and one without.
fn config(authority: &Authority, email: &str, more: &str) -> String {
    build_front();
    format!(
        "[master]\ncontrol = 'control'\nstate = 'state'\n{}\n[app.api]\ncommand = '{}'\n\
         [front]\nworkers = 2\nacme = {{ directory = '{}', ca = 'ca.pem', email = '{email}' }}\n\
         [site.http]\nlisten = 'unix:http.sock'\nredirect = 'https'\n\
         [site.shop]\nlisten = 'unix:tls.sock'\napp = 'api'\ntls = 'auto'\n{more}\n",
        app(""),
        worker(),
        authority.directory,
    )
}

/// A user for the front that has no rights, where there can be one: for a master that is root, and a program that everybody can execute.
fn user_of_front(folder: &Path) -> Option<u32> {
    let program = Path::new(env!("CARGO_BIN_EXE_preforkd"));
    let is_open = program.ancestors().all(|path| mode(path) & 0o001 != 0);
    let user = (nix::unistd::geteuid().is_root() && is_open).then_some(65534)?;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("ours");
    Some(user)
}

/// Whether each of some connections, which go to both workers, shows a certificate for this host that one of these has issued.
fn all_trust(run: &Run, host: &str, trusted: &str) -> bool {
    (0..6).all(|_| {
        let output = Command::new("curl")
            .args(["--silent", "--noproxy", "*", "--http1.1", "--unix-socket"])
            .arg(run.path("tls.sock"))
            .arg("--cacert")
            .arg(run.path(trusted))
            .arg(format!("https://{host}/echo"))
            .output();
        output.expect("curl runs").status.success()
    })
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o777
}

const HANDED: &str = "app=front: new certificates, handed to 2 workers";

#[test]
fn a_certificate_is_issued_while_another_one_is_shown_and_outlasts_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut behaviour = Behaviour::offering(&["dns-01", "http-01"]);
    behaviour.holds = true;
    let authority = Authority::begin(folder.path(), behaviour);
    let hosts = "hosts = ['shop.example', 'www.shop.example']";
    let mut config = config(&authority, "admin@shop.example", hosts);
    let user = user_of_front(folder.path());
    if let Some(user) = user {
        let with = format!("[front]\nuser = '{user}'\ngroup = '{user}'\n");
        config = config.replace("[front]\n", &with);
    }
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    run.logged(&[
        "site=shop: ordering a certificate for shop.example, www.shop.example",
        "clients are shown one that stands for itself",
    ]);
    // Nothing is issued yet, and there is service.
    let mut kept = [
        Kept::open(&run, "shop.example"),
        Kept::open(&run, "shop.example"),
        Kept::open(&run, "shop.example"),
    ];
    assert!(kept.iter_mut().all(|kept| kept.ask() == "HTTP/1.1 200 OK"));
    assert!(!all_trust(&run, "shop.example", "ca.pem"));
    authority.change(|now| now.holds = false);
    run.logged(&["site=shop: a certificate for shop.example, www.shop.example was issued"]);
    run.logged(&[HANDED]);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    assert!(all_trust(&run, "www.shop.example", "ca.pem"));
    assert!(kept.iter_mut().all(|kept| kept.ask() == "HTTP/1.1 200 OK"));
    assert_eq!(authority.contact(), json!(["mailto:admin@shop.example"]));
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!(authority.users(), [user.unwrap_or(own)]);
    assert_eq!(mode(&run.path("state/acme")), 0o700);
    for name in ["site-shop.pem", "site-shop.json"] {
        assert_eq!(mode(&run.path("state/acme").join(name)), 0o600, "{name}");
    }
    drop(kept);
    run.stop();

    // It is there at once, and nobody is asked.
    let mut run = run.next_master(&config, |_| {});
    run.message("READY=1");
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    assert_eq!((authority.asked(), authority.accounts()), (1, 1));

    // A host more wants another one, by the same account; the old one is shown until then.
    authority.change(|now| now.holds = true);
    run.write(
        "app.toml",
        &config.replace("'www.shop.example'", "'www.shop.example', 'new.example'"),
    );
    run.reload();
    run.logged(&[
        "site=shop: ordering a certificate for shop.example, www.shop.example, new.example",
        "the one that runs is good until",
    ]);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    authority.change(|now| now.holds = false);
    run.logged(&["new.example was issued"]);
    run.logged(&[HANDED]);
    assert!(all_trust(&run, "new.example", "ca.pem"));
    assert_eq!((authority.asked(), authority.accounts()), (2, 1));
    run.stop();
}

#[test]
fn a_certificate_is_renewed_by_handshakes_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut behaviour = Behaviour::offering(&["tls-alpn-01"]);
    behaviour.life = 9;
    let authority = Authority::begin(folder.path(), behaviour);
    let config = config(&authority, "admin@shop.example", "hosts = 'shop.example'");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    run.logged(&["site=shop: a certificate for shop.example was issued"]);
    run.logged(&[HANDED]);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    let mut kept = Kept::open(&run, "shop.example");
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK");
    let first = std::fs::read(run.path("state/acme/site-shop.pem")).expect("it is there");
    authority.change(|now| now.life = 3600);
    run.logged(&["site=shop: ordering", "the one that runs is good until"]);
    run.logged(&["site=shop: a certificate for shop.example was issued"]);
    run.logged(&[HANDED]);
    let second = std::fs::read(run.path("state/acme/site-shop.pem")).expect("it is there");
    assert_ne!(first, second);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK");
    assert_eq!((authority.asked(), authority.accounts()), (2, 1));
    run.stop();
}

#[test]
fn an_authority_that_refuses_is_left_alone_for_as_long_as_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut behaviour = Behaviour::offering(&["http-01"]);
    let limited = "urn:ietf:params:acme:error:rateLimited";
    let limited = json!({"type": limited, "detail": "too many certificates", "status": 429});
    behaviour.refuses = Some((limited, 3 * 3600));
    let authority = Authority::begin(folder.path(), behaviour);
    let hosts = "hosts = 'shop.example'";
    let first = config(&authority, "admin@shop.example", hosts);
    let mut run = Run::begin_in(folder, &first, |_| {});
    run.message("READY=1");
    run.logged(&[
        "site=shop: cannot get a certificate for shop.example",
        "too many certificates",
        "trying again in 3h",
    ]);
    let mut kept = Kept::open(&run, "shop.example");
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK");
    // Neither a reload nor a restart asks again.
    run.reload();
    drop(kept);
    run.stop();
    let mut run = run.next_master(&first, |_| {});
    run.message("READY=1");
    run.logged(&["site=shop: no certificate is ordered before"]);
    assert_eq!((authority.asked(), authority.accounts()), (1, 1));
    // What the operator has changed may be what helps.
    authority.change(|now| now.refuses = None);
    run.write("app.toml", &config(&authority, "root@shop.example", hosts));
    run.reload();
    run.logged(&["site=shop: a certificate for shop.example was issued"]);
    run.logged(&[HANDED]);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    assert_eq!(authority.contact(), json!(["mailto:root@shop.example"]));
    run.stop();
}

#[test]
fn an_authority_that_wants_to_be_asked_later_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut behaviour = Behaviour::offering(&["http-01"]);
    behaviour.later = Some(3 * 3600);
    let authority = Authority::begin(folder.path(), behaviour);
    let config = config(&authority, "admin@shop.example", "hosts = 'shop.example'");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    run.logged(&[
        "site=shop: cannot get a certificate for shop.example",
        "trying again in 3h",
    ]);
    assert_eq!(authority.asked(), 1);
    run.stop();
}

#[test]
fn a_challenge_that_is_not_answered_is_said_with_its_reason_and_a_lost_account_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::begin(folder.path(), Behaviour::offering(&["http-01"]));
    let hosts = "hosts = 'shop.example'";
    let good = config(&authority, "admin@shop.example", hosts);
    // The authority comes to where nobody is.
    let elsewhere = good.replace("unix:http.sock", "unix:other.sock");
    let mut run = Run::begin_in(folder, &elsewhere, |_| {});
    run.message("READY=1");
    let line = run.logged(&["site=shop: cannot get a certificate for shop.example"]);
    for part in ["No such file", "port 80 or 443", "trying again in 1m"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(authority.asked(), 1);
    authority.forget_accounts();
    // Nothing that the site does with requests stands in the way.
    std::fs::create_dir(run.path("files")).expect("room");
    run.write("sorry.txt", "sorry");
    let closed = "redirect = 'https'\nmaintenance = 'sorry.txt'\ndeny = ['unix']\nstatic = { '/.well-known/' = 'files' }";
    let closed = good.replace("redirect = 'https'", closed);
    run.write("app.toml", &closed.replace("admin@", "root@"));
    run.reload();
    run.logged(&["site=shop: a certificate for shop.example was issued"]);
    run.logged(&["app=front: new certificates"]);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    assert_eq!((authority.asked(), authority.accounts()), (2, 1));
    run.stop();
}

#[test]
fn nothing_is_ordered_that_could_not_be_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::begin(folder.path(), Behaviour::offering(&["http-01"]));
    let config = config(&authority, "admin@shop.example", "hosts = 'shop.example'");
    std::fs::write(folder.path().join("state"), "a file").expect("room");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let line = run.logged(&["cannot keep certificates in", "/state: "]);
    assert!(
        line.contains("`[master] state` names another folder"),
        "{line}"
    );
    assert_eq!(authority.asked(), 0);
    assert_eq!(Kept::open(&run, "shop.example").ask(), "HTTP/1.1 200 OK");
    // When it can, that is found without a reload.
    std::fs::remove_file(run.path("state")).expect("ours");
    run.logged(&["site=shop: a certificate for shop.example was issued"]);
    run.logged(&[HANDED]);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    run.stop();
}

#[test]
fn a_certificate_that_is_not_the_one_that_was_ordered_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut behaviour = Behaviour::offering(&["http-01"]);
    behaviour.mistakes = Some("other.example");
    let authority = Authority::begin(folder.path(), behaviour);
    let config = config(&authority, "admin@shop.example", "hosts = 'shop.example'");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    run.logged(&[
        "site=shop: cannot get a certificate for shop.example",
        "what was issued cannot be used: it is not for shop.example",
        "clients are shown one that stands for itself",
    ]);
    assert!(!run.path("state/acme/site-shop.pem").exists());
    assert_eq!(Kept::open(&run, "shop.example").ask(), "HTTP/1.1 200 OK");
    run.stop();
}

#[test]
fn an_account_is_bound_to_the_external_one_of_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut behaviour = Behaviour::offering(&["http-01"]);
    behaviour.external = Some(("shop", b"the right key"));
    let authority = Authority::begin(folder.path(), behaviour);
    let without = config(&authority, "admin@shop.example", "hosts = 'shop.example'");
    let mut run = Run::begin_in(folder, &without, |_| {});
    run.message("READY=1");
    run.logged(&[
        "there is no external account",
        "change the hosts or `acme`, and reload",
    ]);
    let eab = ", eab = { key_id = 'shop', hmac_key = 'file:eab-key' } }\n[site.http]";
    let with = without.replacen(" }\n[site.http]", eab, 1);
    assert_ne!(with, without);
    // In the base64 of URLs: "a wrong key", and then the right one.
    for (key, expected) in [
        ("YSB3cm9uZyBrZXk", "that is not the external account"),
        (
            "dGhlIHJpZ2h0IGtleQ==\n",
            "site=shop: a certificate for shop.example was issued",
        ),
    ] {
        run.write("eab-key", key);
        run.write("app.toml", &with);
        run.reload();
        run.logged(&[expected]);
    }
    run.logged(&[HANDED]);
    assert!(all_trust(&run, "shop.example", "ca.pem"));
    assert_eq!((authority.asked(), authority.accounts()), (1, 1));
    let log = run.stop();
    let has_key = log.contains("dGhlIHJpZ2h0") || log.contains("YSB3cm9uZyBrZXk");
    assert!(!has_key, "{log}");
}
