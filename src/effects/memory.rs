//! The memory of a process (proc(5)), and kills by the kernel when memory ran out.

use std::path::{Path, PathBuf};

use nix::unistd::Pid;

/// The memory of a process in bytes: its proportional share (PSS), which divides pages shared with its template among the
/// processes that share them. Resident memory (RSS) counts them in full for each process, and grows when a worker only
/// touches pages that existed before the fork.
///
/// If the share is not readable: resident and unshared memory. `None`: the process is gone, or not readable by us.
pub fn share(pid: Pid) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    if let Some(share) = rollup.ok().and_then(|text| pss(&text)) {
        return Some(share);
    }
    unshared(&std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn unshared(statm: &str) -> Option<u64> {
    let mut pages = statm
        .split_whitespace()
        .map(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.nth(1)??, pages.next()??);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(resident.saturating_sub(shared) * page as u64)
}

/// Counts the out-of-memory kills in the master's control group, which contains its workers: cgroup-v2, "memory.events"; in
/// the older hierarchy "memory.oom_control".
pub struct OomKills {
    file: Option<PathBuf>,
    seen: u64,
}

impl OomKills {
    /// Counts from now on.
    pub fn from_now() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = counters(&groups)
            .into_iter()
            .find(|file| count(file).is_some());
        let seen = file.as_deref().and_then(count).unwrap_or(0);
        Self { file, seen }
    }

    /// Whether there was a kill that was not reported yet. Always false if the kernel does not count them.
    pub fn happened(&mut self) -> bool {
        let number = self.file.as_deref().and_then(count).unwrap_or(0);
        let happened = number > self.seen;
        // One at a time, because deaths are reported one at a time.
        self.seen += u64::from(happened);
        happened
    }
}

/// The files in which the kernel may count, given /proc/self/cgroup: cgroups(7).
fn counters(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            files.push(Path::new("/sys/fs/cgroup").join(path).join("memory.events"));
        } else if controllers.split(',').any(|name| name == "memory") {
            let folder = Path::new("/sys/fs/cgroup/memory").join(path);
            files.push(folder.join("memory.oom_control"));
        }
    }
    files
}

fn count(file: &Path) -> Option<u64> {
    oom_kills(&std::fs::read_to_string(file).ok()?)
}

fn oom_kills(counters: &str) -> Option<u64> {
    let mut lines = counters.lines();
    lines
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_from_the_rollup() {
        let text = "55-7f [rollup]\nRss:     5000 kB\nPss:     1234 kB\nPss_Anon:  1 kB\n";
        assert_eq!(pss(text), Some(1234 * 1024));
        assert_eq!(pss("Rss: 1 kB\n"), None);
    }

    #[test]
    fn without_it_resident_and_unshared_memory_counts() {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .unwrap()
            .unwrap() as u64;
        assert_eq!(unshared("900 300 100 1 0 200 0\n"), Some(200 * page));
        assert_eq!(unshared(""), None);
    }

    #[test]
    fn the_kernel_counts_in_the_group_of_the_process() {
        let both = "4:memory,cpu:/a/b\n1:name=systemd:/x\n0::/system.slice/web.service\n";
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.oom_control",
            "/sys/fs/cgroup/system.slice/web.service/memory.events",
        ];
        assert_eq!(counters(both), expected.map(PathBuf::from));
        assert_eq!(
            counters("0::/\n"),
            [PathBuf::from("/sys/fs/cgroup/memory.events")]
        );
        assert!(counters("nonsense").is_empty());
        let events = "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(oom_kills(events), Some(2));
        assert_eq!(
            oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            Some(7)
        );
        assert_eq!(oom_kills("oom 3\n"), None);
    }

    #[test]
    fn each_kill_is_reported_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory.events");
        let write = |number: u64| std::fs::write(&file, format!("oom_kill {number}\n"));
        write(5).expect("room");
        let mut kills = OomKills {
            file: Some(file.clone()),
            seen: 5,
        };
        assert!(!kills.happened());
        write(7).expect("room");
        assert!(kills.happened() && kills.happened() && !kills.happened());
        kills.file = None;
        assert!(!kills.happened());
    }

    #[test]
    fn this_process_has_some() {
        assert!(share(nix::unistd::getpid()).is_some_and(|bytes| bytes > 100_000));
    }
}
