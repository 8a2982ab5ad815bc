//! Text from data: escaping of control characters, and wrapping.

use std::borrow::Cow;

use super::style::{Style, TextRole};
use super::table::STICKY;
use crate::report::GapReport;

/// Whether a character controls the terminal or reorders text, and so could disguise a line.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
        || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Escapes control characters as `\u{1b}`, so that no name or message can control the terminal.
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Escapes like [`safe`], but keeps line breaks.
pub fn safe_lines(text: &str) -> String {
    text.lines().map(safe).collect::<Vec<_>>().join("\n")
}

/// Escapes like [`safe`], but keeps line breaks and tabs, and also a final line break.
pub fn safe_block(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| is_harmful(c) && c != '\n' && c != '\t';
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Replaces each byte of a control character with `?`, so that byte offsets stay valid.
pub fn safe_same_length(text: &str) -> Cow<'_, str> {
    // The carriage returns of a file from Windows are part of its line breaks, which the renderer removes.
    let is_harmful = |c: char| is_harmful(c) && c != '\n' && c != '\t' && c != '\r';
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) { out.extend(std::iter::repeat_n('?', c.len_utf8())) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Wraps a paragraph. The first line starts with `first`, all others with `rest`. A line never ends at a [`STICKY`]
/// space.
pub fn paragraph(style: &Style, first: &str, rest: &str, text: &str) -> String {
    let Some(width) = style.width else {
        return format!("{first}{}\n", text.replace(STICKY, " ").replace('\n', &format!("\n{rest}")));
    };
    let mut out = String::new();
    for (index, line) in text.lines().enumerate() {
        let initial = if index == 0 { first } else { rest };
        let options = textwrap::Options::new(width.max(30))
            .initial_indent(initial)
            .subsequent_indent(rest)
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .break_words(false);
        for wrapped in textwrap::wrap(line, options) {
            out.push_str(&wrapped.trim_end().replace(STICKY, " "));
            out.push('\n');
        }
    }
    out
}

/// A heading and one line for each gap; empty without gaps.
pub(super) fn gap_lines<'r>(gaps: impl IntoIterator<Item = &'r GapReport>, style: &Style) -> String {
    let mut out = String::new();
    for gap in gaps {
        if out.is_empty() {
            out = format!("{}\n", style.paint(TextRole::Heading, "Gaps"));
        }
        out.push_str(&paragraph(style, "  ", "    ", &safe(&format!("{}: {}", gap.what, gap.why))));
    }
    out
}

/// `1 error`, `2 errors`; `info` has no plural.
pub fn count(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, _) | (_, "info") => format!("{number} {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_direction_marks_are_escaped() {
        for c in ['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}', '\u{2066}', '\u{61c}', '\u{200f}', '\u{2028}', '\r'] {
            let text = format!("a{c}b");
            assert_eq!(safe(&text), format!("a{}b", c.escape_unicode()));
            assert_eq!(safe_block(&format!("{text}\n\t")), format!("a{}b\n\t", c.escape_unicode()));
            if c != '\r' {
                assert_eq!(safe_same_length(&text), format!("a{}b", "?".repeat(c.len_utf8())));
            }
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(safe("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\u{a}");
        assert_eq!(safe_same_length("a\u{1b}b\u{9b}c\n").len(), "a\u{1b}b\u{9b}c\n".len());
    }
}
