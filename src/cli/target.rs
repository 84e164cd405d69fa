//! What the first word of the command line is, if it is no command: an application or a configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The file that counts if none is named.
pub(super) const USUAL: &str = "app.toml";

/// What is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A configuration.
    File(PathBuf),
    /// An application of Python.
    Application(String),
}

/// What a word that is none of these `commands` names.
///
/// # Errors
/// Neither; what it may have been meant for.
pub(super) fn target(word: &str, commands: &[&str]) -> Result<Target, String> {
    if word.ends_with(".toml") {
        return Ok(Target::File(word.into()));
    }
    if is_address(word) {
        return Err(format!(
            "\"{word}\" is an address, and no application (write --bind {word}, and name the application: preforkd mysite.wsgi)"
        ));
    }
    if let Some(advice) = of_another_server(word) {
        return Err(format!("{word}: {advice}"));
    }
    if word.contains([':', '.']) {
        return Ok(Target::Application(word.to_owned()));
    }
    let near = commands
        .iter()
        .map(|command| (strsim::jaro_winkler(word, command), command))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match near {
        Some((score, command)) if score > 0.8 => format!("did you mean `{command}`?"),
        _ => format!(
            "an application is written with its module and a colon, {word}:application; the commands are {}",
            commands.join(", ")
        ),
    };
    Err(format!("there is no command \"{word}\" ({hint})"))
}

/// Whether it can only be meant as an address to listen on.
fn is_address(word: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let host_and_port = word.rsplit_once(':').is_some_and(|(host, port)| {
        is_port(port) && (matches!(host, "" | "*" | "localhost") || is_port(host))
    });
    word.parse::<SocketAddr>().is_ok()
        || host_and_port
        || word.starts_with("unix:")
        || word.contains("://")
}

/// What to do with a configuration of another server.
pub(super) fn of_another_server(file: &str) -> Option<&'static str> {
    if file.ends_with(".conf.py") {
        Some(
            "this is a configuration of gunicorn (preforkd-gunicorn(7) has its settings and ours; --print-config begins an app.toml)",
        )
    } else if file.ends_with(".ini") {
        Some(
            "this is a configuration of another server, and preforkd reads TOML (preforkd-uwsgi(7) and preforkd-supervisord(7) have their settings and ours)",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: [&str; 3] = ["status", "reload", "stop"];

    #[test]
    fn a_name_with_a_colon_or_a_dot_is_an_application_and_toml_a_configuration() {
        for name in [
            "mysite.wsgi",
            "mysite.wsgi:application",
            "app:app",
            "a:create_app('x')",
            "app.py",
        ] {
            let expected = Ok(Target::Application(name.to_owned()));
            assert_eq!(target(name, &COMMANDS), expected);
        }
        for file in [
            "app.toml",
            "conf/shop.toml",
            "/etc/preforkd/app.toml",
            "a:b.toml",
        ] {
            assert_eq!(target(file, &COMMANDS), Ok(Target::File(file.into())));
        }
    }

    #[test]
    fn what_is_neither_is_answered_with_what_to_write() {
        for (word, said) in [
            ("statsu", "no command \"statsu\" (did you mean `status`?)"),
            (
                "mysite",
                "mysite:application; the commands are status, reload, stop",
            ),
            (
                "127.0.0.1:8000",
                "an address, and no application (write --bind 127.0.0.1:8000",
            ),
            ("0:8000", "(write --bind 0:8000"),
            (":8000", "(write --bind :8000"),
            ("localhost:80", "(write --bind localhost:80"),
            ("unix:/run/x.sock", "(write --bind unix:/run/x.sock"),
            ("http://127.0.0.1:8000/", "is an address"),
            ("[::]:80", "is an address"),
            (
                "gunicorn.conf.py",
                "a configuration of gunicorn (preforkd-gunicorn(7)",
            ),
            ("uwsgi.ini", "preforkd reads TOML"),
        ] {
            let complaint = target(word, &COMMANDS).expect_err(word);
            assert!(complaint.contains(said), "{word}: {complaint}");
        }
    }
}
