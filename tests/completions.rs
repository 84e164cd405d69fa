//! What shells complete: the commands and options of the program, and no others.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::preforkd;

/// The script for a shell.
fn script(shell: &str) -> String {
    let output = preforkd().args(["completions", shell]).output();
    let output = output.expect("preforkd runs");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    String::from_utf8(output.stdout).expect("text")
}

/// What a shell prints when it runs this text, with the path of the script for it as `$1`; `None` if it is not installed.
fn run(shell: &str, text: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join(shell);
    std::fs::write(&path, script(shell)).expect("room");
    let mut command = Command::new(shell);
    command.env("HOME", folder.path());
    // zsh and fish read the user's own files otherwise.
    match shell {
        "zsh" => command.arg("-f"),
        "fish" => command.arg("--no-config"),
        _ => command.arg("--norc"),
    };
    command.arg("-c").arg(text);
    // The first argument of bash and zsh is their $0.
    if shell != "fish" {
        command.arg(shell);
    }
    let output = match command.arg(&path).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("left out: there is no {shell} here (apt-get install {shell})");
            return None;
        }
        output => output.expect("the shell runs"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{shell}: {said}"
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn each_script_has_each_command_and_option_and_nothing_for_helper_processes() {
    let command = preforkd::cli::command();
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        for option in command.get_arguments() {
            if let Some(name) = option.get_long() {
                // fish has the name by itself.
                let shown = match shell {
                    "fish" => format!("-l {name}"),
                    _ => format!("--{name}"),
                };
                assert!(script.contains(&shown), "{shell}: --{name}");
            }
        }
        for command in command.get_subcommands() {
            let name = command.get_name();
            assert_eq!(
                script.contains(name),
                !command.is_hide_set(),
                "{shell}: {name}"
            );
        }
    }
}

#[test]
fn bash_completes_a_command_and_its_options() {
    let complete = |words: &str, at: usize| {
        let text = format!(
            ". \"$1\"; COMP_WORDS=({words}); COMP_CWORD={at}; COMPREPLY=(); _preforkd preforkd \"${{COMP_WORDS[{at}]}}\" x; echo \"${{COMPREPLY[*]}}\""
        );
        run("bash", &text)
    };
    if let Some(found) = complete("preforkd st", 1) {
        assert_eq!(found.trim(), "status stop start");
        let found = complete("preforkd status --j", 2).expect("bash");
        assert_eq!(found.trim(), "--json");
        let found = complete("preforkd --grace", 1).expect("bash");
        assert_eq!(found.trim(), "--graceful-timeout");
    }
}

#[test]
fn fish_completes_a_command_and_its_options() {
    let complete = |line: &str| run("fish", &format!("source $argv[1]; complete -C '{line}'"));
    if let Some(found) = complete("preforkd sta") {
        let names = found.lines().filter_map(|line| line.split('\t').next());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        assert_eq!(names, ["start", "status"]);
        let found = complete("preforkd status --j").expect("fish");
        assert!(found.starts_with("--json"), "{found}");
    }
}

/// The keys are typed into a shell on a terminal, which ends by itself if it never answers.
#[test]
fn zsh_completes_a_command_and_its_options() {
    let complete = |keys: &str| {
        let text = format!(
            r#"
            zmodload zsh/zpty
            zpty shell timeout --foreground 60 zsh -f -i
            zpty -w shell "autoload -Uz compinit; compinit -D -u; source $1; show() {{ print -r -- \"<\$BUFFER>\" }}; zle -N show; bindkey '^I' complete-word; bindkey '^X^X' show; print rea''dy"
            zpty -r -m shell shown '*ready*'
            zpty -n -w shell $'{keys}\t\C-x\C-x'
            zpty -r -m shell shown '*<*>*'
            print -r -- $shown
            zpty -d shell
            "#
        );
        run("zsh", &text)
    };
    if let Some(shown) = complete("preforkd relo") {
        assert!(shown.contains("<preforkd reload >"), "{shown}");
        let shown = complete("preforkd status --j").expect("zsh");
        assert!(shown.contains("<preforkd status --json >"), "{shown}");
    }
}

#[test]
fn zsh_reads_its_script() {
    let text = "autoload -Uz compinit; compinit -D -u; source \"$1\"; print -r -- $_comps[preforkd]; functions _preforkd_commands";
    if let Some(found) = run("zsh", text) {
        assert!(found.starts_with("_preforkd\n"), "{found}");
        assert!(
            found.contains("'status:Show all apps and workers"),
            "{found}"
        );
    }
}
