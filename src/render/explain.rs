//! `explain` as text.

use std::io::{self, Write};

use super::style::{Role, Style};
use super::table::Column;
use super::{table, text};
use crate::report::explain::ExplainReport;

/// Writes the documentation of each item.
///
/// # Errors
/// Those of `out`.
pub fn explain(report: &ExplainReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    for (index, item) in report.items.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let istio = item.istio_code.map(|code| format!(", Istio's {code}")).unwrap_or_default();
        let title = format!("{} {}", item.key, item.title);
        writeln!(
            out,
            "{} ({}{istio})",
            style.paint(Role::Heading, &title),
            style.paint(item.severity.into(), item.severity.word())
        )?;
        let mut in_code = false;
        for line in item.docs.lines() {
            if line.starts_with("```") {
                in_code = !in_code;
            } else if in_code {
                writeln!(out, "    {line}")?;
            } else if let Some(heading) = line.strip_prefix("## ") {
                writeln!(out, "\n{}", style.paint(Role::Heading, heading))?;
            } else {
                write!(out, "{}", text::paragraph(style, "  ", "  ", line))?;
            }
        }
    }
    Ok(())
}

/// Writes one line an item.
///
/// # Errors
/// Those of `out`.
pub fn list(report: &ExplainReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let rows = report.items.iter().map(|item| {
        let severity = style.paint(item.severity.into(), item.severity.word());
        vec![item.key.clone(), severity, item.title.clone(), item.summary.clone()]
    });
    write!(
        out,
        "{}",
        table::render(
            style,
            &[Column::whole("CODE"), Column::whole("SEVERITY"), Column::whole("NAME"), Column::flexible("MEANING"),],
            rows.collect(),
            0
        )
    )
}
