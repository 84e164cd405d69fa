//! References to variables in strings: `${NAME}` and `${NAME:-DEFAULT}`, as in POSIX shells (section 2.6.2) and Docker Compose.
//!
//! Only the braces make a reference: `$NAME`, `$1` and a lone `$` stand for themselves, so that the text of a shell script stays
//! as it is. `$$` is one `$`.

/// How deep defaults may be nested.
const MAX_DEPTH: usize = 8;

/// The value of a variable, or why it must not be used.
pub type Lookup<'a> = dyn Fn(&str) -> Result<Option<String>, String> + 'a;

/// An error in a reference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The reference.
    pub(super) reference: String,
    /// What is wrong, and what to do.
    pub(super) message: String,
}

/// Replaces the references in `text`. What a variable holds is not read for references again.
pub(super) fn expand(text: &str, variable: &Lookup) -> Result<String, Wrong> {
    expand_to(text, variable, 0)
}

fn expand_to(text: &str, variable: &Lookup, depth: usize) -> Result<String, Wrong> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix("${") {
            let wrong = |reference: &str, message: String| Wrong {
                reference: reference.to_owned(),
                message,
            };
            let end = closing(inside).ok_or_else(|| {
                wrong(
                    rest,
                    "\"${\" has no \"}\" (write ${NAME} or ${NAME:-DEFAULT}; \"$$\" stands for a dollar sign)".into(),
                )
            })?;
            let reference = &rest[..end + 3];
            let value = resolve(&inside[..end], variable, depth)
                .map_err(|inner| inner.unwrap_or_else(|message| wrong(reference, message)))?;
            expanded.push_str(&value);
            rest = &inside[end + 1..];
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Where the brace is that closes a reference whose inside begins here.
fn closing(inside: &str) -> Option<usize> {
    let mut open = 0;
    let mut before = b' ';
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' if before == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
        before = byte;
    }
    None
}

/// The value of a reference. The error is one of a reference inside, or a message about this one.
fn resolve(inside: &str, variable: &Lookup, depth: usize) -> Result<String, Result<Wrong, String>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = inside.find(|c| !is_part(c)).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Err(format!(
            "\"${{{inside}}}\" is not a reference to a variable (write ${{NAME}} or ${{NAME:-DEFAULT}}, or $${{{inside}}} for these characters)"
        )));
    }
    let default = match rest {
        "" => None,
        rest => Some(rest.strip_prefix(":-").ok_or_else(|| {
            Err(format!(
                "\"${{{inside}}}\" is not a reference that is known here (write ${{{name}}} or ${{{name}:-DEFAULT}}, or $${{{inside}}} to pass it on to a shell)"
            ))
        })?),
    };
    let value = variable(name).map_err(Err)?;
    match (value, default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(_)) if depth == MAX_DEPTH => Err(Err(format!(
            "defaults are nested more than {MAX_DEPTH} deep (write fewer)"
        ))),
        (_, Some(default)) => expand_to(default, variable, depth + 1).map_err(Ok),
        (None, None) => Err(Err(format!(
            "the variable {name} is not set in the environment of preforkd (set it before preforkd starts, or write a default: ${{{name}:-DEFAULT}}; to pass the text on to a shell, write $${{{name}}})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Result<Option<String>, String> {
        match name {
            "PORT" => Ok(Some("8000".into())),
            "DATA" => Ok(Some("${PORT} $$ \"]\n[master]".into())),
            "EMPTY" => Ok(Some(String::new())),
            "NOTIFY_SOCKET" => Err("NOTIFY_SOCKET is private".into()),
            _ => Ok(None),
        }
    }

    #[test]
    fn references_are_replaced_and_other_dollar_signs_stay() {
        for (text, expanded) in [
            ("", ""),
            ("no reference", "no reference"),
            ("127.0.0.1:${PORT}", "127.0.0.1:8000"),
            ("${PORT}${PORT}!", "80008000!"),
            ("${NONE:-5}", "5"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-5}", "5"),
            ("${PORT:-5}", "8000"),
            ("${NONE:-${PORT}}", "8000"),
            ("${NONE:-a${NONE:-b}c}d}", "abcd}"),
            ("${NONE:-{x}}", "{x}"),
            // What a variable holds is data.
            ("${DATA}", "${PORT} $$ \"]\n[master]"),
            ("${NONE:-${DATA}}", "${PORT} $$ \"]\n[master]"),
            // A script keeps its own.
            ("echo $PORT $1 $? $(pwd) 5$", "echo $PORT $1 $? $(pwd) 5$"),
            ("$$", "$"),
            ("$$$$", "$$"),
            ("$${PORT}", "${PORT}"),
            ("$$${PORT}", "$8000"),
            ("ü${PORT}ü", "ü8000ü"),
        ] {
            assert_eq!(expand(text, &variable).as_deref(), Ok(expanded), "{text}");
        }
        let deep = format!("{}x{}", "${N:-".repeat(9), "}".repeat(9));
        let error = expand(&deep, &variable).expect_err("too deep");
        assert!(error.message.contains("8 deep"), "{error:?}");
        assert_eq!(
            expand(&deep[5..deep.len() - 1], &variable).as_deref(),
            Ok("x")
        );
    }

    #[test]
    fn a_wrong_reference_is_quoted_and_answered() {
        for (text, reference, said) in [
            ("a${NONE}b", "${NONE}", "the variable NONE is not set"),
            ("a${NONE}b", "${NONE}", "${NONE:-DEFAULT}"),
            ("${PORT", "${PORT", "has no \"}\""),
            ("${X:-${PORT}", "${X:-${PORT}", "has no \"}\""),
            ("${}", "${}", "not a reference to a variable"),
            ("${1}", "${1}", "$${1}"),
            ("${ PORT }", "${ PORT }", "not a reference to a variable"),
            (
                "${PORT-5}",
                "${PORT-5}",
                "write ${PORT} or ${PORT:-DEFAULT}",
            ),
            ("${PORT%.*}", "${PORT%.*}", "$${PORT%.*}"),
            ("${A:-${B}}", "${B}", "the variable B is not set"),
            ("${NOTIFY_SOCKET}", "${NOTIFY_SOCKET}", "is private"),
        ] {
            let error = expand(text, &variable).expect_err(text);
            assert_eq!(error.reference, reference);
            assert!(error.message.contains(said), "{text}: {}", error.message);
        }
    }
}
