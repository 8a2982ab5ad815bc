//! `doctor` as text: one paragraph a check, what mends it below.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{paragraph, safe, safe_lines};
use crate::report::doctor::DoctorReport;

/// Writes the checks.
///
/// # Errors
/// Those of `out`.
pub fn doctor(report: &DoctorReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let wide = report.checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let indent = " ".repeat(wide + 11);
    for check in &report.checks {
        let role = match check.state {
            "ok" => TextRole::Good,
            "failed" => TextRole::Error,
            _ => TextRole::Warning,
        };
        let state = style.paint(role, &format!("{:<7}", check.state));
        let head = format!("{state}  {:<wide$}  ", safe(&check.id));
        write!(out, "{}", paragraph(style, &head, &indent, &safe(&check.reason)))?;
        for line in check.fix.iter().flat_map(|fix| fix.lines()) {
            writeln!(out, "{indent}{}", style.paint(TextRole::Faint, &safe_lines(line)))?;
        }
    }
    Ok(())
}
