//! What is served: the configuration in a file, or an application that the command line names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::arguments::{self, Arguments};
use super::options;
use super::target::{self, Target, USUAL};
use crate::client::find::COMMAND_LINE;
use crate::config::Given;
use crate::effects::config_check::Configuration;
use crate::effects::host::ThisHost;
use crate::plan::Host;

/// What is served.
pub(super) struct Subject {
    /// What a reload reads again.
    pub(super) configuration: Configuration,
    /// What the options say, if there is no file.
    pub(super) given: Option<Given>,
    /// What was chosen without having been asked for.
    pub(super) note: Option<String>,
    application: Option<String>,
}

impl Subject {
    /// Finds it by the arguments, which are also `given` as they were written.
    ///
    /// # Errors
    /// Nothing is named, or too much.
    pub(super) fn find(
        arguments: &Arguments,
        matches: &ArgMatches,
        given: &[OsString],
    ) -> Result<Self, String> {
        if arguments.socket.is_some() {
            return Err("--socket is for commands such as `preforkd status` (remove it)".into());
        }
        let named = match (&arguments.config, &arguments.target) {
            (Some(config), Some(word)) => {
                return Err(format!(
                    "{word} and -c {} are both named (name one of them)",
                    config.display()
                ));
            }
            (Some(config), None) => {
                let other = target::of_another_server(&config.to_string_lossy());
                match other {
                    Some(advice) => return Err(format!("-c {}: {advice}", config.display())),
                    None => Some(Target::File(config.clone())),
                }
            }
            (None, Some(word)) => {
                let commands = arguments::names_of_commands();
                let commands: Vec<_> = commands.iter().map(String::as_str).collect();
                Some(target::target(word, &commands)?)
            }
            (None, None) => None,
        };
        match (named, options::first_given(matches)) {
            (Some(Target::Application(application)), _) => Ok(Self {
                configuration: Configuration {
                    file: COMMAND_LINE.into(),
                    arguments: given.to_vec(),
                },
                given: Some(options::configuration(&application, matches, variable)),
                note: None,
                application: Some(application),
            }),
            (Some(Target::File(file)), Some((option, key))) => Err(format!(
                "{option} is for an application on the command line (write `{key}` in {})",
                file.display()
            )),
            (Some(Target::File(file)), None) => Ok(Self::of_file(file, None)),
            (None, Some((option, _))) => Err(format!(
                "{option} needs an application (name it after the options: {})",
                example(Path::new("."))
            )),
            (None, None) if Path::new(USUAL).is_file() => {
                let note = format!("no configuration is named: taking {USUAL} of this folder");
                Ok(Self::of_file(USUAL.into(), Some(note)))
            }
            (None, None) => Err(format!(
                "no configuration file given, and this folder has no {USUAL} (preforkd init writes one; use -c FILE, or name an application: {})",
                example(Path::new("."))
            )),
        }
    }

    fn of_file(file: PathBuf, note: Option<String>) -> Self {
        Self {
            configuration: Configuration {
                file,
                arguments: Vec::new(),
            },
            given: None,
            note,
            application: None,
        }
    }

    /// Its name in the title of the process.
    pub(super) fn name(&self) -> String {
        let file = self.configuration.file.file_name().unwrap_or_default();
        let application = self.application.clone();
        application.unwrap_or_else(|| file.to_string_lossy().into_owned())
    }

    /// What a reload reads, by an absolute path.
    pub(super) fn configuration(&self) -> Configuration {
        Configuration {
            file: ThisHost.absolute(&self.configuration.file),
            arguments: self.configuration.arguments.clone(),
        }
    }
}

/// What the arguments of a master say of an application, if they are its configuration.
pub(super) fn given(arguments: &[OsString]) -> Option<Given> {
    let (arguments, matches) = arguments::parse(arguments.iter().cloned()).ok()?;
    let application = arguments.target?;
    Some(options::configuration(&application, &matches, variable))
}

fn variable(name: &str) -> Option<String> {
    ThisHost.variable(name)
}

/// What is given with a command, and is for the master only.
pub(super) fn surplus(arguments: &Arguments, matches: &ArgMatches) -> Option<String> {
    let option = options::first_given(matches).map(|(option, _)| option);
    let print = arguments.print_config.then(|| "--print-config".to_owned());
    let ready_fd = arguments.ready_fd.map(|_| "--ready-fd".to_owned());
    ready_fd
        .or(option)
        .or(print)
        .or_else(|| arguments.target.clone())
}

/// What to write instead of a short option that is there, and means something else than elsewhere.
pub(super) fn misread(arguments: &[OsString]) -> Option<String> {
    let mut pairs = arguments.windows(2);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    pairs.find_map(|pair| match (pair[0].to_str()?, pair[1].to_str()?) {
        ("-t", time) if is_number(time) => Some(format!(
            "-t checks the configuration and takes no time (write --timeout {time})"
        )),
        _ => None,
    })
}

/// A command that serves an application, if possible that of the project in this folder.
fn example(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut packages: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join("wsgi.py").is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    packages.sort();
    let package = packages.first().map_or("mysite", String::as_str);
    format!("preforkd {package}.wsgi")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_gunicorn_is_no_check() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let said = misread(&words(&["-t", "30", "mysite.wsgi"])).expect("an answer");
        assert!(said.contains("write --timeout 30"), "{said}");
        assert_eq!(misread(&words(&["-t", "mysite.wsgi"])), None);
        assert_eq!(misread(&words(&["mysite.wsgi", "-t"])), None);
    }

    #[test]
    fn the_example_is_the_project_of_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(example(folder.path()), "preforkd mysite.wsgi");
        std::fs::create_dir(folder.path().join("shop")).expect("room");
        std::fs::write(folder.path().join("shop/wsgi.py"), "").expect("room");
        assert_eq!(example(folder.path()), "preforkd shop.wsgi");
    }
}
