//! The process title that ps(1) shows. The kernel reads it from the memory of the arguments and the environment after them:
//! proc_pid_cmdline(5).

use std::fs::{File, read_to_string};
use std::io;
use std::os::unix::fs::FileExt;

/// The memory to overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The arguments.
    Arguments,
    /// The environment too, which must have been moved away.
    Environment,
}

/// Sets the title that `ps` shows for this process, truncated to the available memory.
///
/// # Errors
/// The process cannot write its own memory. The title is not essential.
pub fn set(title: &str, room: Room) -> io::Result<()> {
    let stat = read_to_string("/proc/self/stat")?;
    let (start, arguments, environment) = places(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let length = match room {
        Room::Arguments => arguments,
        Room::Environment => environment,
    };
    let area = area(title, arguments, length).ok_or(io::ErrorKind::InvalidData)?;
    // Through the file, so that a wrong address is an error and not a crash.
    File::options()
        .write(true)
        .open("/proc/self/mem")?
        .write_all_at(&area, start)
}

/// The address of the arguments, their length, and the length including the environment: proc_pid_stat(5), fields 48, 49
/// and 51. The second field may contain spaces and ends at the last ')'.
fn places(stat: &str) -> Option<(u64, usize, usize)> {
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let (start, end, last) = (field(48)?, field(49)?, field(51)?);
    let length = |to: u64| usize::try_from(to.checked_sub(start)?).ok();
    Some((start, length(end)?, length(last)?))
}

/// The bytes to write over the arguments and the environment, `length` in all.
fn area(title: &str, arguments: usize, length: usize) -> Option<Vec<u8>> {
    let mut area = vec![0; length];
    let mark = arguments.checked_sub(1)?;
    // If the last byte of the arguments is not 0, the kernel shows one string, up to the first 0.
    *area.get_mut(mark)? = b'.';
    let room = if length > arguments {
        length - 1
    } else {
        mark.checked_sub(1)?
    };
    let shown = title.len().min(room);
    area[..shown].copy_from_slice(&title.as_bytes()[..shown]);
    if shown > mark {
        return Some(area);
    }
    area[shown..mark].fill(0);
    if shown == mark {
        // There would be no 0 between the title and that byte.
        area[mark] = if length > arguments { b' ' } else { 0 };
    }
    Some(area)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_found_after_any_name() {
        let rest: Vec<String> = (3..=52).map(|number| (number * 100).to_string()).collect();
        let stat = format!("7 (a) b (c) {}", rest.join(" "));
        assert_eq!(places(&stat), Some((4800, 100, 300)));
        assert_eq!(places("7 (x) S 1"), None);
    }

    #[test]
    fn a_short_title_ends_with_a_zero() {
        assert_eq!(area("abc", 6, 6).as_deref(), Some(&b"abc\0\0."[..]));
        assert_eq!(area("abcdefgh", 6, 6).as_deref(), Some(&b"abcd\0."[..]));
    }

    #[test]
    fn a_long_title_continues_over_the_environment() {
        assert_eq!(
            area("abcdefgh", 6, 10).as_deref(),
            Some(&b"abcdefgh\0\0"[..])
        );
        assert_eq!(area("abcdefghij", 6, 8).as_deref(), Some(&b"abcdefg\0"[..]));
        assert_eq!(
            area("abcde", 6, 10).as_deref(),
            Some(&b"abcde \0\0\0\0"[..])
        );
        assert_eq!(
            area("abc", 6, 10).as_deref(),
            Some(&b"abc\0\0.\0\0\0\0"[..])
        );
        assert_eq!(area("abc", 0, 0), None);
    }
}
