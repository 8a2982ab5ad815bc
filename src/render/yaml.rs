//! Writes reports as YAML.

use std::io::{self, Write};

use serde::Serialize;

/// Writes a report as YAML.
///
/// # Errors
/// Errors of `out`, and values that YAML cannot represent.
pub fn yaml(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let text = serde_saphyr::to_string(report).map_err(io::Error::other)?;
    out.write_all(text.as_bytes())
}
