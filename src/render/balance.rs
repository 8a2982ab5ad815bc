//! Writes `balance` as text: the verdict, then a bar for each endpoint.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

use super::style::{Style, TextRole};
use super::tail::count_of;
use super::text::{count, gap_lines, paragraph, safe};
use crate::dataplane::balance::BalanceVerdict;
use crate::report::balance::{BalanceReport, EndpointReport};

/// Length of the bar of an endpoint that gets all calls, and what remains of it on a narrow terminal.
const BAR_WIDTH: usize = 24;
const MIN_BAR_WIDTH: usize = 8;

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
    let verdict = style.paint(role, report.verdict.as_str());
    writeln!(out, "{}  {verdict}", safe(&report.service))?;
    if !report.cause.is_empty() {
        out.write_all(paragraph(style, "  ", "  ", &safe(&report.cause)).as_bytes())?;
    }
    let totals = format!(
        "{} by {} in {:.0}s · {:.1} effective servers of {} · Jain index {:.2}",
        count_of(report.calls, "call"),
        count(report.callers, "caller"),
        report.seconds,
        report.effective_servers,
        report.endpoints.len(),
        report.jain
    );
    write!(out, "{}", paragraph(style, "  ", "  ", &totals))?;
    if !report.endpoints.is_empty() {
        writeln!(out)?;
    }
    bars(report, style, out)?;
    if let Some(log_pattern) = &report.log_pattern {
        writeln!(out, "\n  {} in the callers' logs", count(log_pattern.distinct, "distinct capture"))?;
        for (capture, lines) in &log_pattern.counts {
            writeln!(out, "  {lines:>7}  {}", safe(capture))?;
        }
    }
    if !report.gaps.is_empty() {
        write!(out, "\n{}", gap_lines(&report.gaps, style))?;
    }
    Ok(())
}

/// The pod of an endpoint, or its address, with its subset.
pub(super) fn endpoint_name(endpoint: &EndpointReport) -> String {
    let subset = endpoint.subset.as_deref().map(|subset| format!(" {subset}")).unwrap_or_default();
    safe(&format!("{}{subset}", endpoint.pod.as_deref().unwrap_or(&endpoint.address))).into_owned()
}

/// `310 calls, 12 errors`.
pub(super) fn call_counts(endpoint: &EndpointReport, style: &Style) -> String {
    let calls = count_of(endpoint.calls, "call");
    match endpoint.errors {
        0 => calls,
        errors => {
            format!("{calls}, {}", style.paint(TextRole::Error, &count_of(errors, "error")))
        }
    }
}

fn bars(report: &BalanceReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let plain = Style { color: false, ..*style };
    let names: Vec<String> = report.endpoints.iter().map(endpoint_name).collect();
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let name_width = widest(&mut names.iter().map(|name| name.width()));
    let counts_width = widest(&mut report.endpoints.iter().map(|endpoint| call_counts(endpoint, &plain).width()));
    // Besides the bar: margins, and a share such as ` 100%`.
    let other_width = name_width + counts_width + 12;
    let bar_width =
        style.width.map_or(BAR_WIDTH, |width| width.saturating_sub(other_width).clamp(MIN_BAR_WIDTH, BAR_WIDTH));
    for (endpoint, name) in report.endpoints.iter().zip(&names) {
        let percent = endpoint.share_percent.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage is from 0 to 100")]
        let filled = (percent / 100.0 * bar_width as f64).round() as usize;
        let bar = format!("{}{}", "█".repeat(filled), "·".repeat(bar_width.saturating_sub(filled)));
        let padding = " ".repeat(name_width.saturating_sub(name.width()));
        writeln!(out, "  {name}{padding}  {bar} {percent:>4.0}%  {}", call_counts(endpoint, style))?;
    }
    Ok(())
}
