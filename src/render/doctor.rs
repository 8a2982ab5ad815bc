//! Writes `doctor` as text: one paragraph per check, with its fix below.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{paragraph, safe, safe_lines};
use crate::doctor::CheckState;
use crate::report::doctor::DoctorReport;

/// Writes the checks.
///
/// # Errors
/// Errors of `out`.
pub fn doctor(report: &DoctorReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let id_width = report.checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let indent = " ".repeat(id_width + 11);
    for check in &report.checks {
        let role = match check.state {
            CheckState::Ok => TextRole::Good,
            CheckState::Failed => TextRole::Error,
            CheckState::Warning | CheckState::Unknown => TextRole::Warning,
        };
        let state = style.paint(role, &format!("{:<7}", check.state.as_str()));
        let head = format!("{state}  {:<id_width$}  ", safe(&check.id));
        write!(out, "{}", paragraph(style, &head, &indent, &safe(&check.reason)))?;
        match check.fix.as_deref() {
            None => {}
            // A manifest is copied: its lines never wrap, and are indented as little as possible.
            Some(fix) if fix.trim_end().contains('\n') => {
                writeln!(out, "{indent}fix: apply")?;
                for line in fix.lines() {
                    writeln!(out, "    {}", style.paint(TextRole::Faint, &safe_lines(line)))?;
                }
            }
            Some(fix) => {
                let rest = format!("{indent}     ");
                write!(out, "{}", paragraph(style, &format!("{indent}fix: "), &rest, &safe(fix.trim_end())))?;
            }
        }
    }
    Ok(())
}
