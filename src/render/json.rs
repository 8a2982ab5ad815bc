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
            self.0.write_string_fragment(out, fragment.get(from..index).unwrap_or_default())?;
            c.encode_utf16().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            from = index + c.len();
        }
        self.0.write_string_fragment(out, fragment.get(from..).unwrap_or_default())
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

/// Passes JSON on, and escapes characters that control a terminal. Outside of strings, JSON has none of them except line breaks.
pub struct EscapingWriter<W>(W, Vec<u8>);

impl<W: Write> EscapingWriter<W> {
    /// Wraps a writer of UTF-8 text.
    pub fn new(out: W) -> Self {
        Self(out, Vec::new())
    }
}

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self(out, pending) = self;
        pending.extend_from_slice(bytes);
        // A character may continue in the next call.
        let complete = match std::str::from_utf8(pending) {
            Ok(text) => text,
            Err(error) => {
                std::str::from_utf8(pending.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
            }
        };
        let mut rest = complete;
        while let Some((before, c)) = rest.char_indices().find(|(_, c)| is_harmful(*c) && *c != '\n') {
            let (text, after) = rest.split_at_checked(before).unwrap_or((rest, ""));
            out.write_all(text.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = after.get(c.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())?;
        let written = complete.len();
        pending.drain(..written);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
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
