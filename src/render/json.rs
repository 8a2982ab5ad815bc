//! Writes reports as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::text::is_harmful;

/// Writes a report as JSON, indented, with a final line break.
///
/// # Errors
/// Errors of `out`.
pub fn json(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    write(report, PrettyFormatter::new(), out)
}

/// Writes a report as JSON on one line.
///
/// # Errors
/// Errors of `out`.
pub fn json_line(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    write(report, CompactFormatter, out)
}

fn write(report: &impl Serialize, formatter: impl Formatter, out: &mut dyn Write) -> io::Result<()> {
    report.serialize(&mut Serializer::with_formatter(&mut *out, EscapingFormatter(formatter)))?;
    writeln!(out)
}

/// Escapes characters that control a terminal. JSON itself requires that only for characters below U+0020, so the text
/// stays equal for every JSON parser.
struct EscapingFormatter<F>(F);

impl<F: Formatter> Formatter for EscapingFormatter<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut from = 0;
        for (index, c) in fragment.match_indices(is_harmful) {
            self.0.write_string_fragment(out, &fragment[from..index])?;
            c.encode_utf16().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            from = index + c.len();
        }
        self.0.write_string_fragment(out, &fragment[from..])
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escapes_terminal_controls_without_changing_the_value(text in "[a-z\"\\\\\u{1b}\u{7f}\u{9b}\u{202e}\u{2066}é😀]{0,20}", many: Vec<u8>) {
            let value = serde_json::json!({text.as_str(): [text, {"a": many}], "empty": [[], {}]});
            for (write, plain) in [
                (json as fn(&serde_json::Value, &mut dyn Write) -> io::Result<()>, serde_json::to_string_pretty(&value)),
                (json_line, serde_json::to_string(&value)),
            ] {
                let mut out = Vec::new();
                write(&value, &mut out).unwrap();
                let out = String::from_utf8(out).unwrap();
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value.clone());
                prop_assert!(!out.contains(|c| is_harmful(c) && c != '\n'), "{}", out);
                let plain = plain.unwrap();
                if !plain.contains(|c| is_harmful(c) && c != '\n') {
                    prop_assert_eq!(out.trim_end_matches('\n'), plain);
                }
            }
        }
    }
}
