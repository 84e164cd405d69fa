//! `command`: any program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::check::CHECK_LISTENER;
use super::host::find_program;
use super::{Draft, Launch};
use crate::config::{Address, CommandLine, Place, Stdin, StopSignal, Value};
use crate::supervisor::Readiness;

/// systemd passes sockets from this descriptor on: sd_listen_fds(3).
const FIRST_FD: usize = 3;

impl Draft<'_> {
    /// Fills in how to execute the program.
    pub(super) fn command(
        &self,
        command: &Value<CommandLine>,
        sockets: &[(String, Address)],
        has_check: bool,
        launch: &mut Launch,
        warnings: &mut Vec<String>,
    ) -> Result<Readiness, Place> {
        let words = command.iter();
        let mut names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
        if has_check {
            names.push(CHECK_LISTENER);
        }
        let args: Result<Vec<_>, _> = words.map(|word| fill_in(word, &names)).collect();
        launch.args = args.map_err(|message| command.wrong(message))?;
        launch.program = self.find(command, "command", launch)?;
        if takes_a_descriptor_twice(&launch.args) {
            warnings.push("command: gunicorn takes over the listeners by itself, and fails if --bind names a descriptor too (leave out --bind)".into());
        }
        let has = |part: &str| command.iter().any(|word| word.contains(part));
        if has_check && has("{fd") && !has("{fd:check}") {
            warnings.push("reload.check: the request comes over a further descriptor, and a program that is told one by {fd} mostly accepts on that alone; then each reload fails (give it {fd:check} too, or `addresses` and {port})".into());
        }
        Ok(self.readiness())
    }

    /// The signal that tells it to end. Some programs finish their requests at another one than SIGTERM: nginx(8), php-fpm(8).
    pub(super) fn stop_signal(&self, program: &Path) -> StopSignal {
        if let Some(signal) = &self.written.stop_signal {
            return **signal;
        }
        let name = program.file_name().and_then(OsStr::to_str);
        // The name may end with a version.
        match name.is_some_and(|name| name == "nginx" || name.starts_with("php-fpm")) {
            true => StopSignal::Quit,
            false => StopSignal::Term,
        }
    }

    /// What its standard input is.
    pub(super) fn stdin(&self, has_listener: bool) -> Result<Stdin, Place> {
        let stdin = &self.written.stdin;
        if **stdin == Stdin::Listener && !has_listener {
            return Err(stdin.wrong(
                "stdin: there is no listener that could be the standard input (add `listen`)",
            ));
        }
        Ok(**stdin)
    }

    /// Finds the program that `launch.args` begins with. `key` is its key in the file.
    pub(super) fn find(
        &self,
        written: &Value<CommandLine>,
        key: &str,
        launch: &Launch,
    ) -> Result<PathBuf, Place> {
        let wrong = |message: String| written.wrong(format!("{key}: {message}"));
        let Some(name) = launch.args.first().filter(|name| !name.is_empty()) else {
            return Err(wrong(
                "the name of a program is missing (write [\"PROGRAM\", \"ARGUMENT\", …])".into(),
            ));
        };
        if launch.args.iter().any(|word| word.contains('\0')) {
            return Err(wrong("an argument must not contain a NUL character".into()));
        }
        let path = launch
            .env
            .get("PATH")
            .cloned()
            .or_else(|| self.host.variable("PATH"));
        let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        if let Some(found) = find_program(name, &launch.chdir, &path, self.host) {
            return Ok(found);
        }
        if !name.contains('/') {
            let missing = format!(
                "there is no program \"{name}\" in PATH, which is {path} (write the path of the program)"
            );
            return self.lacks(wrong(missing), PathBuf::new());
        }
        let file = launch.chdir.join(name);
        let missing = format!(
            "there is no executable file {} (check the path and the permissions)",
            file.display()
        );
        self.may_come(wrong(missing))?;
        Ok(file)
    }

    /// How a process of the app that is no worker is started.
    pub(super) fn step(&self, launch: &Launch) -> Launch {
        let mut step = launch.clone();
        // These variables are for workers.
        step.env
            .retain(|key, _| !key.starts_with("PREFORKD_") && key != "WATCHDOG_USEC");
        step.settings = None;
        step
    }

    /// The command that must succeed before a reload. It runs like the workers.
    pub(super) fn before(&self, launch: &Launch) -> Result<Option<Launch>, Place> {
        let Some(before) = &self.written.reload.before else {
            return Ok(None);
        };
        let mut step = self.step(launch);
        step.without_address();
        step.args = before.to_vec();
        step.program = self.find(before, "reload.before", &step)?;
        step.reach_program();
        Ok(Some(step))
    }

    /// Whether that command runs at the first start, too.
    pub(super) fn before_at_start(&self) -> Result<bool, Place> {
        let reload = &self.written.reload;
        let at_start = &reload.before_at_start;
        if **at_start && reload.before.is_none() {
            return Err(at_start.wrong(
                "reload.before_at_start: there is no command to run (add `before`, or remove this key)",
            ));
        }
        Ok(**at_start)
    }
}

/// Whether this is gunicorn with a descriptor to bind. It adds those of LISTEN_FDS to that one, and closes each when it has taken it
/// over.
fn takes_a_descriptor_twice(args: &[String]) -> bool {
    let name = |word: &String| Path::new(word).file_name() == Some(OsStr::new("gunicorn"));
    let is_module = |words: &[String]| words == ["-m", "gunicorn"];
    let is_gunicorn = args.first().is_some_and(name) || args.get(1..3).is_some_and(is_module);
    is_gunicorn && args.iter().any(|word| word.contains("fd://"))
}

/// Replaces `{fd}` and `{fd:NAME}` by the descriptor of the listener.
fn fill_in(word: &str, sockets: &[&str]) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = word;
    while let Some(at) = rest.find("{fd") {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let (inside, after) = from
            .strip_prefix("{fd")
            .and_then(|from| from.split_once('}'))
            .ok_or_else(|| {
                format!(
                    "command: \"{word}\" has \"{{fd\" without \"}}\" (write {{fd}} or {{fd:NAME}})"
                )
            })?;
        let index = match inside.strip_prefix(':') {
            None if inside.is_empty() => Some(0).filter(|_| !sockets.is_empty()),
            None => {
                return Err(format!(
                    "command: \"{{fd{inside}}}\" is not a placeholder (write {{fd}} or {{fd:NAME}})"
                ));
            }
            Some(name) => sockets.iter().position(|known| *known == name),
        };
        let index = index.ok_or_else(|| match sockets.is_empty() {
            true => format!(
                "command: {{fd{inside}}} needs a listener, but there is none (add `listen`)"
            ),
            false => format!(
                "command: {{fd{inside}}} names no listener of this app (it has: {})",
                sockets.join(", ")
            ),
        })?;
        filled.push_str(&(FIRST_FD + index).to_string());
        rest = after;
    }
    Ok(filled + rest)
}
