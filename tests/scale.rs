//! TTIN and TTOU.

mod common;

use common::{Run, app, worker};
use nix::sys::signal::Signal;

#[test]
fn ttin_adds_a_worker_and_ttou_takes_the_last_one() {
    let mut run = Run::start(&app("workers = 2"));
    run.signal(Signal::SIGTTIN);
    run.status("web 3/3 ready");
    run.signal(Signal::SIGTTOU);
    assert_eq!(run.told_of("term").slot, "2");
    run.status("web 2/2 ready");
    run.stop();
}

#[test]
fn one_worker_is_kept() {
    let mut run = Run::start(&app(""));
    run.signal(Signal::SIGTTOU);
    run.logged(&["SIGTTOU from pid", "app=web: 1 workers wanted"]);
    run.ask("pid");
    run.stop();
}

#[test]
fn what_listens_nowhere_is_not_scaled_by_signals() {
    let mut run = Run::start(&(app("") + &format!("[app.once]\ncommand = ['{}']\n", worker())));
    run.signal(Signal::SIGTTIN);
    run.status("once 1/1 ready; web 2/2 ready");
    run.stop();
}

#[test]
fn the_number_given_by_signal_survives_a_reload() {
    let mut run = Run::start(&app("workers = 1"));
    run.signal(Signal::SIGTTIN);
    run.status("web 2/2 ready");
    assert!(run.reload().contains("web 2/2 ready"));
    run.write("app.toml", &app("workers = 3"));
    assert!(run.reload().contains("web 3/3 ready"));
    run.stop();
}
