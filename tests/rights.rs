//! What the processes of an app may do. Each test tries the forbidden thing from inside of a worker. Some need root, and print a
//! line if they are skipped.

mod common;

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Pid;

use common::programs::copy_program;
use common::{Run, worker};

/// The user of the app.
const USER: u32 = 65534;
/// A user that has no other processes.
const QUIET: &str = "lp";
/// A group that no user is in.
const GROUP: u32 = 64_134;

macro_rules! needs_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            let _ = writeln!(std::io::stderr(), "{name}: skipped, as it needs root");
            return;
        }
    };
}

/// An app of the worker in the folder of the test; `rest` is added to its table.
fn app(rest: &str) -> String {
    format!("[app.web]\ncommand = ['./worker']\nlisten = ['unix:web.sock']\n{rest}\n")
}

/// The same, with a user of its own.
fn app_of_user(rest: &str) -> String {
    app(&format!("user = '{USER}'\ngroup = '{USER}'\n{rest}"))
}

fn stage() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("ours");
    copy_program(worker(), folder.path().join("worker"));
    folder
}

fn start(config: &str) -> Run {
    let run = Run::begin_in(stage(), config, |_| {});
    run.message("READY=1");
    run
}

/// A field of /proc/self/status of the worker.
fn status(run: &Run, field: &str) -> String {
    let line = run.ask(&format!("sh grep ^{field}: /proc/$PPID/status"));
    let value = line.trim().strip_prefix(&format!("{field}:"));
    value.unwrap_or_else(|| panic!("{line}")).trim().to_owned()
}

#[test]
fn a_program_with_the_set_user_id_bit_gives_no_rights_unless_the_app_says_so() {
    needs_root!();
    for (key, uid) in [("", USER), ("no_new_privs = false", 0)] {
        let folder = stage();
        let flags = statvfs(folder.path()).expect("it is there").flags();
        if flags.contains(FsFlags::ST_NOSUID) {
            let _ = writeln!(
                std::io::stderr(),
                "skipped, as the folder is mounted nosuid"
            );
            return;
        }
        let program = folder.path().join("id");
        copy_program("/usr/bin/id", &program);
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).expect("ours");
        let mut run = Run::begin_in(folder, &app_of_user(key), |_| {});
        run.message("READY=1");
        assert_eq!(run.ask("sh ./id -u"), uid.to_string(), "{key}");
        run.stop();
    }
}

#[test]
fn a_worker_gets_no_new_privileges() {
    let mut run = start(&app(""));
    assert_eq!(status(&run, "NoNewPrivs"), "1");
    run.stop();
}

#[test]
fn a_worker_that_is_root_without_capabilities_may_do_nothing_of_what_root_may() {
    needs_root!();
    let mut run = start(&app("capabilities = []"));
    for set in ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(status(&run, set), "0000000000000000", "{set}");
    }
    let said = run.ask("sh touch file && chown 1:1 file");
    assert!(said.contains("Operation not permitted"), "{said}");
    assert_eq!(status(&run, "Uid").split('\t').next(), Some("0"));
    run.stop();
}

#[test]
fn a_worker_keeps_the_capabilities_that_are_listed_over_the_change_of_its_user() {
    needs_root!();
    let folder = stage();
    std::fs::create_dir(folder.path().join("theirs")).expect("room");
    chown(folder.path().join("theirs"), Some(USER), Some(USER)).expect("root may");
    let config = app_of_user("capabilities = ['CAP_CHOWN', 'kill']");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&run, set), "0000000000000021", "{set}");
    }
    let try_both = "sh cd theirs && touch file && chown 1:1 file && stat -c %u file; chroot / true";
    let said = run.ask(try_both);
    assert!(said.starts_with("1;"), "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
    run.stop();
}

#[test]
fn a_worker_of_a_user_has_no_capabilities() {
    needs_root!();
    let mut run = start(&app_of_user(""));
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status(&run, set), "0000000000000000", "{set}");
    }
    run.stop();
}

#[test]
fn a_worker_cannot_use_more_than_its_limits() {
    let mut run = start(&app(
        "limits = { nofile = '40:60', fsize = 1024, core = 0 }",
    ));
    assert_eq!(run.ask("sh ulimit -n; ulimit -Hn; ulimit -c"), "40;60;0");
    let said = run.ask("sh ulimit -n 61 || echo refused");
    assert!(said.contains("refused"), "{said}");
    let said = run.ask("sh (trap '' XFSZ; head -c 4096 /dev/zero > file); stat -c %s file");
    assert!(said.starts_with("1024"), "{said}");
    run.write("app.toml", &app("limits = { nofile = 50 }"));
    let message = run.reload();
    assert!(message.contains("generation 2: web 1/1 ready"), "{message}");
    assert_eq!(run.ask("sh ulimit -n; ulimit -f"), "50;unlimited");
    run.stop();
}

#[test]
fn a_user_cannot_have_more_processes_than_its_limit() {
    needs_root!();
    let mut run = start(&app(&format!("user = '{QUIET}'\nlimits = {{ nproc = 1 }}")));
    let said = run.ask("sh true");
    assert!(said.contains("Resource temporarily unavailable"), "{said}");
    run.stop();
}

#[test]
fn a_worker_has_its_place_among_the_processes_of_the_machine() {
    let own = sched_getaffinity(Pid::from_raw(0)).expect("a set");
    let first = (0..CpuSet::count()).find(|cpu| own.is_set(*cpu) == Ok(true));
    let cpu = first.expect("this process runs on one");
    // Not so much less than others that it starves beside them.
    let nice = (preforkd::sys::nice() + 1).min(19);
    let keys = format!("oom_score_adj = 900\nnice = {nice}\ncpu_affinity = {cpu}");
    let mut run = start(&app(&keys));
    assert_eq!(run.ask("file /proc/self/oom_score_adj"), "900;");
    assert_eq!(run.ask("sh nice"), nice.to_string());
    assert_eq!(status(&run, "Cpus_allowed_list"), cpu.to_string());
    run.stop();
}

#[test]
fn a_worker_with_a_clear_environment_gets_what_its_app_says_and_little_else() {
    let folder = stage();
    let config = app("env_clear = true\nenv = { OWN = 'yes' }");
    let mut run = Run::begin_in(folder, &config, |command| {
        command.env("SECRET", "x").env("TZ", "UTC");
        command.env("LC_TIME", "C");
    });
    run.message("READY=1");
    assert_eq!(run.ask("env SECRET"), "unset");
    assert_eq!(run.ask("env INVOCATION_ID"), "unset");
    for (name, value) in [
        ("OWN", "yes"),
        ("TZ", "UTC"),
        ("LC_TIME", "C"),
        ("PREFORKD_APP", "web"),
    ] {
        assert_eq!(run.ask(&format!("env {name}")), value);
    }
    assert!(run.ask("env PATH").contains('/'));
    run.stop();
}

#[test]
fn a_worker_reads_what_its_further_groups_may_read() {
    needs_root!();
    for (key, may) in [
        (format!("groups = '{GROUP}'"), true),
        (String::new(), false),
    ] {
        let folder = stage();
        let file = folder.path().join("shared");
        std::fs::write(&file, "shared").expect("room");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("ours");
        chown(&file, Some(0), Some(GROUP)).expect("root may");
        let mut run = Run::begin_in(folder, &app_of_user(&key), |_| {});
        run.message("READY=1");
        let read = run.ask("file shared");
        assert_eq!(read == "shared", may, "{read}");
        run.stop();
    }
}

#[test]
fn what_runs_beside_the_workers_has_no_more_rights() {
    let steps = "[app.web.reload]\nbefore = ['grep', '-q', 'NoNewPrivs:.1', '/proc/self/status']\nbefore_at_start = true
        check = { command = ['grep', '-q', 'Max core file size *0 ', '/proc/self/limits'] }";
    let mut run = start(&app(&format!("limits = {{ core = 0 }}\n{steps}")));
    let message = run.reload();
    assert!(message.contains("generation 2: web 1/1 ready"), "{message}");
    let other = app(&format!(
        "limits = {{ core = 0 }}\nno_new_privs = false\n{steps}"
    ));
    run.write("app.toml", &other);
    let message = run.reload();
    assert!(message.contains("keeping generation 2"), "{message}");
    run.stop();
}

#[test]
fn what_the_machine_does_not_have_is_an_error_of_the_start_that_says_what_to_do() {
    let mut run = Run::begin_in(stage(), &app("cpu_affinity = 1023"), |_| {});
    let (status, log) = run.ended();
    assert_eq!(status, Some(1), "{log}");
    let why = "cannot set `cpu_affinity`: Invalid argument (the machine has none of these CPUs";
    assert!(log.contains(why) && log.contains("app=web"), "{log}");
}

/// An app that may reach the folder `open` and the programs of the system; its temporary files are in `temporary`.
fn confined(rest: &str) -> String {
    app(&format!(
        "env = {{ TMPDIR = './temporary' }}\nlandlock = {{ {rest} }}"
    ))
}

/// A folder with what the worker needs, and two files: one in `open`, and one in `closed`.
fn stage_of_confined() -> tempfile::TempDir {
    let folder = stage();
    for name in ["temporary", "open", "closed"] {
        std::fs::create_dir(folder.path().join(name)).expect("room");
        std::fs::write(folder.path().join(name).join("file"), name).expect("room");
    }
    folder
}

/// Whether the kernel has this version of Landlock. Otherwise reports that the test is skipped.
fn has_landlock(version: u32) -> bool {
    let has = preforkd::sys::landlock_version() >= version;
    if !has {
        let _ = writeln!(std::io::stderr(), "skipped, as it needs Landlock {version}");
    }
    has
}

fn start_confined(config: &str) -> Run {
    let run = Run::begin_in(stage_of_confined(), config, |_| {});
    run.message("READY=1");
    run
}

#[test]
fn a_worker_changes_only_what_it_may() {
    if !has_landlock(3) {
        return;
    }
    let mut run = start_confined(&confined("write = 'open'"));
    assert_eq!(run.ask("file closed/file"), "closed");
    for refused in [
        "echo x > closed/file",
        "echo x > closed/new",
        "rm closed/file",
        "mv open/file closed/moved",
        "ln -s x closed/link",
        "mkdir closed/folder",
        "echo x > /var/tmp/preforkd-test",
    ] {
        let said = run.ask(&format!("sh {refused} && echo done"));
        assert!(!said.contains("done"), "{refused}: {said}");
    }
    for allowed in [
        "echo x > open/file",
        "mkdir open/folder && mv open/file open/folder/file && rm -r open/folder",
        "echo x > temporary/new",
        "echo x > /dev/null",
        "echo x > /dev/shm/preforkd-test-$$ && rm /dev/shm/preforkd-test-$$",
    ] {
        let said = run.ask(&format!("sh {allowed} && echo done"));
        assert_eq!(said, "done", "{allowed}");
    }
    run.stop();
}

#[test]
fn a_worker_reads_only_what_it_may() {
    if !has_landlock(3) {
        return;
    }
    let outside = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let (open, closed) = (outside.path().join("open"), outside.path().join("closed"));
    for folder in [&open, &closed] {
        std::fs::create_dir(folder).expect("room");
        std::fs::write(folder.join("file"), "text").expect("room");
    }
    let keys = format!("read = '{}'", open.display());
    let mut run = start_confined(&confined(&keys));
    let read = |path: &std::path::Path| run.ask(&format!("file {}", path.display()));
    assert_eq!(read(&open.join("file")), "text");
    let refused = read(&closed.join("file"));
    assert!(refused.contains("Permission denied"), "{refused}");
    let listed = run.ask(&format!("sh ls {}", closed.display()));
    assert!(listed.contains("Permission denied"), "{listed}");
    assert_eq!(run.ask("file closed/file"), "closed", "it is below chdir");
    // A link leads to nothing more.
    let link = format!(
        "sh ln -s {} temporary/link; cat temporary/link/file",
        closed.display()
    );
    let refused = run.ask(&link);
    assert!(refused.contains("Permission denied"), "{refused}");
    run.stop();
}

#[test]
fn a_worker_that_replaces_a_path_by_a_link_reaches_nothing_more_at_the_next_start() {
    if !has_landlock(3) {
        return;
    }
    let outside = tempfile::tempdir_in("/var/tmp").expect("a folder");
    std::fs::write(outside.path().join("file"), "text").expect("room");
    let folder = stage_of_confined();
    std::fs::create_dir(folder.path().join("open/inner")).expect("room");
    let config = confined("read = 'open/inner', write = 'open'");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let link = format!(
        "sh rm -r open/inner && ln -s {} open/inner && echo done",
        outside.path().display()
    );
    assert_eq!(run.ask(&link), "done");
    let message = run.reload();
    assert!(message.contains("generation 2: web 1/1 ready"), "{message}");
    let refused = run.ask("file open/inner/file");
    assert!(refused.contains("Permission denied"), "{refused}");
    run.stop();
}

#[test]
fn a_worker_connects_only_to_the_ports_that_it_may() {
    if !has_landlock(4) {
        return;
    }
    let [allowed, refused] =
        [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("bound").port();
    let (open, closed) = (port(&allowed), port(&refused));
    let keys = format!("write = '/', connect = {open}, bind = []");
    let mut run = start_confined(&confined(&keys));
    assert_eq!(run.ask(&format!("connect {open}")), "connected");
    let said = run.ask(&format!("connect {closed}"));
    assert!(said.contains("Permission denied"), "{said}");
    let said = run.ask("bind 0");
    assert!(said.contains("Permission denied"), "{said}");
    run.stop();
}

#[test]
fn a_worker_of_the_masters_own_user_cannot_end_it() {
    if !has_landlock(6) {
        return;
    }
    let mut run = start_confined(&confined("write = 'open'"));
    let said = run.ask("sh kill -KILL $(sed -n 's/^PPid:.//p' /proc/$PPID/status) && echo done");
    assert!(!said.contains("done"), "{said}");
    assert_eq!(run.ask("sh sleep 100 & kill $! && echo done"), "done");
    run.stop();
}

#[test]
fn what_must_be_there_is_an_error_that_names_it() {
    if !has_landlock(3) {
        return;
    }
    let mut run = Run::begin_in(stage(), &confined("read = 'none'"), |_| {});
    let (status, log) = run.ended();
    assert_eq!(status, Some(2), "{log}");
    assert!(log.contains("landlock.read: there is no "), "{log}");
}
