//! The options with which an application is served without a file, named as users of gunicorn know them. Each sets a key of app.toml:
//! together they are the text of a configuration, which goes through the same checks as a file.

use std::fmt::Write as _;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{ByOption, Given, Instead, KEYS, Key, instead};

/// The app that the application becomes, unless it is given another name.
const APP: &str = "web";
/// Where it listens, unless the options or the environment say otherwise.
const LISTEN: &str = "127.0.0.1:8000";
/// The option that names the app.
const NAME: &str = "name";

/// An option, and the key that it sets.
struct Setting {
    key: &'static str,
    short: Option<char>,
    long: &'static str,
    other: Option<&'static str>,
    value: &'static str,
}

const fn setting(
    key: &'static str,
    short: Option<char>,
    long: &'static str,
    other: Option<&'static str>,
    value: &'static str,
) -> Setting {
    Setting {
        key,
        short,
        long,
        other,
        value,
    }
}

/// All of them, in the order in which they are written. One without a value sets a boolean.
const SETTINGS: [Setting; 19] = [
    setting("pid_file", Some('p'), "pid", Some("pid-file"), "FILE"),
    setting("listen", Some('b'), "bind", Some("listen"), "ADDRESS"),
    setting("workers", Some('w'), "workers", None, "NUMBER"),
    setting("threads", None, "threads", None, "NUMBER"),
    setting("preload", None, "preload", None, ""),
    setting("chdir", None, "chdir", None, "FOLDER"),
    setting("python", None, "python", None, "PATH"),
    setting("env", Some('e'), "env", None, "NAME=VALUE"),
    setting("user", Some('u'), "user", None, "USER"),
    setting("group", Some('g'), "group", None, "GROUP"),
    setting("umask", Some('m'), "umask", None, "MODE"),
    setting(
        "static",
        None,
        "static",
        Some("static-map"),
        "PREFIX=PATH|django",
    ),
    setting("timeout", None, "timeout", None, "TIME"),
    setting("graceful_timeout", None, "graceful-timeout", None, "TIME"),
    setting("keepalive_timeout", None, "keep-alive", None, "TIME"),
    setting("max_requests", None, "max-requests", None, "NUMBER"),
    setting(
        "max_requests_jitter",
        None,
        "max-requests-jitter",
        None,
        "NUMBER",
    ),
    setting(
        "access_log",
        None,
        "access-logfile",
        Some("access-log"),
        "FILE",
    ),
    setting(
        "trusted_proxies",
        None,
        "forwarded-allow-ips",
        Some("trusted-proxies"),
        "ADDRESSES",
    ),
];

/// Options of other servers that no key has the name of, and what to do.
const OTHERS: [(&str, &str); 11] = [
    (
        "-k",
        "there is one kind of worker (remove it; --threads is the number of requests that a worker runs at a time)",
    ),
    (
        "-D",
        "preforkd stays in the foreground, as init systems want it (remove it)",
    ),
    (
        "-R",
        "what workers print goes to the standard output of preforkd (remove it)",
    ),
    (
        "--reload",
        "files are not watched; `preforkd reload` takes new code in, without a gap (remove it)",
    ),
    (
        "--log-file",
        "preforkd logs to standard error (remove it, or redirect it: 2>>FILE)",
    ),
    (
        "--error-logfile",
        "preforkd logs to standard error (remove it, or redirect it: 2>>FILE)",
    ),
    ("--log-level", "preforkd has --verbose (remove it)"),
    (
        "--capture-output",
        "what workers print goes to the standard output of preforkd (remove it)",
    ),
    ("--master", "preforkd always has a master (remove it)"),
    (
        "--enable-threads",
        "the application may always have threads (remove it)",
    ),
    (
        "--access-logformat",
        "the fields of a line have other names here (write `access_format` in app.toml)",
    ),
];

impl Setting {
    fn row(&self) -> Option<&'static Key> {
        let is_ours = |key: &&Key| matches!(key.table, "app.NAME" | "master");
        KEYS.iter().filter(is_ours).find(|key| key.name == self.key)
    }

    fn table(&self) -> &'static str {
        self.row().map_or("app.NAME", |key| key.table)
    }

    /// The values of the option as TOML. What they should be, the check of the configuration says.
    fn toml(&self, values: &[String]) -> String {
        let form = self.row().map(|key| (key.type_description)());
        let form = form.unwrap_or_default();
        let first = values.first().map_or("", String::as_str);
        let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
        if self.value.is_empty() {
            return "true".into();
        }
        if form.starts_with("list of ") {
            let values = values.iter().flat_map(|value| self.entries(value));
            let values: Vec<_> = values.map(|value| quoted(&value)).collect();
            return format!("[{}]", values.join(", "));
        }
        if self.key == "static" && values == ["django"] {
            return quoted(first);
        }
        if form.starts_with("table of ") {
            let pairs = values.iter().map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                format!("{} = {}", key(name), quoted(value))
            });
            return format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "));
        }
        match form.as_str() {
            // As elsewhere, a number is one of seconds.
            "time" if is_number => quoted(&format!("{first}s")),
            form if is_number && form.starts_with("number") => first.to_owned(),
            _ => quoted(first),
        }
    }

    /// The entries that one value of an option that may be given several times has.
    fn entries(&self, value: &str) -> Vec<String> {
        match self.key {
            "listen" => vec![address(value)],
            _ => value
                .split(',')
                .map(|part| part.trim().to_owned())
                .collect(),
        }
    }
}

/// An address in the short forms that the command line allows.
fn address(text: &str) -> String {
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some(("" | "0" | "*", port)) => format!("0.0.0.0:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        None if is_port(text) => format!("127.0.0.1:{text}"),
        _ => text.to_owned(),
    }
}

/// A string of TOML. What the shell has left of a dollar sign is one.
fn quoted(text: &str) -> String {
    // The escapes of JSON are escapes of TOML.
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

/// A key of TOML.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => serde_json::Value::from(name).to_string(),
    }
}

/// Adds the options to the command line.
pub(super) fn add_to(command: Command) -> Command {
    const HEADING: &str = "Serving an application without a file";
    let settings = SETTINGS.iter().map(|setting| {
        let sentence = setting
            .row()
            .map_or("", |key| key.sentence.trim_end_matches('.'));
        let arg = Arg::new(setting.key).long(setting.long).help(sentence);
        let arg = match setting.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        let arg = match setting.other {
            Some(other) => arg.visible_alias(other),
            None => arg,
        };
        match setting.value {
            "" => arg.action(ArgAction::SetTrue),
            "PREFIX=PATH|django" => arg
                .value_parser(ValueParser::new(mapping))
                .value_name(setting.value)
                .action(ArgAction::Append),
            "NAME=VALUE" => arg
                .value_parser(ValueParser::new(pair))
                .value_name(setting.value)
                .action(ArgAction::Append),
            "ADDRESS" | "ADDRESSES" => arg.value_name(setting.value).action(ArgAction::Append),
            value => arg.value_name(value),
        }
    });
    let name = Arg::new(NAME)
        .short('n')
        .long("name")
        .value_name("NAME")
        .help("The name of the app in the log and for commands");
    let all = settings.chain([name]);
    command.args(all.map(|arg| arg.help_heading(HEADING)))
}

/// A value of the form NAME=VALUE.
fn pair(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("\"=\" is missing, with a name before it".into()),
    }
}

/// A mapping of static files, or that Django names them.
fn mapping(text: &str) -> Result<String, String> {
    match text {
        "django" => Ok(text.to_owned()),
        text => pair(text),
    }
}

/// The name of an option as it is written.
pub(super) fn written(key: &str) -> Option<String> {
    let mut settings = SETTINGS.iter();
    settings
        .find(|setting| setting.key == key)
        .map(|setting| format!("--{}", setting.long))
}

/// The first option that is given, if any is, and the key that it sets.
pub(super) fn first_given(matches: &ArgMatches) -> Option<(String, &'static str)> {
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut settings = SETTINGS.iter();
    let given = settings.find(|setting| is_given(setting.key));
    let given = given.map(|setting| (format!("--{}", setting.long), setting.key));
    given.or_else(|| is_given(NAME).then(|| (format!("--{NAME}"), "[app.NAME]")))
}

/// What an option of another server is here: its name begins with dashes.
pub(super) fn elsewhere(option: &str) -> Option<String> {
    let mut others = OTHERS.iter();
    if let Some((_, advice)) = others.find(|(name, _)| *name == option) {
        return Some((*advice).to_owned());
    }
    Some(match instead(option.strip_prefix("--")?)? {
        Instead::Advice(advice) => advice.to_owned(),
        Instead::Key("wsgi") => {
            "the application is named without an option (write for example: preforkd mysite.wsgi)"
                .into()
        }
        Instead::Key(key) => match written(key) {
            Some(ours) if ours == option => return None,
            Some(ours) => format!("no such option (write {ours})"),
            None => format!(
                "no such option (write `{key}` in app.toml, which --print-config can begin)"
            ),
        },
    })
}

/// The configuration in which `application` is served with these options.
pub(super) fn configuration(
    application: &str,
    matches: &ArgMatches,
    variable: impl Fn(&str) -> Option<String>,
) -> Given {
    let mut writing = Writing::default();
    let name: Option<&String> = matches.get_one(NAME);
    writing.table("master", matches);
    let part = writing.text.len();
    let _ = writeln!(
        writing.text,
        "[app.{}]",
        key(name.map_or(APP, String::as_str))
    );
    if let Some(name) = name {
        writing.note(part, format!("--{NAME} {name}"), NAME);
    }
    writing.line("wsgi", &quoted(application), Some(application.to_owned()));
    writing.table("app.NAME", matches);
    let has_port = variable("PORT").is_some_and(|port| !port.is_empty());
    if matches.value_source("listen").is_none() && !has_port {
        writing.line("listen", &format!("[{}]", quoted(LISTEN)), None);
    }
    Given {
        text: writing.text,
        options: Some(writing.options),
    }
}

/// The text so far, and what has written its parts.
#[derive(Default)]
struct Writing {
    text: String,
    options: Vec<ByOption>,
}

impl Writing {
    /// The options that set keys of this table; with its header if it is that of the master.
    fn table(&mut self, table: &str, matches: &ArgMatches) {
        let of_table = SETTINGS.iter().filter(|setting| setting.table() == table);
        let given: Vec<_> = of_table
            .filter(|setting| matches.value_source(setting.key) == Some(ValueSource::CommandLine))
            .collect();
        if table == "master" && !given.is_empty() {
            self.text += "[master]\n";
        }
        for setting in &given {
            let values: Vec<String> = match setting.value {
                "" => Vec::new(),
                _ => matches
                    .get_many(setting.key)
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            };
            let option = std::iter::once(format!("--{}", setting.long));
            let option: Vec<_> = option.chain(values.iter().cloned()).collect();
            self.line(setting.key, &setting.toml(&values), Some(option.join(" ")));
        }
        if table == "master" && !given.is_empty() {
            self.text.push('\n');
        }
    }

    fn line(&mut self, key: &'static str, value: &str, option: Option<String>) {
        let start = self.text.len();
        let _ = writeln!(self.text, "{key} = {value}");
        if let Some(option) = option {
            self.note(start, option, key);
        }
    }

    fn note(&mut self, start: usize, option: String, key: &'static str) {
        self.options.push(ByOption {
            part: start..self.text.len(),
            option,
            key,
        });
    }
}

#[cfg(test)]
#[path = "tests/options.rs"]
mod tests;
