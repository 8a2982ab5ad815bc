//! `balance` as text: the verdict, then a bar for each endpoint.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{paragraph, safe};
use crate::report::balance::BalanceReport;

/// Length of a bar that stands for all calls.
const BAR: usize = 24;

/// Writes the report.
///
/// # Errors
/// Those of `out`.
pub fn balance(report: &BalanceReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let role = match report.verdict {
        "even" => TextRole::Good,
        "too few calls" => TextRole::Info,
        _ => TextRole::Warning,
    };
    let head = format!("{}  {}", safe(&report.service), style.paint(role, report.verdict));
    writeln!(out, "{head}")?;
    if !report.cause.is_empty() {
        out.write_all(paragraph(style, "  ", "  ", &safe(&report.cause)).as_bytes())?;
    }
    let callers = if report.callers == 1 { "1 caller".to_owned() } else { format!("{} callers", report.callers) };
    writeln!(
        out,
        "  {} calls of {callers} in {:.0} s · {:.1} of {} servers in effect · Jain {:.2}\n",
        report.calls,
        report.seconds,
        report.effective_servers,
        report.endpoints.len(),
        report.jain
    )?;
    let names: Vec<String> = report
        .endpoints
        .iter()
        .map(|one| {
            let subset = one.subset.as_deref().map(|subset| format!(" {subset}")).unwrap_or_default();
            format!("{}{subset}", one.pod.as_deref().unwrap_or(&one.address))
        })
        .collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (one, name) in report.endpoints.iter().zip(&names) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
        let full = (one.share * BAR as f64).round() as usize;
        let bar = format!("{}{}", "█".repeat(full), "·".repeat(BAR.saturating_sub(full)));
        let errors = match one.errors {
            0 => String::new(),
            count => format!("  {}", style.paint(TextRole::Error, &format!("{count} errors"))),
        };
        let name = safe(name);
        let gap = " ".repeat(width.saturating_sub(name.chars().count()));
        writeln!(out, "  {name}{gap}  {bar} {:>4.0}% {:>7}{errors}", one.share * 100.0, one.calls)?;
    }
    if let Some(found) = &report.log_pattern {
        let word = if found.distinct == 1 { "text" } else { "texts" };
        writeln!(out, "\n  the callers' logs name {} {word}", found.distinct)?;
        for (text, count) in &found.counts {
            writeln!(out, "  {count:>7}  {}", safe(text))?;
        }
    }
    for one in &report.unreachable {
        write!(out, "\n{}", paragraph(style, &style.paint(TextRole::Warning, "not asked "), "  ", &safe(one)))?;
    }
    Ok(())
}
