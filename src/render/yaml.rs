//! Writes reports as YAML.

use std::io::{self, Write};

use serde::Serialize;

use super::text::is_harmful;

/// Writes a report as YAML.
///
/// A report with characters that control a terminal is written in YAML's flow style, which is JSON: there every string has
/// quotes, so that these characters can be escaped without a change of their value.
///
/// # Errors
/// Errors of `out`, and values that YAML cannot represent.
pub fn yaml(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let text = serde_saphyr::to_string(report).map_err(io::Error::other)?;
    if text.contains(|c: char| is_harmful(c) && c != '\n') {
        return super::json(report, out);
    }
    out.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_that_controls_a_terminal_reaches_yaml() {
        for c in ['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}', '\u{2066}', '\u{61c}', '\u{85}', '\u{2028}', '\r'] {
            let value = serde_json::json!({"name": format!("a{c}b"), format!("k{c}"): [format!("{c}")]});
            let mut out = Vec::new();
            yaml(&value, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains(|c: char| is_harmful(c) && c != '\n'), "{text:?}");
            let back = crate::snapshot::yaml::to_json(&text).unwrap().json.unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(back.get()).unwrap(), value, "{text:?}");
        }
    }
}
