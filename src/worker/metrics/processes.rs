//! What the kernel tells everybody about a process: proc_pid_stat(5), proc_pid_statm(5).

use std::fs::read_to_string;

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Processor time, in microseconds.
    pub cpu: u64,
    /// Resident memory that is no file, in bytes. Pages that are shared since a fork count.
    pub memory: u64,
}

/// Of this process; none if there is none.
pub fn of(pid: u32) -> Option<Used> {
    let statm = read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(Used {
        cpu: cpu(pid)?,
        // That of a process that has ended is empty.
        memory: memory(&statm).unwrap_or_default() * rustix::param::page_size() as u64,
    })
}

/// The processor time of a process, also of one that was not reaped, in microseconds.
pub fn cpu(pid: u32) -> Option<u64> {
    let ticks = ticks(&read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1))
}

/// The letter of its state; none if there is no such process.
pub fn state(pid: u32) -> Option<char> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    after_name(&stat).next()?.chars().next()
}

/// The fields from the third one. The second one may contain anything and ends at the last ')'.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    let rest = stat.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace()
}

/// Fields 14 and 15.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = after_name(stat);
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system))
}

/// In pages.
fn memory(statm: &str) -> Option<u64> {
    let mut pages = statm.split_whitespace().skip(1);
    let mut page = || pages.next()?.parse::<u64>().ok();
    let (resident, shared) = (page()?, page()?);
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let line = "7 (a) (b\n) S 1 2 3 0 -1 4228364 5 6 7 8 90 10 11 12 13\n";
        assert_eq!(ticks(line), Some(100));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn files_are_no_memory_of_a_process() {
        assert_eq!(memory("900 300 100 1 0 200 0\n"), Some(200));
        assert_eq!(memory(""), None);
    }

    #[test]
    fn a_process_that_was_not_reaped_still_tells_its_time() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            .spawn()
            .expect("there is sh");
        let stat = format!("/proc/{}/stat", child.id());
        let has_ended = || read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "));
        while !has_ended() {
            std::thread::yield_now();
        }
        let used = of(child.id()).expect("it was not reaped");
        assert!(used.cpu > 0 && used.memory == 0, "{used:?}");
        child.wait().expect("it is ours");
        assert_eq!(of(child.id()), None);
    }
}
