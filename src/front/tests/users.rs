//! Whom a program behind FastCGI takes for its user: what the front has found out, and nothing that a client says.

mod common;
mod sited;

use base64ct::{Base64, Encoding as _};
use common::{Upstream, upstream};
use preforkd_worker::front::{Protocol, Target};
use preforkd_worker::layers::{BasicAuth, Changes, ForwardAuth, Layers, Question, User};
use sited::{Served, route, serve_with};

/// The end of a request without a body.
const LAST: &str = "\u{1}\u{5}\0\u{1}\0\0\0\0";

/// All spellings in which a client could try to be somebody.
const LIES: &str = "Remote-User: root\r\nREMOTE-USER: root\r\nRemote_User: root\r\nRemote.User: root\r\nX-Role: root\r\nX_Role: root\r\n\
    x-rolE: root\r\nX-Who: root\r\nProxy: http://root\r\nAuth-Type: root\r\n";

/// A front whose application speaks FastCGI.
fn serve(layers: Layers) -> (Served, Upstream) {
    let (php, at) = upstream();
    let layers = Layers {
        request_headers: Changes {
            set: vec![
                ("X-Role".into(), "shop".into()),
                ("X-Who".into(), "{user}".into()),
            ],
            ..Changes::default()
        },
        ..layers
    };
    let to_php = route("/php", Target::Upstream("php".into()), Layers::default());
    let served = serve_with(layers, vec![to_php], |settings| {
        let mut other = settings.upstreams["app"].clone();
        other.addresses = vec![at.to_string()];
        other.speech.protocol = Protocol::FastCgi;
        settings.upstreams.insert("php".into(), other);
    });
    (served, php)
}

/// The variables of a request, as they are sent.
fn variables(php: &Upstream) -> String {
    php.accept().read_to(LAST)
}

/// How often a variable of this name is there, whatever it is a part of.
fn count(variables: &str, name: &str) -> usize {
    variables.matches(name).count()
}

#[test]
fn the_user_is_the_one_of_the_password() {
    let ann = User {
        name: "ann".into(),
        hash: bcrypt::hash_with_salt("secret", 4, [1; 16])
            .unwrap()
            .to_string(),
    };
    let (served, php) = serve(Layers {
        basic_auth: BasicAuth::All {
            realm: "Shop".into(),
            users: vec![ann],
        },
        ..Layers::default()
    });
    let shown = Base64::encode_string(b"ann:secret");
    let _client = served.get("/php", &format!("Authorization: Basic {shown}\r\n{LIES}"));
    let found = variables(&php);
    for (name, value) in [
        ("REMOTE_USER", "ann"),
        ("AUTH_TYPE", "Basic"),
        ("HTTP_X_ROLE", "shop"),
        ("HTTP_X_WHO", "ann"),
    ] {
        assert!(found.contains(&format!("{name}{value}")), "{found:?}");
    }
    // A field of that name is another variable.
    assert_eq!(count(&found, "\u{b}\u{3}REMOTE_USERann"), 1, "{found:?}");
    assert_eq!(
        (count(&found, "X_ROLE"), count(&found, "X_WHO")),
        (1, 1),
        "{found:?}"
    );
    assert_eq!(count(&found, "HTTP_PROXY"), 0, "{found:?}");
}

#[test]
fn the_user_is_the_one_of_whoever_was_asked() {
    for (answer, user) in [("Remote-User: ann\r\n", "ann"), ("", "")] {
        let (served, php) = serve(Layers {
            forward_auth: ForwardAuth::Asks(Question {
                upstream: "app".into(),
                path: "/verify".into(),
                headers: vec!["Remote-User".into()],
                user: "Remote-User".into(),
            }),
            ..Layers::default()
        });
        let _client = served.get("/php", LIES);
        let (mut asked, question) = served.upstream.request();
        assert!(!question.contains("Remote-User"), "{question}");
        asked.write(&format!("HTTP/1.1 204 No Content\r\n{answer}\r\n"));
        let found = variables(&php);
        let is_known = usize::from(!user.is_empty());
        assert_eq!(
            count(&found, "\u{b}\u{3}REMOTE_USERann"),
            is_known,
            "{found:?}"
        );
        assert_eq!(count(&found, "HTTP_REMOTE_USERann"), is_known, "{found:?}");
        assert_eq!(count(&found, "REMOTE_USER"), 2 * is_known, "{found:?}");
        assert_eq!(count(&found, "HTTP_X_WHO"), is_known, "{found:?}");
        assert!(found.contains("HTTP_X_ROLEshop"), "{found:?}");
        assert!(
            !found.contains("HTTP_PROXY") && count(&found, "X_ROLE") == 1,
            "{found:?}"
        );
        // The only lie that is left has a name of its own.
        assert_eq!(
            count(&found, "root"),
            count(&found, "HTTP_AUTH_TYPEroot"),
            "{found:?}"
        );
    }
}
