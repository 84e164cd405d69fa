//! A file of variables, `NAME=VALUE` a line, as Docker Compose (its "env_file format") and systemd.exec(5) (`EnvironmentFile=`) read
//! it. Where the two differ, this is the reading of Compose, except that no variables are replaced; what one of them would read
//! as something else entirely is an error.

/// A line that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong, and what to do. It never quotes a value, which may be a secret.
    pub message: String,
}

/// The variables in a text, in its order. Of two with one name, the later counts.
///
/// # Errors
/// The first line that is wrong.
pub fn variables(text: &str) -> Result<Vec<(String, String)>, WrongLine> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = text;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let wrong = |message: String| WrongLine { line, message };
        let (first, after) = split_line(rest);
        let start = first.trim_start();
        if start.is_empty() || start.starts_with(['#', ';']) {
            rest = after;
            continue;
        }
        let (name, _) = start.split_once('=').ok_or_else(|| {
            wrong(
                "there is no \"=\" (write NAME=VALUE; the variables of preforkd are passed on in any case)"
                    .into(),
            )
        })?;
        let value_at = first.len() - start.len() + name.len() + 1;
        let name = name.trim_end();
        let name = match name.split_once(char::is_whitespace) {
            Some(("export", name)) => name.trim_start(),
            _ => name,
        };
        if !is_name(name) {
            return Err(wrong(
                "what stands before \"=\" is not a name (use letters, digits and \"_\", and do not begin with a digit)"
                    .into(),
            ));
        }
        let (value, after) =
            value(&rest[value_at..]).map_err(|why| wrong(format!("{name}: {why}")))?;
        if value.contains('\0') {
            return Err(wrong(format!(
                "{name}: the value has a NUL character (remove it)"
            )));
        }
        found.push((name.to_owned(), value));
        rest = after;
    }
    Ok(found)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// The first line without its end, and what follows it.
fn split_line(text: &str) -> (&str, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    (line.trim_end_matches('\r'), after)
}

/// The value that begins here, and the text from the next line on.
fn value(text: &str) -> Result<(String, &str), &'static str> {
    let start = text.trim_start_matches([' ', '\t']);
    let Some(quote) = start.chars().next().filter(|c| ['"', '\''].contains(c)) else {
        let (line, after) = split_line(text);
        if line.ends_with('\\') {
            return Err(
                "a value without quotes ends in a backslash (put it in single quotes, or in double quotes to continue it on the next line)",
            );
        }
        return Ok((without_comment(line).trim().to_owned(), after));
    };
    let (value, rest) = quoted(&start[1..], quote)
        .ok_or("the quote is not closed (close it, or put a value that begins with a quote in quotes of the other kind)")?;
    let (line, after) = split_line(rest);
    if !line.trim_start().is_empty() && !line.trim_start().starts_with('#') {
        return Err("text follows the closing quote (put all of it in the quotes)");
    }
    Ok((value, after))
}

/// A line up to a comment: a `#` after a space.
fn without_comment(line: &str) -> &str {
    let comment = line
        .match_indices('#')
        .find(|(at, _)| line[..*at].ends_with(char::is_whitespace));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// A text up to its closing quote, and what follows that. A quoted value may have several lines.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            c if c == quote => return Some((value, &text[at + 1..])),
            '\\' if quote == '"' => match characters.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                // The line goes on.
                '\n' => {}
                c @ ('"' | '\\' | '$' | '`') => value.push(c),
                other => value.extend(['\\', other]),
            },
            '\r' if text[at..].starts_with("\r\n") => {}
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_with_comments_export_and_quotes() {
        for (text, expected) in [
            ("", &[][..]),
            ("\n\n# a\n ; b\n\t#c", &[]),
            ("A=1", &[("A", "1")]),
            ("\u{feff}A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]),
            (
                "A=\nB= \nC=''\nD=\"\"",
                &[("A", ""), ("B", ""), ("C", ""), ("D", "")],
            ),
            (
                " A = 1 2 \n\texport B=2\nexport\tC=3",
                &[("A", "1 2"), ("B", "2"), ("C", "3")],
            ),
            ("export=1\nexportA=2", &[("export", "1"), ("exportA", "2")]),
            ("A=1\nA=2", &[("A", "1"), ("A", "2")]),
            ("URL=a?b=c&d=#x", &[("URL", "a?b=c&d=#x")]),
            (
                "A=b # c\nB= #c\nC=b#c\nD='b # c' # d\nE=\"b\"#",
                &[
                    ("A", "b"),
                    ("B", ""),
                    ("C", "b#c"),
                    ("D", "b # c"),
                    ("E", "b"),
                ],
            ),
            ("A=#c0ffee\nB=x\t# c", &[("A", "#c0ffee"), ("B", "x")]),
            (
                "A=$B ${B} $$\nB='$C'\nC=\"$D\"",
                &[("A", "$B ${B} $$"), ("B", "$C"), ("C", "$D")],
            ),
            (
                "A='a\\n\"b'\nB=\"a\\n'b\\\"\\\\\\$\\x\\t\"",
                &[("A", "a\\n\"b"), ("B", "a\n'b\"\\$\\x\t")],
            ),
            (
                "A='one\r\ntwo'\nB=\"one\ntwo\\\nthree\"\nC=3",
                &[("A", "one\ntwo"), ("B", "one\ntwothree"), ("C", "3")],
            ),
            (
                "A=C:\\x\\y\nB=it's\nC=say \"x\"",
                &[("A", "C:\\x\\y"), ("B", "it's"), ("C", "say \"x\"")],
            ),
            ("A.b-c=ü", &[("A.b-c", "ü")]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(variables(text).as_ref(), Ok(&expected), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_line_has_a_number_and_its_value_is_not_quoted() {
        for (text, line, said) in [
            ("A=1\nhunter2", 2, "there is no \"=\""),
            ("\n\n=hunter2", 3, "not a name"),
            ("1A=hunter2", 1, "not a name"),
            ("A B=hunter2", 1, "not a name"),
            ("set A=hunter2", 1, "not a name"),
            (
                "A='one\ntwo'\nB='hunter2\nC=1",
                3,
                "B: the quote is not closed",
            ),
            ("A=\"hunter2\\", 1, "A: the quote is not closed"),
            ("A='hun'ter2", 1, "A: text follows the closing quote"),
            (
                "A=hunter2\\\nB=1",
                1,
                "A: a value without quotes ends in a backslash",
            ),
            ("A=hunter2\0", 1, "A: the value has a NUL character"),
        ] {
            let wrong = variables(text).expect_err(text);
            assert_eq!(wrong.line, line, "{text:?}");
            assert!(wrong.message.contains(said), "{text:?}: {}", wrong.message);
            assert!(!wrong.message.contains("hunter2"), "{}", wrong.message);
        }
    }
}
