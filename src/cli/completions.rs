//! `preforkd completions SHELL`: what a shell needs to complete command lines, from their one definition.

use clap::ValueEnum;
use clap_complete::generate;

/// How the function for the commands begins in the script for zsh.
const COMMANDS: &str = "(( $+functions[_preforkd_commands] )) ||\n";

/// The function for the first word: a command or a configuration.
const WORDS: &str = "(( $+functions[_preforkd_words] )) ||
_preforkd_words() {
    _alternative 'commands:command:_preforkd_commands' 'files:configuration:_files -g \"*.toml\"'
}

";

/// A shell that completions are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// bash(1).
    Bash,
    /// zsh(1).
    Zsh,
    /// fish(1).
    Fish,
}

/// The script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let whole = super::command();
    // The commands of helper processes are for the master only, and the generator knows nothing of hidden ones.
    let shown = whole
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let (generator, is_zsh) = match shell {
        Shell::Bash => (clap_complete::Shell::Bash, false),
        Shell::Zsh => (clap_complete::Shell::Zsh, true),
        Shell::Fish => (clap_complete::Shell::Fish, false),
    };
    // In the script for zsh a command comes after the first word, if that may be something else.
    let arguments = whole.get_arguments();
    let arguments = arguments.filter(|argument| !is_zsh || !argument.is_positional());
    let mut command = clap::Command::new("preforkd")
        .disable_version_flag(true)
        .args(arguments.cloned())
        .subcommands(shown.cloned());
    let mut script = Vec::new();
    generate(generator, &mut command, "preforkd", &mut script);
    let script = String::from_utf8_lossy(&script);
    match is_zsh {
        true => script
            .replacen(":: :_preforkd_commands", ":: :_preforkd_words", 1)
            .replacen(COMMANDS, &format!("{WORDS}{COMMANDS}"), 1),
        false => script.into_owned(),
    }
}
