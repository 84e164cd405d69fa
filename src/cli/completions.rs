//! `preforkd completions SHELL`: what a shell needs to complete command lines, from their one definition.

use clap::ValueEnum;
use clap_complete::generate;

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
    let mut command = clap::Command::new("preforkd")
        .disable_version_flag(true)
        .args(whole.get_arguments().cloned())
        .subcommands(shown.cloned());
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    generate(generator, &mut command, "preforkd", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
