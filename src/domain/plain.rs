//! Characters that are not seen, and how a text from elsewhere is shown in spite of them.
//!
//! A control character steers a terminal, a line break makes a second line of a log, and a format character such as
//! U+202E turns the direction of writing round, so that `gpj.exe` is read as `exe.jpg`. Names with one of them are
//! refused where names are taken; elsewhere the character is shown by its number.

/// Whether `c` is a format character: it has no shape of its own and changes how others are read.
///
/// Source: general category `Cf` of Unicode 17, with the line and paragraph separators (`Zl`, `Zp`).
pub fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}'
        | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}'
        | '\u{e0020}'..='\u{e007f}')
}

/// Whether `c` is a control or a format character.
pub fn is_hidden(c: char) -> bool {
    c.is_control() || is_format(c)
}

/// A text in one line: a control character becomes a blank, a format character its number, as in `\u{202e}`.
pub fn one_line(text: &str) -> String {
    shown(text, |c| if c.is_control() { ' ' } else { c })
}

/// A text of several lines, in which nothing but line breaks and tabs is obeyed.
pub fn lines(text: &str) -> String {
    let is_kept = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    shown(text, |c| if is_kept(c) { c } else { char::REPLACEMENT_CHARACTER })
}

fn shown(text: &str, control: impl Fn(char) -> char) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_format(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(control(c));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_shown() {
        assert_eq!(one_line("gpj.\u{202e}exe\n\u{1b}[2J"), "gpj.\\u{202e}exe  [2J");
        assert_eq!(lines("a\tb\nc\u{7}\u{feff}"), "a\tb\nc\u{fffd}\\u{feff}");
        assert_eq!(one_line("Zoë Šťastná 山田"), "Zoë Šťastná 山田");
        assert!(['\u{200b}', '\u{2066}', '\0', '\u{9b}'].into_iter().all(is_hidden));
        assert!(![' ', 'ä', '\u{301}', '語', '🙂'].into_iter().any(is_hidden));
    }
}
