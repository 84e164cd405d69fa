//! A command: a list of words, or one string that is split into words as a shell would.

use std::ops::Deref;

use serde::Deserialize;

use super::value::Typed;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct CommandLine(pub Vec<String>);

impl Deref for CommandLine {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Typed for CommandLine {
    fn description() -> String {
        "command".into()
    }
}

/// Splits a string into words. No shell is involved, so what only a shell can do is refused.
///
/// # Errors
/// What the string needs a shell for, or an open quote; and what to write.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    if let Some(found) = needs_shell(text) {
        return Err(format!(
            "no shell is involved, so {found} has no meaning (quote it if it is an argument; for a shell, write [\"sh\", \"-c\", {text:?}])"
        ));
    }
    let words = shlex::split(text).ok_or_else(|| {
        "a quote is not closed, or a backslash stands at the end (close it, or write a list: [\"PROGRAM\", \"ARGUMENT\", …])".to_owned()
    })?;
    if let Some((name, value)) = words.first().and_then(|word| word.split_once('='))
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    {
        return Err(format!(
            "a variable cannot stand before the program (write env = {{ {name} = {value:?} }})"
        ));
    }
    Ok(words)
}

/// What only a shell understands, outside of quotes: POSIX, section 2.2.
fn needs_shell(text: &str) -> Option<String> {
    let mut quote = None;
    let mut at_start = true;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None | Some('"'), '\\') => {
                characters.next();
            }
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')') => return Some(format!("\"{c}\"")),
            (None, '#') if at_start => return Some("a comment".into()),
            (None, '~') if at_start && text[at + 1..].starts_with('/') => {
                return Some("\"~/\"".into());
            }
            (None | Some('"'), '`') => return Some("\"`\"".into()),
            (None | Some('"'), '$') => {
                let rest = &text[at + 1..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                if !name.is_empty() {
                    return Some(format!("\"${name}\" without braces"));
                }
                if rest.starts_with('(') {
                    return Some("\"$(\"".into());
                }
                // The next one belongs to "$$".
                if rest.starts_with('$') {
                    characters.next();
                }
            }
            _ => {}
        }
        at_start = quote.is_none() && c.is_whitespace();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_split_into_words() {
        for (text, words) in [
            (
                "celery -A mysite worker",
                &["celery", "-A", "mysite", "worker"][..],
            ),
            ("  a\n\tb ", &["a", "b"]),
            ("a 'b c' \"d e\" f\\ g", &["a", "b c", "d e", "f g"]),
            ("a '' --x=\"y z\"", &["a", "", "--x=y z"]),
            (
                "a 'b|c' \"d;e\" f\\&g '$X' '#' h#i",
                &["a", "b|c", "d;e", "f&g", "$X", "#", "h#i"],
            ),
            (
                "uvicorn --fd {fd} m:app",
                &["uvicorn", "--fd", "{fd}", "m:app"],
            ),
            (
                "a ${X} \"${Y:-z}\" $${Z}",
                &["a", "${X}", "${Y:-z}", "$${Z}"],
            ),
            (
                "a --forwarded-allow-ips * ~",
                &["a", "--forwarded-allow-ips", "*", "~"],
            ),
            ("./a=b", &["./a=b"]),
            ("", &[]),
        ] {
            assert_eq!(split(text).expect(text), words, "{text}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_refused() {
        for (text, said) in [
            ("a | b", "\"|\" has no meaning"),
            ("a > b", "\">\" has no meaning"),
            (
                "a && b",
                "(quote it if it is an argument; for a shell, write [\"sh\", \"-c\", \"a && b\"])",
            ),
            ("a; b", "\";\""),
            ("a $(b)", "\"$(\""),
            ("a \"`b`\"", "\"`\""),
            ("a $HOME/b", "\"$HOME\" without braces"),
            ("a \"$1\"", "\"$1\" without braces"),
            ("a # b", "a comment"),
            ("~/bin/a", "\"~/\" has no meaning"),
            ("a ~/b", "\"~/\" has no meaning"),
            ("# b", "a comment"),
            ("a 'b", "a quote is not closed"),
            ("a \\", "a backslash stands at the end"),
            ("DEBUG=1 a b", "write env = { DEBUG = \"1\" }"),
        ] {
            let error = split(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
