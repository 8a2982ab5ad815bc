//! `shift` as text: one line per event, the change as a patch, and the status and history as lists.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{paragraph, safe, safe_lines};
use crate::analysis::verdict::AnalysisVerdict;
use crate::dataplane::proxy::ProxyState;
use crate::report::shift::{ShiftEvent, ShiftHistoryReport, ShiftStatusReport};
use crate::shift::affected::CallerClassUsage;
use crate::shift::notice::ShiftEventType;
use crate::shift::record::ShiftState;

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
        for (state, proxies) in [
            (ProxyState::Stale, &proxies.stale),
            (ProxyState::Rejected, &proxies.rejected),
            (ProxyState::Unreachable, &proxies.unreachable),
        ] {
            // The message states one of them already.
            for proxy in proxies.iter().filter(|proxy| !event.message.contains(*proxy)) {
                let text = format!("{}: {}", state.as_str(), safe(proxy));
                write!(out, "{}", paragraph(style, INDENT, CONTINUATION_INDENT, &text))?;
            }
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
        write!(out, "{}", paragraph(style, "  ", "    ", &safe(&format!("{rule}: {}", shown.join(", ")))))?;
    }
    let Some(last) = &report.last else { return writeln!(out, "no shift recorded") };
    let step = match last.plan.len() {
        0 => String::new(),
        steps => format!(", step {} of {steps} ({})", last.step, last.plan.join(", ")),
    };
    let head = format!("shift {}: {}{step}; {} → {}", last.number, last.state.as_str(), last.from, last.to);
    write!(out, "{}", paragraph(style, "", "  ", &safe(&head)))?;
    let by = format!("by {} at {}, session {}", last.user, last.started_at, last.session);
    write!(out, "{}", paragraph(style, "  ", "    ", &safe(&by)))?;
    if let Some(reason) = &last.reason {
        write!(out, "{}", paragraph(style, "  ", "    ", &safe(&format!("reason: {reason}"))))?;
    }
    if let Some(deadline) = &last.deadline {
        let text = format!("the session may run until {deadline}; after that use --resume or --undo");
        write!(out, "{}", paragraph(style, "  ", "    ", &safe(&text)))?;
    }
    if !last.message.is_empty() {
        write!(out, "{}", paragraph(style, "  ", "  ", &safe(&last.message)))?;
    }
    for verdict in &last.verdicts {
        let window = if verdict.step == 0 { "baseline".to_owned() } else { format!("step {}", verdict.step) };
        let text = format!("{window}: {}: {}", verdict.verdict.as_str(), verdict.reason);
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
    for shift in &report.shifts {
        let state = style.paint(state_role(shift.state), shift.state.as_str());
        let head = format!("{}  ", style.paint(TextRole::Heading, &format!("#{}", shift.number)));
        let text = format!("{}  {state}  {} → {}", safe(&shift.started_at), safe(&shift.from), safe(&shift.to));
        write!(out, "{}", paragraph(style, &head, "    ", &text))?;
        let reason = shift.reason.as_ref().map(|reason| format!("reason: {reason}"));
        let details = [Some(format!("by {}", shift.user)), reason, Some(shift.message.clone())];
        for text in details.iter().flatten().filter(|text| !text.is_empty()) {
            write!(out, "{}", paragraph(style, "    ", "      ", &safe(text)))?;
        }
    }
    Ok(())
}

fn state_role(state: ShiftState) -> TextRole {
    match state {
        ShiftState::Done => TextRole::Good,
        ShiftState::Open => TextRole::Info,
        ShiftState::Held | ShiftState::RolledBack => TextRole::Warning,
    }
}
