//! Writes `balance` as text: the verdict, then a bar for each endpoint.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{count, paragraph, safe};
use crate::dataplane::balance::BalanceVerdict;
use crate::report::balance::BalanceReport;

/// Length of the bar of an endpoint that gets all calls.
const BAR_WIDTH: usize = 24;

/// Writes the report.
///
/// # Errors
/// Errors of `out`.
pub fn balance(report: &BalanceReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let role = match report.verdict {
        BalanceVerdict::Even => TextRole::Good,
        BalanceVerdict::TooFewCalls => TextRole::Info,
        BalanceVerdict::Uneven | BalanceVerdict::Pinned => TextRole::Warning,
    };
    let verdict = style.paint(role, format_verdict(report.verdict));
    writeln!(out, "{}  {verdict}", safe(&report.service))?;
    if !report.cause.is_empty() {
        out.write_all(paragraph(style, "  ", "  ", &safe(&report.cause)).as_bytes())?;
    }
    writeln!(
        out,
        "  {} calls of {} in {:.0} s · {:.1} of {} servers in effect · Jain {:.2}\n",
        report.calls,
        count(report.callers, "caller"),
        report.seconds,
        report.effective_servers,
        report.endpoints.len(),
        report.jain
    )?;
    bars(report, style, out)?;
    if let Some(log_pattern) = &report.log_pattern {
        writeln!(out, "\n  {} in the callers' logs", count(log_pattern.distinct, "distinct capture"))?;
        for (capture, lines) in &log_pattern.counts {
            writeln!(out, "  {lines:>7}  {}", safe(capture))?;
        }
    }
    for gap in &report.gaps {
        let text = format!("{}: {}", safe(&gap.what), safe(&gap.why));
        write!(out, "\n{}", paragraph(style, &style.paint(TextRole::Warning, "gap "), "    ", &text))?;
    }
    Ok(())
}

/// The verdict in words.
pub(super) fn format_verdict(verdict: BalanceVerdict) -> &'static str {
    match verdict {
        BalanceVerdict::TooFewCalls => "too few calls",
        verdict => verdict.as_str(),
    }
}

fn bars(report: &BalanceReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let names: Vec<String> = report
        .endpoints
        .iter()
        .map(|endpoint| {
            let subset = endpoint.subset.as_deref().map(|subset| format!(" {subset}")).unwrap_or_default();
            format!("{}{subset}", endpoint.pod.as_deref().unwrap_or(&endpoint.address))
        })
        .collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (endpoint, name) in report.endpoints.iter().zip(&names) {
        let percent = endpoint.share_percent.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage is from 0 to 100")]
        let filled = (percent / 100.0 * BAR_WIDTH as f64).round() as usize;
        let bar = format!("{}{}", "█".repeat(filled), "·".repeat(BAR_WIDTH.saturating_sub(filled)));
        let errors = match endpoint.errors {
            0 => String::new(),
            errors => format!("  {}", style.paint(TextRole::Error, &format!("{errors} errors"))),
        };
        let name = safe(name);
        let padding = " ".repeat(width.saturating_sub(name.chars().count()));
        writeln!(out, "  {name}{padding}  {bar} {percent:>4.0}% {:>7}{errors}", endpoint.calls)?;
    }
    Ok(())
}
