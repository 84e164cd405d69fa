//! What a master has left that was killed together with its guard. The kernel has told its workers to end, and each goes on until its
//! requests are answered; nobody ends one that does not. The next master waits for those that have its addresses, for a time.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::table::Identity;
use crate::effects::process::{self, Stat};

/// Those of them that have addresses of this master.
#[derive(Debug, Default)]
pub struct Orphans {
    known: Vec<(Identity, String)>,
    until: Option<Instant>,
}

impl Orphans {
    /// Finds them among the processes that have these addresses. They are waited for at most for so long.
    pub fn among(holders: impl Iterator<Item = Pid>, patience: Duration) -> Self {
        let mut known: Vec<(Identity, String)> = Vec::new();
        for pid in holders.filter(|pid| process::is_orphan(*pid)) {
            let Some(stat) = Stat::of(pid) else { continue };
            let identity = Identity::of(pid, &stat);
            let name = String::from_utf8_lossy(&stat.name);
            let name = name.chars().filter(|c| !c.is_control()).collect();
            if !known.iter().any(|(other, _)| *other == identity) {
                known.push((identity, name));
            }
        }
        Self {
            known,
            until: Instant::now().checked_add(patience),
        }
    }

    /// The first that runs of these processes, or of all, if it is still waited for: its number, and its name.
    pub fn left(&self, holders: Option<&[Pid]>) -> Option<(Pid, &str)> {
        if self.until.is_none_or(|until| until <= Instant::now()) {
            return None;
        }
        let known = self.known.iter();
        let mut meant = known.filter(|(one, _)| holders.is_none_or(|all| all.contains(&one.pid)));
        let runs = |one: &Identity| {
            let stat = Stat::of(one.pid);
            stat.is_some_and(|stat| stat.runs && Identity::of(one.pid, &stat) == *one)
        };
        let (one, name) = meant.find(|(one, _)| runs(one))?;
        Some((one.pid, name))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use preforkd_worker::env;

    use super::*;

    fn sleeping(app: Option<&str>) -> (Child, Pid) {
        let mut command = Command::new("sleep");
        let command = command.arg("1000").env_remove(env::APP);
        let command = command.envs(app.map(|app| (env::APP, app)));
        let child = command.spawn().expect("there is sleep");
        let pid = Pid::from_raw(child.id() as i32);
        (child, pid)
    }

    #[test]
    fn only_what_says_that_it_is_of_an_app_is_waited_for_and_not_for_ever() {
        let (mut ours, one) = sleeping(Some("web"));
        let (mut other, stranger) = sleeping(None);
        let long = Duration::from_secs(3600);
        let orphans = |patience| Orphans::among([stranger, one, one].into_iter(), patience);
        let found = orphans(long);
        assert_eq!(found.left(None), Some((one, "sleep")));
        assert_eq!(found.left(Some(&[stranger, one])), Some((one, "sleep")));
        assert_eq!(found.left(Some(&[stranger])), None);
        assert_eq!(orphans(Duration::ZERO).left(None), None, "it is over");
        assert_eq!(Orphans::default().left(None), None);
        for child in [&mut ours, &mut other] {
            child.kill().expect("ours");
            child.wait().expect("ours");
        }
        assert_eq!(found.left(None), None, "it has ended");
    }
}
