//! Passwords and their hashes.

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;

/// Whether the hash is that of the password. It takes a tenth of a second, or what the hash says.
pub(super) fn is_right(hash: &str, password: &[u8]) -> bool {
    match hash.starts_with("$argon2") {
        true => PasswordHash::new(hash)
            .map(|hash| Argon2::default().verify_password(password, &hash).is_ok())
            .unwrap_or_default(),
        false => bcrypt::verify(password, hash).unwrap_or_default(),
    }
}

/// About how many microseconds the comparison with a hash takes.
pub(super) fn cost(hash: &str) -> u64 {
    let mut parts = hash.split('$').skip(1);
    if !hash.starts_with("$argon2") {
        let rounds = parts.nth(1).and_then(|cost| cost.parse::<u32>().ok());
        return rounds.map_or(0, |cost| 50 << cost.min(31));
    }
    let mut numbers = parts.nth(2).unwrap_or_default().split(',');
    let mut number = || {
        let (_, value) = numbers.next()?.split_once('=')?;
        value.parse::<u64>().ok()
    };
    // Kibibytes, and how often each is filled.
    let (memory, passes) = (number().unwrap_or(0), number().unwrap_or(0));
    memory.saturating_mul(passes) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by crypt(3), and one of the tests of the library of Argon2's authors.
    const HASHES: [(&str, &str); 4] = [
        (
            "secret",
            "$2y$05$K0CIV0rx3gWfJoyPEb314uwOg/FKIeC/lHBrfaHiKRAA59MsFQN82",
        ),
        (
            "secret",
            "$2a$05$K0CIV0rx3gWfJoyPEb314uwOg/FKIeC/lHBrfaHiKRAA59MsFQN82",
        ),
        (
            "secret",
            "$2b$05$K0CIV0rx3gWfJoyPEb314uwOg/FKIeC/lHBrfaHiKRAA59MsFQN82",
        ),
        (
            "password",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        ),
    ];

    #[test]
    fn hashes_of_other_programs_are_understood() {
        for (password, hash) in HASHES {
            assert!(is_right(hash, password.as_bytes()), "{hash}");
            assert!(!is_right(hash, b"other"), "{hash}");
        }
        assert!(!is_right("", b"") && !is_right("$argon2id$", b"") && !is_right("$2y$05$", b""));
    }

    #[test]
    fn a_dearer_hash_costs_more() {
        let argon2 = |m: u32, t: u32| cost(&format!("$argon2id$v=19$m={m},t={t},p=1$x$y"));
        let bcrypt = |rounds: u32| cost(&format!("$2y${rounds:02}$x"));
        assert!(bcrypt(5) < bcrypt(10) && bcrypt(10) < bcrypt(12));
        assert!(argon2(4096, 3) < argon2(19456, 2) && argon2(19456, 2) < argon2(65536, 3));
        assert!(bcrypt(4) < argon2(65536, 3) && argon2(19456, 2) < bcrypt(12));
    }
}
