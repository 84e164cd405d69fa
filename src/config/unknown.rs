//! What to write instead of a key that does not exist.

use super::keys::KEYS;

/// Names that other servers have for the same purpose, and ours.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bind", "listen"),
    ("socket", "listen"),
    ("http", "listen"),
    ("http_socket", "listen"),
    ("host", "listen"),
    ("port", "listen"),
    ("address", "listen"),
    ("app", "wsgi"),
    ("module", "wsgi"),
    ("wsgi_app", "wsgi"),
    ("wsgi_file", "wsgi"),
    ("callable", "wsgi"),
    ("processes", "workers"),
    ("cheaper", "workers"),
    ("harakiri", "timeout"),
    ("request_timeout", "timeout"),
    ("virtualenv", "python"),
    ("home", "python"),
    ("venv", "python"),
    ("pythonpath", "chdir"),
    ("working_directory", "chdir"),
    ("cwd", "chdir"),
    ("uid", "user"),
    ("gid", "group"),
    ("supplementary_groups", "groups"),
    ("add_gid", "groups"),
    ("rlimits", "limits"),
    ("ulimit", "limits"),
    ("limit_as", "limits"),
    ("limit_nproc", "limits"),
    ("limit_nofile", "limits"),
    ("minfds", "limits"),
    ("clear_env", "env_clear"),
    ("oom_score_adjust", "oom_score_adj"),
    ("priority", "nice"),
    ("worker_cpu_affinity", "cpu_affinity"),
    ("no_new_privileges", "no_new_privs"),
    ("cap", "capabilities"),
    ("preload_app", "preload"),
    ("raw_env", "env"),
    ("environment", "env"),
    ("environment_file", "env_file"),
    ("envfile", "env_file"),
    ("dotenv", "env_file"),
    ("load_credential", "secrets"),
    ("includes", "include"),
    ("files", "include"),
    ("stdout_logfile", "stdout"),
    ("stderr_logfile", "stderr"),
    ("stdout_logfile_maxbytes", "log_rotate"),
    ("stderr_logfile_maxbytes", "log_rotate"),
    ("stdout_logfile_backups", "log_rotate"),
    ("stderr_logfile_backups", "log_rotate"),
    ("log_maxsize", "log_rotate"),
    ("accesslog", "access_log"),
    ("errorlog", "stderr"),
    ("logfile", "stderr"),
    ("limit_request_body", "max_body"),
    ("limit_request_fields", "max_headers"),
    ("worker_connections", "max_connections"),
    ("pidfile", "pid_file"),
    ("access_log_format", "access_format"),
    ("log_format", "access_format"),
    ("forwarded_allow_ips", "trusted_proxies"),
    ("proxy_allow_ips", "trusted_proxies"),
    ("trusted_proxy", "trusted_proxies"),
    ("trusted_proxy_headers", "forwarded_fields"),
    ("secure_scheme_headers", "forwarded_fields"),
    ("script_name", "prefix"),
    ("root_path", "prefix"),
    ("mount", "prefix"),
    ("static_map", "static"),
    ("check_static", "static"),
    ("keepalive", "keepalive_timeout"),
    ("keep_alive", "keepalive_timeout"),
    ("http_keepalive", "keepalive_timeout"),
    ("http_timeout", "body_timeout"),
    ("socket_timeout", "write_timeout"),
    ("worker_reload_mercy", "graceful_timeout"),
    ("max_worker_lifetime", "max_age"),
    ("reload_on_rss", "max_memory"),
    ("evil_reload_on_rss", "max_memory"),
    ("limit_request_line", "max_head"),
    ("limit_request_field_size", "max_head"),
    ("buffer_size", "max_head"),
    ("limit_post", "max_body"),
    ("control_socket", "control"),
    ("stats", "control"),
    ("logto", "stderr"),
    ("log_file", "stderr"),
    ("error_logfile", "stderr"),
    ("access_logfile", "access_log"),
    ("pythonhome", "python"),
    ("attach_daemon", "command"),
];

/// Names that other servers have for what preforkd does not do by a key, and what to do.
const WITHOUT_KEY: &[(&str, &str)] = &[
    (
        "asgi",
        "preforkd serves WSGI applications; for an ASGI application, run its server (for example command = [\"uvicorn\", \"--fd\", \"{fd}\", \"MODULE:APP\"] and ready = \"2s\")",
    ),
    (
        "worker_class",
        "there is one kind of worker (remove it; `threads` is the number of requests that a worker runs at a time)",
    ),
    (
        "worker_tmp_dir",
        "the folder for temporary files is that of the environment (write env = { TMPDIR = \"PATH\" })",
    ),
    (
        "daemon",
        "preforkd stays in the foreground, as init systems want it (remove it)",
    ),
    (
        "daemonize",
        "preforkd stays in the foreground, as init systems want it (remove it)",
    ),
    (
        "reuse_port",
        "all workers share one socket, which is never closed at a reload (remove it)",
    ),
    (
        "loglevel",
        "the log has no level to choose (remove it, or start preforkd with --verbose)",
    ),
    (
        "capture_output",
        "what workers print goes to the standard output of preforkd, or to `stdout` (remove it)",
    ),
    (
        "proc_name",
        "the title of a process has the name of its app (remove it, and name the table [app.NAME])",
    ),
    (
        "lazy_apps",
        "each worker loads the application, unless `preload` is true (remove it)",
    ),
    (
        "enable_threads",
        "the application may always have threads (remove it)",
    ),
    (
        "vacuum",
        "preforkd removes the sockets that it has made (remove it)",
    ),
    ("die_on_term", "SIGTERM always stops preforkd (remove it)"),
    ("https", TLS),
    ("ssl", TLS),
    ("tls", TLS),
    ("certfile", TLS),
    ("keyfile", TLS),
];

const TLS: &str = "an app speaks no TLS (write `tls` in a table [site.NAME] with `app`)";

/// Names that other servers have for the keys of a site.
const OF_SITES: &[(&str, &str)] = &[
    ("bind", "listen"),
    ("address", "listen"),
    ("port", "listen"),
    ("host", "hosts"),
    ("server_name", "hosts"),
    ("server_names", "hosts"),
    ("domain", "hosts"),
    ("domains", "hosts"),
    ("route", "routes"),
    ("location", "routes"),
    ("locations", "routes"),
    ("root", "static"),
    ("folder", "static"),
    ("return", "redirect"),
    ("ssl", "tls"),
    ("certificate", "tls"),
    ("certfile", "tls"),
    ("keyfile", "tls"),
    ("ssl_certificate", "tls"),
    ("ssl_certificate_key", "tls"),
];

/// The tables that take a key, except for tables within these.
fn places(name: &str) -> Vec<&'static str> {
    ["app.NAME", "site.NAME", "front", "master"]
        .into_iter()
        .filter(|table| takes(table, name))
        .collect()
}

/// Whether a table has this key.
fn takes(table: &str, name: &str) -> bool {
    KEYS.iter()
        .any(|key| key.table == table && key.name == name)
}

/// A key of one table of an app, such as `check` of [app.NAME.reload], and that table.
fn below_app(name: &str) -> Option<&'static str> {
    let keys = KEYS.iter().filter(|key| key.name == name);
    let mut tables = keys.filter_map(|key| {
        let own = key.table.strip_prefix("app.NAME.")?;
        (!own.contains('.')).then_some(key.table)
    });
    let first = tables.next()?;
    tables.next().is_none().then_some(first)
}

/// Whether a key stands before all tables.
fn is_first(name: &str) -> bool {
    KEYS.iter()
        .any(|key| key.table.is_empty() && key.name == name)
}

/// What stands for a name of another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// A key of an app or of the master.
    Key(&'static str),
    /// There is no key, and this is what to do.
    Advice(&'static str),
}

/// What to write instead of a setting of another server, or of an option with the name of a key.
pub fn instead(name: &str) -> Option<Instead> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let find = |names: &'static [(&'static str, &'static str)]| {
        let mut names = names.iter();
        names
            .find(|(name, _)| *name == plain)
            .map(|(_, ours)| *ours)
    };
    let own = || {
        let mut keys = KEYS.iter();
        keys.find(|key| key.name == plain && matches!(key.table, "app.NAME" | "master"))
            .map(|key| key.name)
    };
    let advice = find(WITHOUT_KEY).map(Instead::Advice);
    advice.or_else(|| find(ELSEWHERE).or_else(own).map(Instead::Key))
}

/// serde's "unknown field `a`, expected one of `b`, `c`" is long; suggests the key that was probably meant. Also returns the unknown one.
pub(super) fn explain(message: &str) -> Option<(&str, String)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let plain = key.to_ascii_lowercase().replace('-', "_");
    // In the table of a listener such names mean something else.
    let is_listener = known.contains(&"address");
    let is_site = known.contains(&"hosts");
    let elsewhere = match is_site {
        true => OF_SITES,
        false => ELSEWHERE,
    };
    let elsewhere = elsewhere
        .iter()
        .find(|(name, _)| *name == plain && !is_listener);
    let meant = match elsewhere {
        // A unix socket has an owner.
        None if plain == "user" && known.contains(&"owner") => "owner",
        None => plain.as_str(),
        Some((_, ours)) => ours,
    };
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&plain, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let without = WITHOUT_KEY
        .iter()
        .find(|(name, _)| *name == plain && !is_site);
    let message = if let Some((_, advice)) = without {
        format!("unknown key `{key}`: {advice}")
    } else if known.contains(&meant) {
        format!("unknown key `{key}`; did you mean `{meant}`?")
    } else if is_first(meant) {
        format!("unknown key `{key}`; write `{meant}` before the first table of the file")
    } else if let places = places(meant)
        && !places.is_empty()
    {
        let places: Vec<_> = places.iter().map(|table| format!("[{table}]")).collect();
        let places = places.join(" or ");
        format!("unknown key `{key}`; write `{meant}` in the table {places}")
    } else if let Some(table) = below_app(meant).filter(|_| known.contains(&"command")) {
        format!("unknown key `{key}`; write `{meant}` in the table [{table}]")
    } else if let Some((_, nearest)) = nearest.filter(|(score, _)| *score > 0.75) {
        format!("unknown key `{key}`; did you mean `{nearest}`?")
    } else {
        let hint = match known.contains(&"app") {
            true => " (an app is a table [app.NAME], and a site [site.NAME])",
            false => "",
        };
        format!(
            "unknown key `{key}`; known here: {}{hint}",
            known.join(", ")
        )
    };
    Some((key, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_exists_and_what_it_replaces_does_not() {
        for (name, ours) in ELSEWHERE {
            assert!(!places(ours).is_empty() || is_first(ours), "{ours}");
            // In a site it may be a key.
            let mut found = places(name).into_iter();
            assert_eq!(found.find(|table| *table != "site.NAME"), None, "{name}");
        }
        for (name, ours) in OF_SITES {
            let is_key = |name: &str| takes("site.NAME", name);
            assert!(is_key(ours) && !is_key(name), "{name}");
        }
        for (name, _) in WITHOUT_KEY {
            let mut found = places(name).into_iter();
            assert_eq!(found.find(|table| *table != "site.NAME"), None, "{name}");
        }
    }
}
