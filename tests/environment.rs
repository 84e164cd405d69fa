//! What the configuration takes from elsewhere: variables of the environment, files of variables, other files.

mod common;

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use common::programs::{copy_program, write_script};
use common::{Run, app, ask, preforkd, worker};

#[test]
fn references_get_the_environment_of_the_start_also_at_a_reload() {
    let config = app("workers = '${WEB_WORKERS}'\nenv = { DATA = '${DATA_DIR:-/none}/x' }");
    let mut run = Run::begin_with(&config, |command| {
        command
            .env("WEB_WORKERS", "2")
            .env("DATA_DIR", "/srv '\"] $X");
    });
    run.message("READY=1");
    assert_eq!(run.ask("env DATA"), "/srv '\"] $X/x");
    let message = run.reload();
    assert!(message.contains("generation 2: web 2/2 ready"), "{message}");
    run.write("app.toml", &app("env = { DATA = '${NOT_SET}' }"));
    let message = run.reload();
    let reason = "app.toml:4:17: env.DATA: the variable NOT_SET is not set";
    assert!(message.contains(reason), "{message}");
    assert_eq!(run.ask("env DATA"), "/srv '\"] $X/x");
    run.stop();
}

#[test]
fn a_variable_for_the_master_alone_is_refused_at_the_start_already() {
    let mut run = Run::begin(&app("env = { A = '${NOTIFY_SOCKET}' }"));
    let (status, log) = run.ended();
    assert_eq!(status, Some(2), "{log}");
    assert!(
        log.contains("NOTIFY_SOCKET is meant for the master alone"),
        "{log}"
    );
}

#[test]
fn a_file_of_variables_is_read_at_each_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(".env"), "A='one two'\n").expect("room");
    let mut run = Run::begin_in(folder, &app("env_file = '.env'"), |_| {});
    run.message("READY=1");
    assert_eq!(run.ask("env A"), "one two");
    run.write(".env", "export A=three # changed\n");
    assert!(run.reload().contains("generation 2: web 1/1 ready"));
    assert_eq!(run.ask("env A"), "three");
    run.write(".env", "A=1\nB='hunter2\n");
    let message = run.reload();
    assert!(message.contains("app.toml:4:12: env_file: /"), "{message}");
    let reason = "/.env:2: B: the quote is not closed";
    assert!(message.contains(reason), "{message}");
    assert_eq!(run.ask("env A"), "three");
    let log = run.stop();
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn included_files_are_read_at_each_reload_and_errors_name_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = |rest: &str| format!("[app.other]\ncommand = '{}'\n{rest}", worker());
    std::fs::create_dir(folder.path().join("conf.d")).expect("room");
    let include = "include = 'conf.d/*.toml'\n";
    let mut run = Run::begin_in(folder, &format!("{include}{}", app("")), |_| {});
    run.status("web 1/1 ready");
    run.write("conf.d/b.toml", &other("workers = 2"));
    run.write("conf.d/.hidden.toml", "nonsense");
    run.write("conf.d/b.toml~", "nonsense");
    let message = run.reload();
    assert!(
        message.contains("generation 2: other 2/2 ready; web 1/1 ready"),
        "{message}"
    );
    run.write("conf.d/c.toml", &other("workers = 3"));
    let message = run.reload();
    assert!(
        message.contains("conf.d/c.toml:1:6: [app.other] is there already: /")
            && message.contains(
                "/conf.d/b.toml:1:6 (rename or remove one of them); keeping generation 2"
            ),
        "{message}"
    );
    run.write("conf.d/c.toml", "[app.c]\nwrokers = 3");
    let message = run.reload();
    assert!(
        message.contains("conf.d/c.toml:2:1: unknown key `wrokers`"),
        "{message}"
    );
    std::fs::remove_file(run.path("conf.d/b.toml")).expect("it is there");
    std::fs::remove_file(run.path("conf.d/c.toml")).expect("it is there");
    run.signal(Signal::SIGHUP);
    run.status("generation 3: web 1/1 ready");
    // Without its folder all its apps would be removed.
    run.write("conf.d/b.toml", &other(""));
    run.reload();
    std::fs::rename(run.path("conf.d"), run.path("gone")).expect("it is there");
    let message = run.reload();
    assert!(
        message.contains("app.toml:1:11: include: there is no folder ")
            && message.contains("keeping generation 4"),
        "{message}"
    );
    std::fs::rename(run.path("gone"), run.path("conf.d")).expect("it is there");
    let message = run.reload();
    assert!(message.contains("generation 5: other 1/1"), "{message}");
    run.stop();
}

#[test]
fn the_command_line_shows_errors_of_included_files_as_they_were_named() {
    let folder = tempfile::tempdir().expect("a folder");
    // The folder's name has wildcards.
    let odd = folder.path().join("a[b]*");
    std::fs::create_dir_all(odd.join("conf.d")).expect("room");
    std::fs::write(odd.join("conf.d/x.toml"), "[app.x]\ncommand = ['/none']\n").expect("room");
    std::fs::write(odd.join("app.toml"), "include = 'conf.d/[a-z].toml'\n").expect("room");
    let mut command = preforkd();
    let output = command
        .args(["-t", "-c", "app.toml"])
        .current_dir(&odd)
        .output();
    let output = output.expect("preforkd runs");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = "preforkd: conf.d/x.toml:2:11: command: there is no executable file /none";
    assert!(error.starts_with(expected), "{error}");
    assert!(
        error.ends_with("2 | command = ['/none']\n  |           ^^^^^^^^^\n"),
        "{error}"
    );
}

#[test]
fn an_included_link_that_leads_nowhere_is_named_as_one() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink("none.toml", folder.path().join("x.toml")).expect("room");
    let file = folder.path().join("app.toml");
    std::fs::write(&file, "include = 'x.toml'\n").expect("room");
    let output = preforkd().arg("-t").arg("-c").arg(&file).output();
    let output = output.expect("preforkd runs");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = "x.toml: it is a symbolic link to none.toml, which does not exist";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_test_of_a_configuration_says_what_the_platform_has_decided() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("app.toml");
    // An interpreter of which nothing but the existence is checked.
    std::fs::write(&file, "[app.web]\nwsgi = 'a:b'\npython = '/bin/true'\n").expect("room");
    // The extension module, which need not be built for these tests, stands beside the program.
    let program = folder.path().join("preforkd");
    copy_program(preforkd().get_program(), &program);
    let extension = format!("\u{1e}preforkd version {}\u{1e}", env!("CARGO_PKG_VERSION"));
    std::fs::write(folder.path().join("libpreforkd_python.so"), extension).expect("room");
    let mut command = Command::new(program);
    command.env("PORT", "5000").env("WEB_CONCURRENCY", "3");
    let output = command.arg("-t").arg("-c").arg(&file).output();
    let output = output.expect("preforkd runs");
    let error = String::from_utf8_lossy(&output.stderr);
    let said = "app=web listens on 0.0.0.0:5000, from the variable PORT, because `listen` is not given\n\
                app=web has 3 workers, from the variable WEB_CONCURRENCY, because `workers` is not given\n\
                app=web runs a:b in 3 workers with 1 thread each, listening on 0.0.0.0:5000\n\
                app=web /bin/true; it is that of the key `python`\n\
                extension module ";
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stdout.starts_with(said), "{stdout}{error}");
    assert!(
        stdout.ends_with("/libpreforkd_python.so\nconfiguration OK\n"),
        "{stdout}"
    );
}

#[test]
fn a_secret_reaches_one_app_and_no_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = folder.path().join("credentials");
    std::fs::create_dir(&credentials).expect("room");
    std::fs::write(credentials.join("django"), "swordfish\n").expect("room");
    std::fs::write(folder.path().join("key"), "hunter2").expect("room");
    let config = format!(
        "{}[app.other]\ncommand = ['{}']\nlisten = 'unix:other.sock'\n",
        app("secrets = { KEY = 'credential:django', KEY2 = 'file:key' }"),
        worker()
    );
    let mut run = Run::begin_in(folder, &config, |command| {
        command.arg("-v").env("CREDENTIALS_DIRECTORY", &credentials);
    });
    run.message("READY=1");
    let asked = |run: &Run| (run.ask("env KEY"), run.ask("env KEY2"));
    assert_eq!(asked(&run), ("swordfish".into(), "hunter2".into()));
    let other = UnixStream::connect(run.path("other.sock")).expect("it listens");
    assert_eq!(ask(other, "env KEY"), "unset");
    run.write("key", "hunter2 hunter2");
    assert!(run.reload().contains("generation 2"));
    assert_eq!(asked(&run), ("swordfish".into(), "hunter2 hunter2".into()));
    run.write("key", "hunter2\0");
    let message = run.reload();
    assert!(
        message.contains("secrets.KEY2: the file has a NUL"),
        "{message}"
    );
    let mut check = preforkd();
    check.env("CREDENTIALS_DIRECTORY", &credentials);
    let output = check.arg("-t").arg("-c").arg(run.path("app.toml")).output();
    let output = output.expect("preforkd runs");
    let log = run.stop();
    let shown = [
        log.into_bytes(),
        output.stdout,
        output.stderr,
        message.into_bytes(),
    ]
    .concat();
    let shown = String::from_utf8_lossy(&shown);
    assert!(
        !shown.contains("hunter2") && !shown.contains("swordfish"),
        "{shown}"
    );
}

#[test]
fn what_a_test_has_made_can_be_executed_while_other_threads_start_processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                Command::new("true").status().expect("it is there");
            }
        });
        for number in 0..20 {
            let copy = folder.path().join(format!("copy{number}"));
            copy_program("/bin/true", &copy);
            let script = folder.path().join(format!("script{number}"));
            write_script(&script, "#!/bin/sh\nexit 0\n");
            for program in [copy, script] {
                let status = Command::new(program).status();
                assert!(status.expect("it is not busy").success());
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}
