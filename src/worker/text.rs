//! Cleans texts from workers and templates. Their author may want to forge log lines or control the operator's terminal, so
//! they are cleaned before they reach the log, the status or the init system.

/// The maximum length of a text in the log and the status, in characters.
pub const MAX_LENGTH: usize = 200;

/// `text` truncated to `most` characters, without characters that change how a line is displayed: control characters (C0,
/// C1 and DEL), line and paragraph separators, and the formatting characters of bidirectional text, which reorder what
/// follows them (Unicode Standard Annex 9, section 2; CVE-2021-42574).
pub fn clean(text: &str, most: usize) -> String {
    text.chars().filter(|&c| is_shown(c)).take(most).collect()
}

fn is_shown(c: char) -> bool {
    let is_separator = matches!(c, '\u{2028}' | '\u{2029}');
    let is_bidirectional = matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !(c.is_control() || is_separator || is_bidirectional)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_a_terminal_or_reorder_a_line_are_removed() {
        let controls = (0..=0x9f).filter_map(char::from_u32);
        let cleaned = clean(&controls.collect::<String>(), 1000);
        let printable: String = (' '..='~').collect();
        assert_eq!(cleaned, printable);
        for c in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2028}\u{2029}\u{2066}\u{2067}\u{2068}\u{2069}\u{85}".chars()
        {
            assert_eq!(clean(&format!("a{c}b"), 10), "ab", "{c:?}");
        }
    }

    #[test]
    fn text_in_any_script_is_kept_and_counted_in_characters() {
        assert_eq!(clean("größer שלום 東京", 100), "größer שלום 東京");
        assert_eq!(clean("größer", 4), "größ");
        assert_eq!(clean("\r\n\u{1b}ab", 1), "a");
        assert_eq!(clean("abc", 0), "");
    }
}
