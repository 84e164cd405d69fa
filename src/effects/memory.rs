//! How much memory a process has to itself: proc(5).

use nix::unistd::Pid;

/// The bytes that a process costs: its proportional share (PSS), in which memory shared with its template counts
/// for each of those that share it by its part. Resident memory (RSS) would count it whole for each, and grows
/// when a worker merely touches what was there before the fork.
///
/// Where the share cannot be read: what is resident and not shared. `None`: the process is gone, or not ours to
/// look at.
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
    fn else_what_is_resident_and_not_shared_counts() {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .unwrap()
            .unwrap() as u64;
        assert_eq!(unshared("900 300 100 1 0 200 0\n"), Some(200 * page));
        assert_eq!(unshared(""), None);
    }

    #[test]
    fn this_process_has_some() {
        assert!(share(nix::unistd::getpid()).is_some_and(|bytes| bytes > 100_000));
    }
}
