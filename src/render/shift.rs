//! `shift` as text: one line per event, the change as a patch, and the history as a table.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::table::{self, Column};
use super::text::{paragraph, safe, safe_lines};
use crate::analysis::verdict::AnalysisVerdict;
use crate::report::shift::{ShiftEvent, ShiftEventType, ShiftHistoryReport, ShiftStatusReport};
use crate::shift::affected::CallerClassUsage;

/// Unaffected caller classes that are listed.
const MAX_UNAFFECTED: usize = 5;
/// Indentation below an event.
const INDENT: &str = "              ";
const CONTINUATION_INDENT: &str = "                ";

/// Writes an event.
///
/// # Errors
/// Those of `out`.
pub fn event(event: &ShiftEvent, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let role = match event.event {
        ShiftEventType::Done | ShiftEventType::Acknowledged => TextRole::Good,
        ShiftEventType::Verdict if event.verdict == Some(AnalysisVerdict::Good) => TextRole::Good,
        ShiftEventType::Verdict | ShiftEventType::RolledBack | ShiftEventType::Held | ShiftEventType::LostControl => {
            TextRole::Warning
        }
        ShiftEventType::Plan | ShiftEventType::Preflight | ShiftEventType::Applied | ShiftEventType::Window => {
            TextRole::Heading
        }
    };
    let head = format!("{}  ", style.paint(role, &format!("{:<12}", event.event.as_str())));
    write!(out, "{}", paragraph(style, &head, INDENT, &safe(&event.message)))?;
    if let Some(proxies) = &event.proxies {
        for proxy in proxies.stale.iter().chain(&proxies.rejected).chain(&proxies.unreachable) {
            write!(out, "{}", paragraph(style, INDENT, CONTINUATION_INDENT, &safe(proxy)))?;
        }
    }
    Ok(())
}

/// Writes a unified diff without its headers.
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

/// Writes the caller classes that do not use the rule, and why.
///
/// # Errors
/// Those of `out`.
pub fn unaffected(classes: &[CallerClassUsage], style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let unaffected: Vec<&CallerClassUsage> = classes.iter().filter(|class| !class.uses_rule).collect();
    for class in unaffected.iter().take(MAX_UNAFFECTED) {
        let text =
            format!("not affected: {} ({}): {}", safe(&class.name), class.pods.len(), safe(&class.unaffected_reason));
        let painted = style.paint(TextRole::Faint, &text);
        write!(out, "{}", paragraph(style, INDENT, CONTINUATION_INDENT, &painted))?;
    }
    let more = unaffected.len().saturating_sub(MAX_UNAFFECTED);
    if more > 0 {
        let noun = if more == 1 { "class" } else { "classes" };
        writeln!(out, "{INDENT}and {more} more caller {noun}")?;
    }
    Ok(())
}

/// Writes the current weights and the last shift.
///
/// # Errors
/// Those of `out`.
pub fn status(report: &ShiftStatusReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", style.paint(TextRole::Heading, &safe(&report.object)))?;
    for (rule, weights) in &report.weights {
        let shown: Vec<String> = weights.iter().map(|(backend, weight)| format!("{backend} {weight}")).collect();
        writeln!(out, "  {}: {}", safe(rule), safe(&shown.join(", ")))?;
    }
    let Some(last) = &report.last else { return writeln!(out, "no shift recorded") };
    let step = match last.plan.len() {
        0 => String::new(),
        steps => format!(", step {} of {steps} ({})", last.step, last.plan.join(", ")),
    };
    let head = format!("shift {} is {}{step}: {} → {}", last.number, last.state.as_str(), last.from, last.to);
    write!(out, "{}", paragraph(style, "", "  ", &safe(&head)))?;
    writeln!(out, "  by {} at {}, session {}", safe(&last.user), safe(&last.started_at), safe(&last.session))?;
    if let Some(deadline) = &last.deadline {
        writeln!(out, "  the session may run until {}; after that use --resume or --undo", safe(deadline))?;
    }
    if !last.message.is_empty() {
        write!(out, "{}", paragraph(style, "  ", "  ", &safe(&last.message)))?;
    }
    for verdict in &last.verdicts {
        let text = format!("step {}: {}: {}", verdict.step, verdict.verdict.as_str(), verdict.reason);
        write!(out, "{}", paragraph(style, "  ", "    ", &safe(&text)))?;
    }
    if report.unchanged == Some(false) {
        writeln!(out, "{}", style.paint(TextRole::Warning, "  the weights have changed since this shift"))?;
    }
    Ok(())
}

/// Writes the history.
///
/// # Errors
/// Those of `out`.
pub fn history(report: &ShiftHistoryReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    if report.shifts.is_empty() {
        return writeln!(out, "no shift recorded for {}", safe(&report.object));
    }
    let rows = report.shifts.iter().map(|shift| {
        let state = match shift.state.as_str() {
            state if shift.message.is_empty() => state.to_owned(),
            state => format!("{state}: {}", shift.message),
        };
        [
            &shift.number.to_string(),
            &shift.started_at,
            &shift.user,
            &shift.from,
            &shift.to,
            &state,
            shift.reason.as_deref().unwrap_or(""),
        ]
        .map(|text| safe(text).into_owned())
        .to_vec()
    });
    let (whole, flexible) = (Column::whole, Column::flexible);
    let columns = [
        whole("#"),
        whole("STARTED"),
        flexible("USER"),
        flexible("FROM"),
        flexible("TO"),
        flexible("STATE"),
        flexible("REASON"),
    ];
    write!(out, "{}", table::render(style, &columns, rows.collect(), 0))
}
