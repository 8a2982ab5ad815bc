//! `shift` as text: one line an event, the change as a patch, and the history as a table.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::table::{self, Column};
use super::text::{paragraph, safe, safe_lines};
use crate::report::shift::{ShiftEvent, ShiftHistoryReport, ShiftStatusReport};
use crate::shift::affected::AffectedClass;

/// Classes of callers that are named of those that do not obey.
const NAMED: usize = 5;

/// Writes an event.
///
/// # Errors
/// Those of `out`.
pub fn event(event: &ShiftEvent, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let role = match event.event {
        "done" | "acknowledged" => TextRole::Good,
        "verdict" if event.verdict == Some("good") => TextRole::Good,
        "verdict" => TextRole::Warning,
        "rolled-back" | "held" | "lost-control" => TextRole::Warning,
        _ => TextRole::Heading,
    };
    let head = format!("{}  ", style.paint(role, &format!("{:<12}", event.event)));
    write!(out, "{}", paragraph(style, &head, "              ", &safe(&event.message)))?;
    if let Some(proxies) = &event.proxies {
        for one in proxies.late.iter().chain(&proxies.refused).chain(&proxies.unreachable) {
            write!(out, "{}", paragraph(style, "              ", "                ", &safe(one)))?;
        }
    }
    Ok(())
}

/// Writes a unified difference, without its head.
///
/// # Errors
/// Those of `out`.
pub fn patch(patch: &str, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    for line in patch.lines().filter(|line| !line.starts_with("@@")) {
        let text = safe_lines(line);
        let shown = match line.chars().next() {
            Some('+') => style.paint(TextRole::Good, &text),
            Some('-') => style.paint(TextRole::Warning, &text),
            _ => text,
        };
        writeln!(out, "  {shown}")?;
    }
    Ok(())
}

/// Writes who does not obey, and why.
///
/// # Errors
/// Those of `out`.
pub fn others(classes: &[AffectedClass], style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let others: Vec<&AffectedClass> = classes.iter().filter(|class| !class.obeys).collect();
    for class in others.iter().take(NAMED) {
        let text = format!("not {} ({}): {}", safe(&class.name), class.pods.len(), safe(&class.why_not));
        write!(
            out,
            "{}",
            paragraph(style, "              ", "                ", &style.paint(TextRole::Faint, &text))
        )?;
    }
    let more = others.len().saturating_sub(NAMED);
    if more > 0 {
        writeln!(out, "              and {more} more classes of callers")?;
    }
    Ok(())
}

/// Writes how the last shift stands.
///
/// # Errors
/// Those of `out`.
pub fn status(report: &ShiftStatusReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", style.paint(TextRole::Heading, &safe(&report.object)))?;
    for (rule, weights) in &report.weights {
        let shown: Vec<String> = weights.iter().map(|(name, weight)| format!("{name} {weight}")).collect();
        writeln!(out, "  {}: {}", safe(rule), safe(&shown.join(", ")))?;
    }
    let Some(last) = &report.last else { return writeln!(out, "never shifted by this program") };
    let step = match last.plan.len() {
        0 => String::new(),
        all => format!(", step {} of {all} ({})", last.step, last.plan.join(", ")),
    };
    let head = format!("shift {} is {}{step}: {} → {}", last.number, last.state, last.from, last.to);
    write!(out, "{}", paragraph(style, "", "  ", &safe(&head)))?;
    writeln!(out, "  by {} at {}, session {}", safe(&last.by), safe(&last.at), safe(&last.session))?;
    if let Some(until) = &last.until {
        writeln!(out, "  the run may be at it until {}; then --resume or --undo", safe(until))?;
    }
    if !last.message.is_empty() {
        write!(out, "{}", paragraph(style, "  ", "  ", &safe(&last.message)))?;
    }
    for one in &last.verdicts {
        let text = format!("step {}: {}: {}", one.step, one.verdict, one.why);
        write!(out, "{}", paragraph(style, "  ", "    ", &safe(&text)))?;
    }
    if report.as_left == Some(false) {
        writeln!(
            out,
            "{}",
            style.paint(TextRole::Warning, "  the weights are others now: somebody changed them since")
        )?;
    }
    Ok(())
}

/// Writes the history.
///
/// # Errors
/// Those of `out`.
pub fn history(report: &ShiftHistoryReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    if report.shifts.is_empty() {
        return writeln!(out, "{} was never shifted by this program", safe(&report.object));
    }
    let rows = report.shifts.iter().map(|one| {
        let state =
            if one.message.is_empty() { one.state.to_owned() } else { format!("{}: {}", one.state, one.message) };
        [&one.number.to_string(), &one.at, &one.by, &one.from, &one.to, &state, one.reason.as_deref().unwrap_or("")]
            .map(|text| safe(text).into_owned())
            .to_vec()
    });
    let (whole, flexible) = (Column::whole, Column::flexible);
    let columns = [
        whole("#"),
        whole("WHEN"),
        flexible("WHO"),
        flexible("FROM"),
        flexible("TO"),
        flexible("STATE"),
        flexible("WHY"),
    ];
    write!(out, "{}", table::render(style, &columns, rows.collect(), 0))
}
