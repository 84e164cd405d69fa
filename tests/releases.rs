//! Releases behind a symbolic link: a reload after the link was changed serves the new one.

mod common;

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Run, preforkd, worker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A folder with two releases and a link to the first, whose workers listen on `web.sock` beside them.
fn releases() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for number in ["1", "2"] {
        let release = folder.path().join(number);
        std::fs::create_dir(&release).expect("room");
        let config = format!(
            "[master]\ncontrol = '../control.sock'\n[app.web]\ncommand = ['{}']\nlisten = ['unix:../web.sock']\n",
            worker()
        );
        std::fs::write(release.join("app.toml"), config).expect("room");
    }
    switch(folder.path(), "1");
    folder
}

/// Lets `current` refer to a release, as deployment tools do it.
fn switch(folder: &Path, release: &str) {
    symlink(release, folder.join("next")).expect("room");
    std::fs::rename(folder.join("next"), folder.join("current")).expect("ours");
}

/// Starts a master with this configuration, in a working directory and with a `$PWD`.
fn start(folder: tempfile::TempDir, working: &Path, pwd: &Path, config: PathBuf) -> Run {
    let run = Run::begin_in(folder, "", |command| {
        let init = command.get_envs().find(|(key, _)| *key == "NOTIFY_SOCKET");
        let init = init.and_then(|(_, value)| value).expect("set").to_owned();
        *command = preforkd();
        command.arg("-c").arg(config).env("NOTIFY_SOCKET", init);
        command.current_dir(working).env("PWD", pwd);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    run.message("READY=1");
    run
}

fn reload(config: &Path) -> (Option<i32>, String) {
    let mut command = preforkd();
    command.arg("reload").arg("-c").arg(config);
    let output = command.output().expect("preforkd runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_reload_serves_the_release_that_the_link_names_by_then() {
    for (working, config) in [
        ("current", "app.toml"),
        ("current", "./app.toml"),
        (".", "current/app.toml"),
        ("/", "ABSOLUTE"),
    ] {
        let folder = releases();
        let current = folder.path().join("current/app.toml");
        let working = match working {
            "." => folder.path().to_owned(),
            name => folder.path().join(name),
        };
        let config = match config {
            "ABSOLUTE" => current.clone(),
            config => config.into(),
        };
        let mut run = start(folder, &working, &working, config.clone());
        assert!(run.ask("link /proc/self/cwd").ends_with("/1"));
        switch(run.folder.path(), "2");
        let done = reload(&current);
        assert_eq!(done, (Some(0), String::new()), "{}", config.display());
        assert!(run.ask("link /proc/self/cwd").ends_with("/2"));
        let shown = run.path("current").display().to_string();
        assert_eq!(run.ask("env PWD"), shown);
        run.stop();
    }
}

#[test]
fn after_a_refused_reload_workers_that_are_replaced_run_in_the_old_release() {
    let folder = releases();
    let current = folder.path().join("current");
    std::fs::write(folder.path().join("2/app.toml"), "[app.web]\nmistake = 1\n").expect("room");
    let mut run = start(folder, &current, &current, "app.toml".into());
    let replaced = |run: &Run| {
        let pid = run.ask("pid").parse().expect("a number");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
        // The next one accepts what waits.
        run.ask("link /proc/self/cwd")
    };
    switch(run.folder.path(), "2");
    run.signal(Signal::SIGHUP);
    run.logged(&["reload failed", "mistake"]);
    assert!(replaced(&run).ends_with("/1"));
    std::fs::remove_dir_all(run.path("1")).expect("ours");
    assert!(replaced(&run).ends_with("/2"), "there is nothing else");
    run.stop();
}

#[test]
fn a_working_directory_that_pwd_does_not_name_counts_by_its_own_path() {
    let folder = releases();
    let first = folder.path().join("1");
    let other = folder.path().join("2");
    let mut run = start(folder, &first, &other, "app.toml".into());
    assert!(run.ask("link /proc/self/cwd").ends_with("/1"));
    run.stop();
}

#[test]
fn a_command_says_that_the_master_reads_another_file() {
    let folder = releases();
    let (root, first) = (folder.path().to_owned(), folder.path().join("1"));
    let mut run = start(folder, &first, &first, "app.toml".into());
    let same = reload(&root.join("current/app.toml"));
    assert_eq!(same, (Some(0), String::new()), "the same file");
    switch(&root, "2");
    let (status, said) = reload(&root.join("current/app.toml"));
    assert_eq!(status, Some(0));
    let (theirs, ours) = (first.join("app.toml"), root.join("current/app.toml"));
    let expected = format!(
        "warning: the master reads {}, not {}",
        theirs.display(),
        ours.display()
    );
    assert!(said.contains(&expected), "{said}");
    run.stop();
}

#[test]
fn a_listener_a_pid_file_and_a_control_socket_below_the_link_move_with_it() {
    let folder = releases();
    let root = folder.path().to_owned();
    for number in ["1", "2"] {
        let release = root.join(number);
        std::fs::create_dir(release.join("run")).expect("room");
        let config = format!(
            "[master]\npid_file = 'run/pid'\n[app.web]\ncommand = ['{}']\nlisten = ['unix:run/web.sock']\n",
            worker()
        );
        std::fs::write(release.join("app.toml"), config).expect("room");
    }
    let current = root.join("current/app.toml");
    let mut run = start(folder, &root, &root, current.clone());
    let ask = |release: &str, question: &str| {
        let path = root.join(release).join("run/web.sock");
        common::ask(UnixStream::connect(path).expect("it listens"), question)
    };
    switch(&root, "2");
    // The command does not find the control socket below the link any more, and then by the file that the master reads.
    assert_eq!(reload(&current), (Some(0), String::new()));
    assert_eq!(ask("current", "env PREFORKD_GENERATION"), "2");
    let names = |release: &str| {
        let entries = std::fs::read_dir(root.join(release).join("run")).expect("it is there");
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(names("1").len(), 0, "nothing is left: {:?}", names("1"));
    assert_eq!(
        names("2"),
        [".web.sock.preforkd", "pid", "pid.sock", "web.sock"]
    );
    assert_eq!(reload(&current), (Some(0), String::new()));
    run.stop();
    assert_eq!(names("2").len(), 0, "{:?}", names("2"));
}

#[test]
fn files_that_are_included_by_a_relative_path_belong_to_the_release_too() {
    let folder = releases();
    let root = folder.path().to_owned();
    for number in ["1", "2"] {
        let release = root.join(number);
        std::fs::create_dir(release.join("conf.d")).expect("room");
        let app = format!(
            "[app.web]\ncommand = ['{}']\nlisten = ['unix:../../web.sock']\nenv = {{ RELEASE = '{number}' }}\n",
            worker()
        );
        std::fs::write(release.join("conf.d/web.toml"), app).expect("room");
        let config = "include = 'conf.d/*.toml'\n[master]\ncontrol = '../control.sock'\n";
        std::fs::write(release.join("app.toml"), config).expect("room");
    }
    let current = root.join("current");
    let mut run = start(folder, &current, &current, "app.toml".into());
    let shown = current.join("conf.d").display().to_string();
    assert_eq!(run.ask("env PWD"), shown);
    assert_eq!(run.ask("env RELEASE"), "1");
    switch(&root, "2");
    assert_eq!(reload(&current.join("app.toml")), (Some(0), String::new()));
    assert_eq!(run.ask("env RELEASE"), "2");
    assert_eq!(run.ask("env PWD"), shown);
    run.stop();
}
