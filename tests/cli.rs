//! The command line and its exit statuses.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{app, preforkd, worker};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    output_in(Path::new("."), arguments)
}

fn output_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    output_of(preforkd(), folder, arguments)
}

fn output_of(
    mut command: Command,
    folder: &Path,
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    command.args(arguments).current_dir(folder);
    for variable in ["PWD", "PORT", "WEB_CONCURRENCY"] {
        command.env_remove(variable);
    }
    let output = command.output().expect("preforkd runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn check(config: &str) -> (Option<i32>, String, String) {
    run(config, &["-t"])
}

/// Runs preforkd with this configuration and these arguments, to its end.
fn run(config: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("app.toml");
    std::fs::write(&file, config).expect("room");
    let file = file.to_str().expect("a plain path");
    output(&[arguments, &["-c", file]].concat())
}

#[test]
fn a_good_configuration_is_ok() {
    let (status, stdout, stderr) = check(&app(""));
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let begins = format!("app=web runs {} in 1 worker, listening on unix:/", worker());
    assert!(stdout.starts_with(&begins), "{stdout}");
    assert!(
        stdout.ends_with("/web.sock\nconfiguration OK\n"),
        "{stdout}"
    );
}

#[test]
fn a_faulty_one_is_shown_with_position_and_nearest_key() {
    let (status, stdout, stderr) = check("[app.web]\nwrokers = 4\n");
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("preforkd: /"), "{stderr}");
    assert!(stderr.ends_with(
        "app.toml:2:1: unknown key `wrokers`; did you mean `workers`?\n  |\n2 | wrokers = 4\n  | ^^^^^^^\n"
    ), "{stderr}");
}

#[test]
fn a_folder_that_does_not_exist_yet_is_warned_of() {
    let config = format!(
        "include = ['/nowhere/conf.d/*.toml']\n[master]\npid_file = '/no/such/preforkd.pid'\ncontrol = '/none/x.sock'\n{}",
        app("")
    );
    let (status, stdout, stderr) = check(&config);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.ends_with("configuration OK\n"), "{stdout}");
    for warning in [
        "warning: pid_file: there is no folder /no/such (create it",
        "warning: control: there is no folder /none (create it",
        "app.toml:1:12: include: there is no folder /nowhere/conf.d (create it",
    ] {
        assert!(stderr.contains(warning), "{stderr}");
    }
}

#[test]
fn a_file_that_is_none_or_no_text_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a plain path");
    let (status, _, stderr) = output(&["-t", "-c", path]);
    assert_eq!(status, Some(2));
    let expected = format!("cannot read {path}: Is a directory (os error 21) (give the path of");
    assert!(stderr.contains(&expected), "{stderr}");
    let file = folder.path().join("app.toml");
    std::fs::write(&file, b"[app.x]\ncommand = ['\xff']").expect("room");
    let (status, _, stderr) = output(&["-t", "-c", file.to_str().expect("a plain path")]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("(save it as UTF-8)"), "{stderr}");
}

#[test]
fn a_master_that_cannot_write_its_files_says_what_to_do() {
    let (status, _, stderr) = run(
        &format!("[master]\npid_file = '/no/such/x.pid'\n{}", app("")),
        &[],
    );
    assert_eq!(status, Some(1));
    for words in [
        "cannot write the pid file /no/such/x.pid: /no: No such file or directory (create the folder first)",
        "no control socket at /no/such/x.sock: /no: No such file or directory (create the folder first); status, metrics, reload",
    ] {
        assert!(stderr.contains(words), "{stderr}");
    }
    // Its guard is not told that it has crashed.
    assert!(!stderr.contains("was killed"), "{stderr}");
}

#[test]
fn a_missing_file_is_named() {
    let (status, _, stderr) = output(&["-c", "/no/such/app.toml"]);
    assert_eq!(status, Some(2));
    assert!(
        stderr.contains("cannot read /no/such/app.toml: No such file or directory"),
        "{stderr}"
    );
}

#[test]
fn invalid_usage_is_status_2_and_help_and_version_are_0() {
    let empty = tempfile::tempdir().expect("a folder");
    let (status, _, stderr) = output_in(empty.path(), &[]);
    assert_eq!(status, Some(2));
    assert_eq!(
        stderr,
        "preforkd: no configuration file given, and this folder has no app.toml (preforkd init writes one; use -c FILE, or name an application: preforkd mysite.wsgi)\n"
    );
    assert_eq!(output(&["--nonsense"]).0, Some(2));
    let (status, stdout, _) = output(&["--version"]);
    assert_eq!(status, Some(0));
    let own = format!("preforkd {}\n", env!("CARGO_PKG_VERSION"));
    assert!(stdout.starts_with(&own), "{stdout}");
    let (status, stdout, _) = output(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains("--config <FILE>"), "{stdout}");
}

/// This program in `bin` of a folder, a symbolic link to it elsewhere, and in `libexec/preforkd` files of these versions.
fn installed(front: &str, extension: &str) -> tempfile::TempDir {
    // In the folder of the program, where hard links to it can be made.
    let program = Path::new(env!("CARGO_BIN_EXE_preforkd"));
    let dir = tempfile::tempdir_in(program.parent().expect("a folder")).expect("a folder");
    let parts = dir.path().join("libexec/preforkd");
    std::fs::create_dir_all(&parts).expect("folders");
    std::fs::create_dir(dir.path().join("bin")).expect("a folder");
    std::fs::hard_link(program, dir.path().join("bin/preforkd")).expect("a link");
    std::os::unix::fs::symlink("bin/preforkd", dir.path().join("preforkd")).expect("a link");
    for (name, version) in [
        ("preforkd-front", front),
        ("libpreforkd_python.so", extension),
    ] {
        let text = format!("\x7fELF\0\u{1e}preforkd version {version}\u{1e}\0");
        std::fs::write(parts.join(name), text).expect("room");
    }
    dir
}

#[test]
fn the_version_is_that_of_all_parts_and_another_release_is_refused() {
    let own = env!("CARGO_PKG_VERSION");
    let run = |dir: &tempfile::TempDir, arguments: &[&str]| {
        let mut command = Command::new(dir.path().join("preforkd"));
        let output = command.args(arguments).current_dir(dir.path()).output();
        let output = output.expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let dir = installed(own, own);
    let path = dir.path().canonicalize().expect("it is there");
    let path = path.display();
    let (status, stdout, stderr) = run(&dir, &["--version"]);
    let expected = format!(
        "preforkd {own}\npreforkd-front {own} ({path}/libexec/preforkd/preforkd-front)\n\
         libpreforkd_python.so {own} ({path}/libexec/preforkd/libpreforkd_python.so)\n"
    );
    assert_eq!((status, stdout, stderr), (Some(0), expected, String::new()));

    let dir = installed("9.9.9", "9.9.8");
    let (status, stdout, stderr) = run(&dir, &["-V"]);
    assert_eq!(status, Some(1));
    assert!(stdout.contains("\npreforkd-front 9.9.9 ("), "{stdout}");
    assert!(stderr.contains("/bin/preforkd, is of preforkd"), "{stderr}");
    std::fs::write(dir.path().join("app.py"), "").expect("room");
    let config = dir.path().join("app.toml");
    for (text, other) in [
        (
            "[app.web]\nwsgi = \"app:app\"\nlisten = \"127.0.0.1:0\"\n",
            "libpreforkd_python.so is of preforkd 9.9.8",
        ),
        (
            "[site.a]\nlisten = \"127.0.0.1:0\"\nhosts = [\"a.test\"]\nstatic = { \"/\" = \".\" }\n",
            "preforkd-front is of preforkd 9.9.9",
        ),
    ] {
        std::fs::write(&config, text).expect("room");
        for check in [&["-t", "-c", "app.toml"][..], &["-c", "app.toml"]] {
            let (status, _, stderr) = run(&dir, check);
            assert_eq!(status, Some(2), "{stderr}");
            assert!(stderr.contains(other), "{stderr}");
            assert!(
                stderr.contains("(install both from the same release"),
                "{stderr}"
            );
        }
    }
    std::fs::remove_file(dir.path().join("libexec/preforkd/preforkd-front")).expect("it was there");
    let (_, stdout, _) = run(&dir, &["--version"]);
    assert!(
        stdout.contains("preforkd-front: the program that serves sites is missing (expected at"),
        "{stdout}"
    );
}

#[test]
fn a_launcher_reports_why_it_cannot_adopt_its_descriptors() {
    let launch = |redirections: &str| {
        let script = format!("exec \"$0\" launch 5 0 {redirections}");
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_preforkd")])
            .output();
        output.expect("a shell")
    };
    // Descriptor 5 would be its orders, and 6 is its pipe to the master: the stage, its detail, and errno.
    let output = launch("5>&- 6>&1");
    assert_eq!(output.status.code(), Some(127));
    let errno = nix::errno::Errno::EBADF as i32;
    assert_eq!(output.stdout, [&[1, 0][..], &errno.to_ne_bytes()].concat());
    let output = launch("5>&- 6>&-");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("Bad file descriptor"), "{error}");
    assert!(error.contains("started by the master only"), "{error}");
}

/// The words of the options, of the answer and its status, in a folder with a module and an interpreter that is none.
#[test]
fn the_first_word_says_what_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.toml"), app("")).expect("room");
    for (words, status, said) in [
        (
            &["-t"][..],
            0,
            "preforkd: no configuration is named: taking app.toml of this folder\n",
        ),
        (&["-t", "app.toml"], 0, ""),
        (
            &["-t", "none.toml"],
            2,
            "cannot read none.toml: No such file",
        ),
        (
            &["statsu"],
            2,
            "there is no command \"statsu\" (did you mean `status`?)",
        ),
        (
            &["-t", "m.w", "-w", "4x"],
            2,
            "preforkd: --workers 4x: must be a number, \"auto\"",
        ),
        (
            &["-t", "m.w", "-b", ":x"],
            2,
            "preforkd: --bind :x: \"0.0.0.0:x\" is not an address",
        ),
        (
            &["-t", "m.w", "--timeout", "0"],
            2,
            "preforkd: --timeout 0: must be longer than zero",
        ),
        (
            &["-t", "m.w", "--chdir", "/no/such"],
            2,
            "preforkd: --chdir /no/such: there is no folder",
        ),
        (
            &["-t", "app.py"],
            2,
            "preforkd: app.py: must be \"MODULE:CALLABLE\", not \"app.py\" (write for example \"app:application\")",
        ),
        (
            &["-t", "m.w", "-n", "a b"],
            2,
            "preforkd: --name a b: \"a b\" is not a valid name for an app",
        ),
        (
            &["-t", "30", "m.w"],
            2,
            "preforkd: -t checks the configuration and takes no time (write --timeout 30)",
        ),
        (&["127.0.0.1:8000"], 2, "is an address, and no application"),
        (
            &["m.w", "-k", "gevent"],
            2,
            "preforkd: -k: there is one kind of worker",
        ),
        (
            &["m.w", "--worker-class=gevent"],
            2,
            "preforkd: --worker-class: there is one kind of worker",
        ),
        (
            &["m.w", "--http-socket", ":80"],
            2,
            "preforkd: --http-socket: no such option (write --bind)",
        ),
        (
            &["-w", "4", "-c", "app.toml"],
            2,
            "--workers is for an application on the command line (write `workers` in app.toml)",
        ),
        (&["-w", "4"], 2, "--workers needs an application"),
        (
            &["-w", "4", "status"],
            2,
            "--workers is for the master, not for commands",
        ),
        (
            &["m.w", "-c", "app.toml"],
            2,
            "m.w and -c app.toml are both named",
        ),
        (
            &["-c", "gunicorn.conf.py"],
            2,
            "a configuration of gunicorn",
        ),
        (
            &["-t", "mysite.asgi"],
            2,
            "preforkd: mysite.asgi: must be a WSGI application, and the module of \"mysite.asgi\" is for ASGI (write \"mysite.wsgi:application\"",
        ),
        (&["--print-config"], 2, "app.toml is a configuration"),
    ] {
        let (found, _, stderr) = output_in(folder.path(), words);
        assert!(stderr.contains(said), "{words:?}: {stderr}");
        assert_eq!(found, Some(status), "{words:?}: {stderr}");
        assert!(!said.is_empty() || stderr.is_empty(), "{stderr}");
    }
}

#[test]
fn the_manual_has_every_option_and_command() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/preforkd.8");
    let manual = std::fs::read_to_string(manual).expect("the manual");
    let command = preforkd::cli::command();
    for option in command.get_arguments() {
        let names = option.get_long_and_visible_aliases().unwrap_or_default();
        for name in names {
            let shown = format!("Fl -{name}");
            assert!(manual.contains(&shown), "preforkd(8) has no --{name}");
        }
        if let Some(short) = option.get_short() {
            let shown = format!(".It Fl {short} ");
            assert!(manual.contains(&shown), "preforkd(8) has no -{short}");
        }
    }
    for command in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        let name = command.get_name();
        let shown = format!(".It Cm {name}");
        let described = manual.split(&shown).nth(1);
        let described = described.unwrap_or_else(|| panic!("preforkd(8) has no {name}"));
        let described = described.split("\n.It Cm ").next().unwrap_or_default();
        for option in command.get_arguments() {
            let long = option.get_long().filter(|name| *name != "help");
            let shown = long.map_or(String::new(), |name| format!("Fl -{name}"));
            assert!(
                described.contains(&shown),
                "preforkd(8) has no {shown} of {name}"
            );
        }
    }
}

#[test]
fn the_configuration_is_printed_with_the_origin_of_each_value_and_does_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "[app.w]\ncommand = ['sleep', '${SECONDS_OF_TEST:-7}']\nworkers = 3\nenv = { A = \"$${B}\", 'x y' = '1' }\n[app.w.reload]\nsoak = '2s'\n[app.w.reload.check]\ncommand = 'true'\n";
    std::fs::write(folder.path().join("app.toml"), text).expect("room");
    let (status, printed, stderr) = output_in(folder.path(), &["config"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    for line in [
        "[app.w]",
        "command = [\"sleep\", \"7\"]  # app.toml:2:1, with variables of the environment",
        "workers = 3  # app.toml:3:1",
        "env = { A = \"$${B}\", \"x y\" = \"1\" }  # app.toml:4:1",
        "#start_timeout = \"60s\"  # default",
        "#[app.w.queue]",
        "[app.w.reload]",
        "soak = \"2s\"  # app.toml:6:1",
        "check = { command = \"true\" }  # app.toml:7:15",
        "# max_age: none  # default",
    ] {
        assert!(
            printed.lines().any(|printed| printed.starts_with(line)),
            "{printed}\nnot: {line}"
        );
    }
    assert!(!printed.contains("wsgi"), "of the other kind: {printed}");
    // What is printed is a configuration, with the same values.
    std::fs::write(folder.path().join("app.toml"), &printed).expect("room");
    let (status, again, stderr) = output_in(folder.path(), &["config", "-c", "app.toml"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.split("  # ").next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(values(&again), values(&printed));
}

#[test]
fn the_origin_of_a_value_may_be_an_option() {
    let words = ["config", "m:app", "-w", "4", "-e", "A=1"];
    let folder = tempfile::tempdir().expect("a folder");
    let own = env!("CARGO_PKG_VERSION");
    let parts = installed(own, own);
    let command = Command::new(parts.path().join("preforkd"));
    let (status, printed, stderr) = output_of(command, folder.path(), &words);
    assert_eq!(status, Some(0), "{stderr}");
    for line in [
        "wsgi = \"m:app\"  # m:app",
        "listen = [\"127.0.0.1:8000\"]  # default",
        "workers = 4  # --workers 4",
        "env = { A = \"1\" }  # --env A=1",
        "#threads = 1  # default",
    ] {
        let mut lines = printed.lines();
        assert!(
            lines.any(|printed| printed == line),
            "{printed}\nnot: {line}"
        );
    }
    for (words, said) in [
        (
            ["config", "status"],
            "status is a command, and no application",
        ),
        (["check", "--bogus"], "unexpected argument '--bogus'"),
    ] {
        let (status, _, stderr) = output_in(folder.path(), &words);
        assert_eq!(status, Some(2));
        assert!(stderr.starts_with(&format!("preforkd: {said}")), "{stderr}");
    }
}

#[test]
fn a_folder_without_an_application_is_not_initialised() {
    let folder = tempfile::tempdir().expect("a folder");
    let (status, _, stderr) = output_in(folder.path(), &["init"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains("nothing that can be served is found in"),
        "{stderr}"
    );
    assert!(!folder.path().join("app.toml").exists());
}

#[test]
fn an_asgi_project_without_its_server_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at(".venv/bin")).expect("a folder");
    let application = "from fastapi import FastAPI\napp = FastAPI()\n";
    fs::write(at("main.py"), application).expect("a file");
    // An interpreter in whose environment a file stands for the module.
    let python = "#!/bin/sh\nif [ \"$1\" = -c ] && [ -e \"$3\" ]; then echo found; fi\n";
    fs::write(at(".venv/bin/python"), python).expect("a file");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(at(".venv/bin/python"), executable).expect("its mode");
    let init = || {
        let (status, stdout, stderr) = output_in(folder.path(), &["init"]);
        assert_eq!(status, Some(0), "{stderr}");
        fs::remove_file(at("app.toml")).expect("it was written");
        stdout
    };
    let said = init();
    assert!(
        said.contains("mend this first: uvicorn is not installed ("),
        "{said}"
    );
    fs::write(at("uvicorn"), "").expect("a file");
    let said = init();
    assert!(!said.contains("uvicorn"), "{said}");
}

/// What a command prints in this environment.
fn printed(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = preforkd();
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(variable);
    }
    let output = command
        .args(arguments)
        .envs(environment.iter().copied())
        .output();
    String::from_utf8(output.expect("preforkd runs").stdout).expect("UTF-8")
}

#[test]
fn colours_and_widths_are_those_that_the_environment_asks_for() {
    let colour = '\u{1b}';
    assert!(
        !printed(&["--help"], &[]).contains(colour),
        "it is no terminal"
    );
    let forced = ("CLICOLOR_FORCE", "1");
    assert!(printed(&["--help"], &[forced]).contains(colour));
    assert!(!printed(&["--help"], &[forced, ("NO_COLOR", "1")]).contains(colour));
    let narrow = printed(&["--help"], &[("COLUMNS", "60")]);
    let widest = narrow.lines().map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|widest| widest <= 90), "{narrow}");
    assert!(narrow.lines().count() > printed(&["--help"], &[("COLUMNS", "200")]).lines().count());
}

/// The words of `--help`, and of the help of each command.
fn all_helps() -> Vec<Vec<String>> {
    let command = preforkd::cli::command();
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut helps = vec![vec!["--help".to_owned()]];
    helps.extend(shown.map(|command| vec![command.get_name().to_owned(), "--help".to_owned()]));
    helps
}

/// What a program shows on a terminal.
fn shown_on_a_terminal(mut command: Command) -> String {
    let mut terminal =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a terminal");
    grantpt(&terminal).expect("it is new");
    unlockpt(&terminal).expect("it is new");
    let name = ptsname_r(&terminal).expect("it has a name");
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, OFlag::O_NOCTTY.bits());
    let end = options.read(true).write(true).open(name);
    let end = end.expect("it is there");
    command.stderr(end.try_clone().expect("a descriptor"));
    command.stdout(end);
    let mut child = command.spawn().expect("preforkd runs");
    // Its copies of the other end.
    drop(command);
    let mut shown = Vec::new();
    // EIO is the end.
    let _ = terminal.read_to_end(&mut shown);
    child.wait().expect("it is ours");
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn each_command_heeds_what_the_environment_says_of_the_output() {
    let colour = '\u{1b}';
    let helps = all_helps();
    assert!(helps.len() > 10, "{helps:?}");
    for words in &helps {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let forced = ("CLICOLOR_FORCE", "1");
        assert!(!printed(&words, &[]).contains(colour), "{words:?}");
        assert!(printed(&words, &[forced]).contains(colour), "{words:?}");
        let plain = printed(&words, &[forced, ("NO_COLOR", "1")]);
        assert!(!plain.contains(colour), "{words:?}");
        let lines = |columns| printed(&words, &[("COLUMNS", columns)]).lines().count();
        assert!(lines("40") > lines("200"), "{words:?}");
        for (terminal, has_colour) in [("xterm", true), ("dumb", false)] {
            let mut command = preforkd();
            for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "CI"] {
                command.env_remove(variable);
            }
            command.args(&words).env("TERM", terminal);
            let shown = shown_on_a_terminal(command);
            assert_eq!(shown.contains(colour), has_colour, "{words:?}: {shown}");
        }
    }
}

#[test]
fn each_command_ends_quietly_when_nobody_reads_what_it_prints() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.toml"), app("")).expect("room");
    let command = preforkd::cli::command();
    let names = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    for name in names.map(|command| command.get_name().to_owned()) {
        let argument: &[&str] = match &*name {
            "completions" => &["bash"],
            "scale" => &["web=1"],
            "start" | "restart" => &["web"],
            _ => &[],
        };
        let mut command = preforkd();
        command.arg(&name).args(argument).current_dir(folder.path());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (errors, written) = std::io::pipe().expect("a pipe");
        drop(errors);
        let mut child = command
            .env_remove("PWD")
            .stdout(writer)
            .stderr(written)
            .spawn()
            .expect("preforkd runs");
        // It may find no master to ask; a panic is status 101.
        let status = child.wait().expect("it is ours").code();
        assert!(matches!(status, Some(0..=4)), "{name}: {status:?}");
    }
}

#[test]
fn a_reader_that_wants_no_more_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.toml"), app("")).expect("room");
    let own = env!("CARGO_PKG_VERSION");
    let parts = installed(own, own);
    for words in [
        &["--help"][..],
        &["--version"],
        &["config"],
        &["check"],
        &["-t"],
        &["--print-config", "m:app"],
    ] {
        let mut command = Command::new(parts.path().join("preforkd"));
        let command = command.args(words).current_dir(folder.path());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command.env_remove("PWD").stdout(writer).output();
        let output = output.expect("preforkd runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {said}");
    }
}
