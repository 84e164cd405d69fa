//! What is in a file with a key, a certificate and its chain: `preforkd-front look`, with the file as its input, and a [`Seen`] or an error as JSON
//! as its output.

use std::io::{self, Read as _, Write as _};

use preforkd_worker::acme::Seen;

use crate::tls::certificate::{Named, Pair};

/// The first argument, which asks for this.
pub const COMMAND: &str = "look";

/// Looks at the input.
///
/// # Errors
/// The input cannot be read, or the answer cannot be written; the whole message.
pub fn run() -> Result<(), String> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = io::stdin().read_to_string(&mut text);
    read.map_err(|error| format!("could not read the input: {error}"))?;
    let answer = serde_json::to_string(&look(&text)).map_err(io::Error::from);
    let written = answer.and_then(|answer| io::stdout().write_all(answer.as_bytes()));
    written.map_err(|error| format!("could not write the answer: {error}"))
}

/// What is in it.
///
/// # Errors
/// Why it cannot be used.
pub fn look(text: &str) -> Result<Seen, String> {
    let file = Named {
        name: "it",
        bytes: text.as_bytes(),
    };
    let pair = Pair::load(file, file)?;
    let (not_before, not_after) = pair.life();
    Ok(Seen {
        not_before,
        not_after,
        names: pair.names().all().collect(),
        is_self_signed: pair.is_self_signed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::made::self_signed;

    #[test]
    fn a_key_and_its_certificate_are_looked_at_together() {
        let hosts = ["a.example".to_owned(), "b.example".to_owned()];
        let (one, other) = (self_signed(&hosts).unwrap(), self_signed(&hosts).unwrap());
        let seen = look(&one).unwrap();
        assert_eq!(seen.names, hosts);
        assert!(seen.is_self_signed && seen.not_before < seen.not_after);
        let at = one.find("-----BEGIN CERTIFICATE").unwrap();
        let foreign = other.find("-----BEGIN CERTIFICATE").unwrap();
        let mixed = format!("{}{}", &one[..at], &other[foreign..]);
        assert!(look(&mixed).unwrap_err().contains("does not belong"));
        assert!(look(&one[..at]).unwrap_err().contains("no certificate"));
    }
}
