//! Files with users and the hashes of their passwords, as htpasswd(1) writes them. No message quotes what such a file holds: it may be
//! another one than was meant.

use std::collections::BTreeSet;

use preforkd_worker::layers::User;

/// The highest cost of bcrypt. It doubles the time with each step, and a password takes more than a second at this one.
const MAX_BCRYPT: u32 = 15;
/// The most memory of Argon2, in KiB, and how often it goes over it; a password takes a few seconds with both.
const MAX_MEMORY: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// The users of a file.
///
/// # Errors
/// A line is no user with a hash that can be used, or there is none; the number of the line, and what to do.
pub(super) fn users(text: &str) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut names = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {}: {why}", number + 1);
        let Some((name, rest)) = line.split_once(':') else {
            return Err(wrong(
                "it is no user with the hash of a password (make the file with htpasswd -B)",
            ));
        };
        // A comment may follow.
        let hash = rest.split(':').next().unwrap_or_default().trim_end();
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(wrong(
                "the name of the user is empty or has control characters",
            ));
        }
        if !names.insert(name) {
            return Err(wrong("the user is there twice (remove one of the lines)"));
        }
        check(hash).map_err(|why| wrong(&why))?;
        users.push(User {
            name: name.to_owned(),
            hash: hash.to_owned(),
        });
    }
    match users.is_empty() {
        true => Err("there is no user in it (add one with htpasswd -B)".into()),
        false => Ok(users),
    }
}

/// Whether a hash can be used.
fn check(hash: &str) -> Result<(), String> {
    let mut parts = hash.split('$').skip(1);
    let kind = parts.next().unwrap_or_default();
    match (hash.starts_with('$'), kind) {
        (true, "2a" | "2b" | "2x" | "2y") => bcrypt(kind, parts),
        (true, "argon2id" | "argon2i" | "argon2d") => argon2(parts),
        _ => Err(format!(
            "the hash of the password is {}, which {} (make it anew with htpasswd -B)",
            named(hash, kind),
            match hash.starts_with("{SHA}") || kind.contains("apr1") || kind == "1" {
                true => "is guessed within seconds",
                false => "is not known here",
            }
        )),
    }
}

/// What a hash is that is not taken.
fn named(hash: &str, kind: &str) -> &'static str {
    match kind {
        _ if hash.starts_with("{SHA}") => "one of SHA-1",
        "apr1" | "1" => "one of MD5",
        "5" | "6" => "one of crypt(3) with SHA-2",
        "y" | "7" => "one of yescrypt or scrypt",
        _ if hash.len() == 13 => "one of crypt(3) with DES, or the password itself",
        _ => "no hash that begins with $2y$ or $argon2id$",
    }
}

/// `COST$SALT-AND-HASH`, after its kind.
fn bcrypt<'a>(kind: &str, mut parts: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let (cost, rest) = (parts.next(), parts.next().unwrap_or_default());
    let cost = cost.filter(|cost| cost.len() == 2);
    let cost = cost.and_then(|cost| cost.parse::<u32>().ok());
    let is_known = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'/';
    let is_whole = rest.len() == 53 && rest.bytes().all(is_known) && parts.next().is_none();
    match cost {
        _ if kind == "2x" => Err(
            "the hash of the password is of a bcrypt with a fault, $2x$ (make it anew with htpasswd -B)"
                .into(),
        ),
        Some(cost) if is_whole && (4..=MAX_BCRYPT).contains(&cost) => Ok(()),
        Some(cost) if is_whole => Err(format!(
            "the cost of the hash is {cost}, not from 4 to {MAX_BCRYPT} (make it anew with htpasswd -B -C 10)"
        )),
        _ => Err("the hash of the password is cut or damaged (make it anew with htpasswd -B)".into()),
    }
}

/// `v=19$m=MEMORY,t=PASSES,p=LANES$SALT$HASH`, after its kind.
fn argon2<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut read = || {
        let version = parts.next()?;
        let mut numbers = parts.next()?.split(',');
        let mut number = |name: &str| {
            let value = numbers.next()?.strip_prefix(name)?;
            value.parse::<u32>().ok()
        };
        let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
        if numbers.next().is_some() || !matches!(version, "v=16" | "v=19") {
            return None;
        }
        let is_known = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
        let (salt, hash) = (parts.next()?, parts.next()?);
        let is_text = |text: &str, least: usize, most: usize| {
            (least..=most).contains(&text.len()) && text.bytes().all(is_known)
        };
        let is_whole = is_text(salt, 11, 64) && is_text(hash, 14, 86) && parts.next().is_none();
        is_whole.then_some((memory, passes, lanes))
    };
    let Some((memory, passes, lanes)) = read() else {
        return Err(
            "the hash of the password is cut or damaged (make it anew with argon2 -e or htpasswd -B)"
                .into(),
        );
    };
    let is_some_memory = memory >= lanes.saturating_mul(8).max(8);
    match (1..=MAX_LANES).contains(&lanes)
        && (1..=MAX_PASSES).contains(&passes)
        && is_some_memory
        && memory <= MAX_MEMORY
    {
        true => Ok(()),
        false => Err(format!(
            "the costs of the hash are m={memory},t={passes},p={lanes}, not up to m={MAX_MEMORY},t={MAX_PASSES},p={MAX_LANES}, with 8 of m for each of p at least (make it anew)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX";
    const ARGON2: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l$YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIz";

    #[test]
    fn users_are_those_of_the_lines() {
        let text = format!("# people\n\nann:{BCRYPT}\r\nbob smith:{ARGON2}:since 2026\n");
        let users = users(&text).expect("both are valid");
        let shown: Vec<_> = users
            .iter()
            .map(|user| (&user.name[..], &user.hash[..]))
            .collect();
        assert_eq!(shown, [("ann", BCRYPT), ("bob smith", ARGON2)]);
        assert!(!format!("{users:?}").contains("$2y$"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_line_and_not_quoted() {
        let with = |from: &str, to: &str, hash: &str| format!("a:{}", hash.replace(from, to));
        for (line, expected) in [
            ("hunter2".to_owned(), "it is no user"),
            (":hunter2".to_owned(), "the name of the user is empty"),
            (
                "a:{SHA}hunter2".to_owned(),
                "one of SHA-1, which is guessed",
            ),
            (
                "a:$apr1$hunter2$x".to_owned(),
                "one of MD5, which is guessed",
            ),
            ("a:$1$hunter2$x".to_owned(), "one of MD5, which is guessed"),
            ("a:$6$hunter2$x".to_owned(), "one of crypt(3) with SHA-2"),
            ("a:hunter2".to_owned(), "no hash that begins with"),
            ("a:hunter2hunter".to_owned(), "or the password itself"),
            ("a:".to_owned(), "no hash that begins with"),
            (
                "root:*:19000:0:99999:7:::".to_owned(),
                "no hash that begins with",
            ),
            (with("$2y$", "$2x$", BCRYPT), "of a bcrypt with a fault"),
            (with("$05$", "$31$", BCRYPT), "the cost of the hash is 31"),
            (with("$05$", "$03$", BCRYPT), "the cost of the hash is 3"),
            (with("$05$", "$5$", BCRYPT), "is cut or damaged"),
            (with("abc", "", BCRYPT), "is cut or damaged"),
            (with("abc", "a!c", BCRYPT), "is cut or damaged"),
            (with("v=19$", "", ARGON2), "is cut or damaged"),
            (
                with("m=19456", "m=9999999", ARGON2),
                "the costs of the hash are",
            ),
            (with("t=2", "t=0", ARGON2), "the costs of the hash are"),
            (with("m=19456", "m=7", ARGON2), "the costs of the hash are"),
            (with("p=1", "p=1,x=2", ARGON2), "is cut or damaged"),
        ] {
            let error = users(&format!("ok:{BCRYPT}\n{line}\n")).expect_err(&line);
            assert!(error.starts_with("line 2: "), "{error}");
            assert!(error.contains(expected), "{line}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = users(&format!("a:{BCRYPT}\na:{BCRYPT}")).expect_err("twice");
        assert!(
            error.starts_with("line 2: the user is there twice"),
            "{error}"
        );
        let error = users("# none\n").expect_err("none");
        assert!(error.starts_with("there is no user in it"), "{error}");
    }
}
