//! Commands about one app: the others continue with the workers, listeners and the generation that they have.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use common::{Run, ask, free_address, preforkd, through_shell, worker};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Sends a command; returns its exit status and what it prints.
fn command(run: &Run, words: &[&str]) -> (Option<i32>, String) {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(words).args(["-c", &file]).output();
    let output = output.expect("preforkd runs");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).expect("text");
    (output.status.code(), printed)
}

/// The answer of a command that succeeds.
fn done(run: &Run, words: &[&str]) -> String {
    let (status, printed) = command(run, words);
    assert_eq!(status, Some(0), "{printed}");
    printed
}

/// The apps `web` and `api`; these lines are added to their tables.
fn apps(web: &str, api: &str) -> String {
    let worker = worker();
    let app = |name: &str, more: &str| {
        format!("[app.{name}]\ncommand = '{worker}'\nlisten = 'unix:{name}.sock'\n{more}\n")
    };
    "[master]\ncontrol = 'control'\n".to_owned() + &app("web", web) + &app("api", api)
}

fn connects(run: &Run, app: &str) -> bool {
    UnixStream::connect(run.path(&format!("{app}.sock"))).is_ok()
}

/// The process that answers.
fn pid(run: &Run, app: &str) -> String {
    let stream = UnixStream::connect(run.path(&format!("{app}.sock")));
    ask(stream.expect("the socket is open"), "pid")
}

/// The status; not everything may be ready.
fn status_of(run: &Run) -> Value {
    let (_, said) = command(run, &["status", "--json"]);
    serde_json::from_str(&said).expect("JSON")
}

fn app(run: &Run, name: &str) -> Value {
    let status: Value = serde_json::from_str(&done(run, &["status", "--json"])).expect("JSON");
    let apps = status["apps"].as_array().expect("a list").clone();
    let mut apps = apps.into_iter();
    apps.find(|app| app["name"] == name).expect("it is there")
}

#[test]
fn only_the_named_app_is_reloaded() {
    let mut run = Run::start(&apps("", ""));
    let (web, api) = (pid(&run, "web"), pid(&run, "api"));
    // The definition of the other app stays as it runs, too.
    run.write("app.toml", &apps("workers = 2", "workers = 3"));
    let said = done(&run, &["reload", "web"]);
    assert!(
        said.contains("generation 2: api 1/1 ready; web 2/2 ready"),
        "{said}"
    );
    assert_ne!(pid(&run, "web"), web);
    assert_eq!(pid(&run, "api"), api);
    assert_eq!(app(&run, "api")["workers"][0]["generation"], 1);

    let (status, said) = command(&run, &["reload", "web", "wep"]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("there is no app \"wep\" (configured: api, web); nothing is changed"),
        "{said}"
    );
    assert!(status_of(&run)["refused"].is_null(), "no reload has failed");
    // The whole file is checked.
    run.write("app.toml", &apps("", "workers = 0"));
    let (status, said) = command(&run, &["reload", "web"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("app.toml:10:11: workers"), "{said}");
    assert_eq!(pid(&run, "api"), api);
    run.stop();
}

/// A reload that goes on does not delay that, whatever becomes of it.
#[test]
fn a_misspelt_name_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("room");
    let mut run = Run::begin_in(folder, &apps("reload.before = ['cat', 'gate']", ""), |_| {});
    run.message("READY=1");
    run.signal(Signal::SIGHUP);
    run.logged(&["before pid=", "running cat gate"]);
    for words in [["reload", "wep"], ["start", "wep"], ["restart", "wep"]] {
        let (status, said) = command(&run, &words);
        assert_eq!(status, Some(1));
        assert!(said.contains("there is no app \"wep\""), "{said}");
    }
    std::fs::write(&gate, "").expect("`before` reads it");
    run.status("generation 2: api 1/1 ready; web 1/1 ready");
    assert!(status_of(&run)["refused"].is_null());

    // One that was just added is no mistake, but cannot be stopped first.
    let config = apps("", "");
    let new = format!("{config}\n[app.new]\ncommand = '{}'\n", worker());
    run.write("app.toml", &new);
    let (status, said) = command(&run, &["restart", "new"]);
    assert_eq!(status, Some(1));
    let what = "new is new in the configuration and does not run yet (start it with `preforkd start new`, or reload)";
    assert!(said.contains(what), "{said}");
    done(&run, &["reload", "new"]);
    done(&run, &["restart", "new"]);
    run.stop();
}

#[test]
fn a_stopped_app_stays_stopped_until_it_is_started() {
    let mut run = Run::start(&apps("", ""));
    let api = pid(&run, "api");
    // It needs no configuration.
    run.write("app.toml", "nonsense");
    assert_eq!(done(&run, &["stop", "web"]), "web: stopped\n");
    assert!(!connects(&run, "web"), "its listener is closed");
    run.write("app.toml", &apps("", ""));
    assert_eq!(done(&run, &["stop", "web"]), "web: already stopped\n");
    let message = done(&run, &["reload"]);
    assert!(message.contains("web stopped"), "{message}");
    let other = pid(&run, "api");
    assert_ne!(other, api, "a reload replaces the others");
    assert_eq!(app(&run, "web")["stopped"], "by command");
    for refused in [&["scale", "web=2"][..], &["reload", "web"]] {
        let (status, said) = command(&run, refused);
        assert_eq!(status, Some(1));
        assert!(
            said.contains("web is stopped (start it with `preforkd start web`)"),
            "{said}"
        );
    }

    let without = apps("", "").replace("[app.web]", "[app.other]");
    run.write("app.toml", &without);
    let (status, said) = command(&run, &["reload", "web"]);
    assert_eq!(status, Some(1));
    let gone = "web is stopped, and the configuration does not have it any more (a reload of all apps forgets it)";
    assert!(said.contains(gone), "{said}");

    run.write(
        "app.toml",
        &apps("start_timeout = '10s'\nenv = { A = 'b' }", ""),
    );
    run.write("behaviour", "exit 7");
    let (status, said) = command(&run, &["start", "web"]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("web could not be started: app=web: ")
            && said.contains("exited with status 7")
            && said.contains("; keeping generation 3; web stays stopped"),
        "{said}"
    );
    let status = run.status("web could not be started: ");
    assert!(!status.contains("reload failed"), "{status}");
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    let said = done(&run, &["start", "web"]);
    assert!(said.starts_with("web: started\ngeneration 5: "), "{said}");
    assert!(said.contains("web 1/1 ready"), "{said}");
    assert!(connects(&run, "web"));
    assert_eq!(done(&run, &["start", "web"]), "web: already running\n");

    let web = pid(&run, "web");
    done(&run, &["restart", "web"]);
    assert_ne!(pid(&run, "web"), web);
    assert_eq!(
        pid(&run, "api"),
        other,
        "all this does not concern the other app"
    );
    let log = run.stop();
    for line in [
        "stopping web; generation 2: ",
        "app=web: stopped",
        "web could not be started: app=web: ",
        "web: proven, starting all workers",
        "web started; generation 5: ",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    // One reload of all apps is about no single one.
    let words = |words: &str| log.matches(words).count();
    assert_eq!(words("is proven and takes over"), 1, "{log}");
    assert_eq!(words("reload failed"), 0, "{log}");
}

#[test]
fn the_listener_of_an_app_that_is_restarted_stays_open_until_it_is_clear_that_it_will_not_run() {
    let address = free_address();
    let config = apps("", "").replace("unix:web.sock", &address.to_string());
    // An init system would have the socket open for a moment longer.
    let mut run = Run::begin_with(&config, |command| {
        command.env_remove("NOTIFY_SOCKET");
    });
    run.logged(&["generation 1 is ready"]);
    let connect = || TcpStream::connect(address);
    for (generation, then) in [(2, "runs"), (4, "fails"), (7, "is stopped")] {
        // It does not accept, nor end, until it is killed.
        let old = ask(connect().expect("it listens"), "pid");
        let mut busy = connect().expect("it listens");
        busy.write_all(b"hang\n").expect("it reads");
        run.event("hangs");
        let file = run.path("app.toml");
        let restart = preforkd()
            .args(["restart", "web", "-c"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut restart = restart.expect("preforkd runs");
        run.logged(&[&format!("stopping web; generation {generation}")]);
        let mut waiting = connect().expect("it is open");
        waiting.write_all(b"pid\n").expect("nobody has closed it");
        let (mut stop, is_well) = (None, then == "runs");
        match then {
            "fails" => run.write("behaviour", "exit 7"),
            "is stopped" => {
                let file = run.path("app.toml");
                let mut command = preforkd();
                let command = command.args(["stop", "web", "-c"]).arg(file);
                let command = command.stdout(Stdio::null()).spawn();
                stop = Some(command.expect("preforkd runs"));
                run.logged(&["control: stop of web"]);
            }
            _ => {}
        }
        let old = old.parse().map(Pid::from_raw).expect("a number");
        kill(old, Signal::SIGKILL).expect("it runs");
        let restarted = restart.wait().expect("it is ours");
        assert_eq!(restarted.success(), is_well, "{then}");
        if let Some(mut stop) = stop {
            assert!(stop.wait().expect("it is ours").success());
        }
        let mut answer = String::new();
        let read = waiting.read_to_string(&mut answer);
        let answered = answer.trim().parse::<u32>().is_ok();
        assert_eq!(answered, is_well, "{then}: {read:?} {answer}");
        if !is_well {
            run.logged(&["no longer listening on", &address.to_string()]);
            let refused = connect().expect_err("nobody has it open");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let _ = std::fs::remove_file(run.path("behaviour"));
            done(&run, &["start", "web"]);
        }
    }
    run.stop();
}

#[test]
fn a_number_of_workers_survives_a_restart_until_another_one_is_configured() {
    let mut run = Run::start(&apps("workers = 2", ""));
    done(&run, &["scale", "web=3"]);
    let said = done(&run, &["restart", "web"]);
    assert!(said.contains("web 3/3 ready"), "{said}");
    // Also of one whose start has failed first.
    run.write("behaviour", "exit 7");
    let (status, said) = command(&run, &["restart", "web"]);
    assert_eq!(status, Some(1), "{said}");
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    let said = done(&run, &["start", "web"]);
    assert!(said.contains("web 3/3 ready"), "{said}");
    run.write("app.toml", &apps("workers = 1", ""));
    let said = done(&run, &["restart", "web"]);
    assert!(said.contains("web 1/1 ready"), "{said}");
    done(&run, &["scale", "web=2"]);
    done(&run, &["stop", "web"]);
    let said = done(&run, &["start", "web"]);
    assert!(said.contains("web 1/1 ready"), "a stop ends it: {said}");
    run.stop();
}

#[test]
fn an_app_that_is_not_enabled_is_started_by_a_command() {
    let mut run = Run::start(&apps("enabled = false", ""));
    assert!(!connects(&run, "web"));
    assert_eq!(app(&run, "web")["stopped"], "by configuration");
    let said = done(&run, &["status"]);
    assert!(said.contains("web: stopped by configuration"), "{said}");
    done(&run, &["start", "web"]);
    let message = done(&run, &["reload"]);
    assert!(
        message.contains("web 1/1 ready"),
        "a reload changes nothing: {message}"
    );
    run.stop();
}

#[test]
fn an_app_without_changes_can_stay_at_a_reload() {
    let table = "reload = 'on-change'\nenv_file = 'env'\nchdir = 'current'";
    let folder = tempfile::tempdir().expect("a folder");
    for release in ["1", "2"] {
        std::fs::create_dir(folder.path().join(release)).expect("room");
    }
    let link = |to: &str| {
        let link = folder.path().join("current");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(to, link).expect("room");
    };
    link("1");
    std::fs::write(folder.path().join("env"), "A=1").expect("room");
    let path = folder.path().to_owned();
    let config = apps(table, "").replace("current", &path.join("current").display().to_string());
    let config = config.replace("'env'", &format!("'{}'", path.join("env").display()));
    let mut run = Run::start(&config);
    let (web, api) = (pid(&run, "web"), pid(&run, "api"));
    run.reload();
    run.logged(&["app=web: nothing has changed, so its workers stay"]);
    assert_eq!(pid(&run, "web"), web);
    assert_ne!(pid(&run, "api"), api);
    let mut last = web;
    let replaced = |run: &Run, why: &str, last: &mut String| {
        run.reload();
        let now = pid(run, "web");
        assert_ne!(now, *last, "{why}");
        *last = now;
    };
    std::fs::write(path.join("env"), "A=2").expect("room");
    replaced(&run, "a variable has changed", &mut last);
    link("2");
    replaced(&run, "the link leads to another folder", &mut last);
    std::fs::remove_file(run.path("web.sock")).expect("it is there");
    std::fs::write(run.path("web.sock"), "").expect("room");
    std::fs::remove_file(run.path("web.sock")).expect("it is there");
    run.reload();
    assert!(connects(&run, "web"), "its socket has its file again");
    let now = pid(&run, "web");
    done(&run, &["reload", "web"]);
    assert_ne!(pid(&run, "web"), now, "it was named");
    run.stop();
}

/// `web`, and an app with this schedule whose runs end only by SIGKILL.
fn with_schedule(schedule: &str, more: &str) -> String {
    let script =
        "trap \"\" TERM; echo 0 $$PREFORKD_GENERATION $$$$ began; while :; do sleep 1; done";
    let tick = format!(
        "[app.tick]\ncommand = ['/bin/sh', '-c', '{script}']\nschedule = '{schedule}'\ngraceful_timeout = '300ms'\n{more}\n"
    );
    apps("", "") + &tick
}

#[test]
fn a_stop_ends_the_run_of_an_app_with_a_schedule_and_a_start_resumes_it() {
    let mut run = Run::start(&with_schedule("* * * * * *", ""));
    let (web, api) = (pid(&run, "web"), pid(&run, "api"));
    let first = run.event("began").pid;
    assert_eq!(done(&run, &["stop", "tick"]), "tick: stopped\n");
    assert_eq!(kill(first, None), Err(Errno::ESRCH), "it has ended");
    run.logged(&["app=tick run gen=1", "sending SIGKILL"]);
    let (status, shown) = command(&run, &["status"]);
    assert_eq!(status, Some(0), "a stopped app is as wanted: {shown}");
    assert!(shown.contains("tick: stopped by command"), "{shown}");
    assert!(!shown.contains("next run"), "{shown}");
    assert_eq!(app(&run, "tick")["stopped"], "by command");
    assert_eq!(done(&run, &["stop", "tick"]), "tick: already stopped\n");
    let (status, said) = command(&run, &["scale", "tick=2"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("tick is stopped"), "{said}");

    done(&run, &["start", "tick"]);
    run.logged(&["tick: started, and runs at the next time of its schedule"]);
    let second = run.event("began");
    assert_eq!(second.generation, "3");
    done(&run, &["restart", "tick"]);
    assert_eq!(kill(second.pid, None), Err(Errno::ESRCH), "it has ended");
    let third = run.event("began");
    assert_ne!(third.pid, second.pid);
    assert_eq!((pid(&run, "web"), pid(&run, "api")), (web, api));

    // Only the schedule of the named app is taken from the file.
    let changed = with_schedule("@yearly", "").replace("[app.web]", "[app.web]\nworkers = 2");
    run.write("app.toml", &changed);
    let said = done(&run, &["reload", "tick"]);
    assert!(said.contains("web 1/1 ready"), "{said}");
    let shown = done(&run, &["status"]);
    assert!(shown.contains("tick: runs at @yearly"), "{shown}");
    assert!(
        shown.contains(&format!("running: pid {}", third.pid)),
        "{shown}"
    );

    run.write("app.toml", &with_schedule("* * * * * *", "enabled = false"));
    done(&run, &["reload"]);
    let shown = done(&run, &["status"]);
    assert!(shown.contains("tick: stopped by configuration"), "{shown}");
    run.stop();
    run.all_ended();
}

#[test]
fn the_status_shows_stopped_apps_and_the_older_generation_of_kept_ones() {
    let mut run = Run::start(&apps("", "reload = 'on-change'"));
    run.reload();
    done(&run, &["stop", "web"]);
    let (status, shown) = command(&run, &["status"]);
    assert_eq!(status, Some(0), "{shown}");
    for part in ["generation 3", "api: 1/1 ready", "web: stopped by command"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let api = app(&run, "api");
    assert_eq!(api["workers"][0]["generation"], 1);
    assert_eq!(api["stopped"], Value::Null);
    let web = app(&run, "web");
    assert_eq!(web["wanted"], 0);
    assert_eq!(web["workers"].as_array().map(Vec::len), Some(0));
    run.stop();
}

#[test]
fn a_passed_socket_comes_back_when_its_app_is_started_again() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    for listen in ["fd:web".to_owned(), address.to_string()] {
        let passed = OwnedFd::from(socket.try_clone().expect("a copy"));
        let config = apps("", "").replace("unix:web.sock", &listen);
        let mut run = Run::begin_with(&config, |command| {
            let script = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" \"$@\" 3<&0 </dev/null";
            through_shell(command, script);
            command.stdin(Stdio::from(passed));
        });
        run.message("READY=1");
        let connect = || TcpStream::connect(address).expect("the init system has it open");
        let web = ask(connect(), "pid");
        assert_eq!(done(&run, &["stop", "web"]), "web: stopped\n");
        let waiting = connect();
        done(&run, &["start", "web"]);
        let now = ask(waiting, "pid");
        assert!(now != web && !now.is_empty(), "{now}");
        done(&run, &["restart", "web"]);
        assert_ne!(ask(connect(), "pid"), now);
        run.stop();
    }
}

#[test]
fn a_socket_of_the_store_comes_back_when_its_app_is_started_again() {
    let address = free_address();
    let config = apps("", "").replace("unix:web.sock", &address.to_string());
    let first = Run::start(&config);
    assert_eq!(first.stored().len(), 2, "{:?}", first.stored());
    first.signal(Signal::SIGKILL);
    first.all_ended();
    let mut first = first;
    let mut second = first.next_master(&config, |_| {});
    second.message("READY=1");
    let web = ask(TcpStream::connect(address).expect("it listens"), "pid");
    let api = pid(&second, "api");
    done(&second, &["stop", "web"]);
    second.message("READY=1");
    assert_eq!(second.stored().len(), 1, "{:?}", second.stored());
    assert!(TcpStream::connect(address).is_err(), "nobody has it open");
    done(&second, &["start", "web"]);
    second.message("READY=1");
    assert_eq!(second.stored().len(), 2, "{:?}", second.stored());
    let now = ask(TcpStream::connect(address).expect("it listens"), "pid");
    assert_ne!(now, web);
    assert_eq!(pid(&second, "api"), api);
    // This one reads nothing meanwhile, so it would still have a socket that is closed.
    done(&second, &["restart", "web"]);
    let again = ask(TcpStream::connect(address).expect("it listens"), "pid");
    assert_ne!(again, now);
    second.stop();
}

#[test]
fn a_task_whose_app_was_stopped_is_stopped_with_it() {
    let task = "[app.migrate]\ncommand = 'true'\nrestart = 'never'\nrun_before = ['web']\n";
    let mut run = Run::start(&(apps("", "") + task));
    done(&run, &["stop", "web"]);
    done(&run, &["reload"]);
    let shown = done(&run, &["status"]);
    for part in ["web: stopped by command", "migrate: stopped with its apps"] {
        assert!(shown.contains(part), "{shown}");
    }
    done(&run, &["start", "web"]);
    assert!(!done(&run, &["status"]).contains("stopped"));
    run.stop();
}
