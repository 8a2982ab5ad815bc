//! `tail` as text and CSV.

use std::io::{self, Write};

use textwrap::core::display_width;

use super::style::{Style, TextRole};
use super::table::{self, Column, STICKY};
use super::text::{count, paragraph, safe};
use crate::diagnosis::{FaultLevel, StatusSource};
use crate::report::page::format_millis;
use crate::report::tail::{ProxySide, TailLine};
use crate::report::tail_join::TailCall;
use crate::report::tail_summary::{CallGroupReport, TailSummary};
use crate::vocabulary::grpc_status;
use crate::vocabulary::response_flags::FaultSide;

/// Indentation of the lines under a call: the width of the time column.
const INDENT: &str = "              ";

/// Writes one call: a line with its fields, the diagnosis, and the next steps.
///
/// # Errors
/// Errors of writing to `out`.
pub fn line(line: &TailLine, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let time = line.time.as_deref().and_then(|time| time.get(11..23)).unwrap_or("--:--:--.---");
    let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), |text| safe(text).into_owned());
    let subset = line.subset.as_ref().map(|subset| format!(" {}", safe(subset))).unwrap_or_default();
    let role = match (line.verdict.fault, line.verdict.side) {
        (true, _) => TextRole::Error,
        (false, FaultSide::None) => TextRole::Faint,
        (false, _) => TextRole::Warning,
    };
    let flags = if line.flags.is_empty() { String::new() } else { format!("   {}", safe(&line.flags.join(","))) };
    let duration = line.duration_ms.map(|millis| format!("   {}", format_millis(millis))).unwrap_or_default();
    let status = line_status(line);
    let head = format!(
        "{} → {}{subset}   {}{}{}{duration}",
        or_dash(&line.source),
        or_dash(&line.destination),
        or_dash(&line.method),
        if status.is_empty() { String::new() } else { format!("   {}", style.paint(role, &status)) },
        style.paint(role, &flags),
    );
    write!(out, "{}", paragraph(style, &format!("{}  ", style.paint(TextRole::Faint, time)), INDENT, &head))?;
    let side = match line.verdict.side {
        FaultSide::None => String::new(),
        side => format!(" · {} side", side.as_str()),
    };
    let note = if line.ambiguous { " · ambiguous: text sent by a client allows several readings" } else { "" };
    let what = format!("{}{side}{note}", safe(&line.verdict.what));
    write!(out, "{}", paragraph(style, INDENT, INDENT, &what))?;
    for next in &line.verdict.next {
        write!(out, "{}", paragraph(style, &format!("{INDENT}→ "), &format!("{INDENT}  "), &safe(next)))?;
    }
    Ok(())
}

/// Writes the lines of one request: the first as [`line()`] does, the others in short form below it.
///
/// # Errors
/// Errors of writing to `out`.
pub fn call(call: &TailCall, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Some((first, others)) = call.lines.split_first() else { return Ok(()) };
    line(first, style, out)?;
    for other in others {
        let side = other.side.map(|side| format!(", {} side", side.as_str())).unwrap_or_default();
        let pod = other.pod.as_deref().unwrap_or("-");
        let parts =
            [line_status(other), other.flags.join(","), other.duration_ms.map(format_millis).unwrap_or_default()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let result = if parts.is_empty() { String::new() } else { format!(" {}:", parts.join(" ")) };
        let text = format!("{pod}{side}:{result} {}", other.verdict.what);
        write!(out, "{}", paragraph(style, &format!("{INDENT}└ "), &format!("{INDENT}  "), &safe(&text)))?;
    }
    Ok(())
}

/// Draws one screen of `--top`: totals and the largest groups, in at most `rows` lines.
///
/// # Errors
/// Errors of writing to `out`.
pub fn top(report: &TailSummary, rows: usize, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let columns = [
        Column::whole("CALLS"),
        Column::whole("FLAGS"),
        Column::whole("STATUS"),
        Column::whole("P50"),
        Column::whole("P99"),
        Column::whole("DESTINATION"),
        Column::whole("METHOD"),
    ];
    let mut groups: Vec<_> = report.groups.iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.calls));
    // Totals and a blank line are above the table, its header is one line, and the number of hidden groups is below.
    let visible_rows = rows.saturating_sub(4).max(1);
    let hidden = groups.len().saturating_sub(visible_rows);
    let cells = groups.into_iter().take(visible_rows).map(|group| {
        vec![
            group.calls.to_string(),
            style.paint(level_role(group.level), &text_or_dash(&group.flags.join(","))),
            text_or_dash(&group_status(group)),
            format_millis(group.p50_ms),
            format_millis(group.p99_ms),
            text_or_dash(&group.destination),
            text_or_dash(&group.method),
        ]
    });
    let calls = report.calls.max(1) as f64;
    let totals = format!(
        "{}, {} ({:.2}%), {}; p50 {}, p99 {}. Ctrl-C quits.",
        count_of(report.calls, "call"),
        count_of(report.faults, "fault"),
        report.faults as f64 * 100.0 / calls,
        count_of(report.notices, "notice"),
        format_millis(report.p50_ms),
        format_millis(report.p99_ms),
    );
    // Long lines are truncated: wrapped lines would make the screen scroll.
    let width = style.width.unwrap_or(usize::MAX);
    writeln!(out, "{}\n", truncate(&style.paint(TextRole::Heading, &totals), width))?;
    let plain = Style { width: None, ..*style };
    for line in table::render(&plain, &columns, cells.collect(), 0).lines() {
        writeln!(out, "{}", truncate(line, width).trim_end())?;
    }
    if hidden > 0 {
        write!(out, "{}", style.paint(TextRole::Faint, &format!("{hidden} more groups")))?;
    }
    Ok(())
}

/// The beginning of a line, at most `width` columns; escape codes have no width.
fn truncate(line: &str, width: usize) -> String {
    let mut out = String::new();
    let (mut used, mut in_code) = (0, false);
    for c in line.chars() {
        in_code |= c == '\x1b';
        if !in_code {
            used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
            if used > width {
                continue;
            }
        }
        out.push(c);
        in_code &= c != 'm';
    }
    out
}

/// The gRPC status, or an HTTP status code other than 200.
fn line_status(line: &TailLine) -> String {
    match (line.grpc_status, line.http_status) {
        (Some(code), _) => status_text(code, line.grpc_status_from),
        (None, Some(code)) if code != 200 => format!("HTTP {code}"),
        (None, _) => String::new(),
    }
}

/// The gRPC status; `?` if the log does not show it, empty for calls that are not gRPC.
fn group_status(group: &CallGroupReport) -> String {
    match group.grpc_status {
        Some(code) => status_text(code, group.grpc_status_from),
        None if group.is_grpc => "?".to_owned(),
        None => String::new(),
    }
}

/// `5 NOT_FOUND`; `~14 UNAVAILABLE` for an inferred status.
fn status_text(code: u8, source: Option<StatusSource>) -> String {
    let mark = if source == Some(StatusSource::Inferred) { "~" } else { "" };
    format!("{mark}{code}{STICKY}{}", grpc_status::name(code))
}

fn level_role(level: FaultLevel) -> TextRole {
    if level == FaultLevel::Fault { TextRole::Error } else { TextRole::Warning }
}

/// `1 call`, `2 calls`.
pub(crate) fn count_of(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

fn text_or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { safe(text).into_owned() }
}

/// A table with one row for each group.
fn wide_groups(groups: &[CallGroupReport], style: &Style) -> String {
    let columns = [
        Column::whole("CALLS"),
        Column::whole("FLAGS"),
        Column::whole("STATUS"),
        Column::flexible("DESTINATION"),
        Column::flexible("METHOD"),
        Column::whole("P50"),
        Column::whole("P99"),
        Column::flexible("WHAT"),
    ];
    let rows = groups.iter().map(|group| {
        vec![
            group.calls.to_string(),
            style.paint(level_role(group.level), &text_or_dash(&group.flags.join(","))),
            text_or_dash(&group_status(group)),
            text_or_dash(&group.destination),
            text_or_dash(&group.method),
            format_millis(group.p50_ms),
            format_millis(group.p99_ms),
            text_or_dash(&group.what),
        ]
    });
    table::render(style, &columns, rows.collect(), 0)
}

/// The same for a narrow terminal: destination, method and what happened are below the row of their group.
fn narrow_groups(groups: &[CallGroupReport], style: &Style) -> String {
    let columns = ["CALLS", "FLAGS", "STATUS", "P50", "P99"].map(Column::whole);
    let rows = groups.iter().map(|group| {
        vec![
            group.calls.to_string(),
            style.paint(level_role(group.level), &text_or_dash(&group.flags.join(","))),
            text_or_dash(&group_status(group)),
            format_millis(group.p50_ms),
            format_millis(group.p99_ms),
        ]
    });
    let table = table::render(style, &columns, rows.collect(), 0);
    let mut lines = table.lines();
    let mut out = String::new();
    if style.headers {
        out.extend(lines.next().map(|heading| format!("{heading}\n")));
    }
    for (line, group) in lines.zip(groups) {
        out.push_str(&format!("{line}\n"));
        let call = format!("{}   {}", group.destination, group.method);
        for text in [call.trim(), &group.what].into_iter().filter(|text| !text.is_empty()) {
            out.push_str(&paragraph(style, "       ", "         ", &safe(text)));
        }
    }
    out
}

/// Writes the summary.
///
/// # Errors
/// Errors of writing to `out`.
pub fn summary(report: &TailSummary, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    if !report.groups.is_empty() {
        let table = wide_groups(&report.groups, style);
        let fits = style.width.is_none_or(|width| table.lines().all(|line| display_width(line) <= width));
        writeln!(out, "{}", if fits { table } else { narrow_groups(&report.groups, style) })?;
    }
    for group in &report.groups {
        if let Some(text) = &group.consistent_with {
            let group = [group.flags.join(","), group.destination.clone()].join(" ");
            write!(out, "{}", paragraph(style, "", "  ", &safe(&format!("{}: {text}", group.trim()))))?;
        }
    }
    let calls = report.calls.max(1) as f64;
    let faults = count_of(report.faults, "fault");
    let role = if report.faults > 0 { TextRole::Error } else { TextRole::Good };
    let span = match (&report.from, &report.to) {
        (Some(from), Some(to)) => format!(", {from} to {to}"),
        _ => String::new(),
    };
    let totals = format!(
        "{}: {} ({:.2}%), {} (outcome not logged, or not a fault of the mesh); p50 {}, p99 {}{span}",
        count_of(report.calls, "call"),
        style.paint(role, &faults),
        report.faults as f64 * 100.0 / calls,
        count_of(report.notices, "notice"),
        format_millis(report.p50_ms),
        format_millis(report.p99_ms),
    );
    write!(out, "{}", paragraph(style, "", "  ", &totals))?;
    if report.ungrouped > 0 {
        let text = format!("not in the table, which is full: {} faults and notices", report.ungrouped);
        write!(out, "{}", paragraph(style, "", "  ", &text))?;
    }
    if report.ambiguous > 0 {
        let lines = count_of(report.ambiguous, "ambiguous line");
        let text = format!("{lines}: text sent by a client allows several readings");
        write!(out, "{}", paragraph(style, "", "  ", &text))?;
    }
    let kinds: Vec<String> =
        report.other_lines.iter().map(|(kind, count)| format!("{} {count}", kind.as_str())).collect();
    if !kinds.is_empty() {
        write!(out, "{}", paragraph(style, "other lines: ", "  ", &kinds.join(", ")))?;
    }
    Ok(())
}

/// Header of the CSV output.
pub const CSV_COLUMNS: [&str; 20] = [
    "time",
    "pod",
    "namespace",
    "side",
    "source",
    "destination",
    "method",
    "grpc_status",
    "grpc_status_from",
    "http_status",
    "flags",
    "details",
    "transport_failure",
    "duration_ms",
    "upstream_host",
    "upstream_cluster",
    "subset",
    "request_id",
    "route",
    "verdict",
];

/// One call as a CSV record in the order of [`CSV_COLUMNS`].
pub fn csv(line: &TailLine) -> Vec<String> {
    let text = |value: &Option<String>| value.as_deref().map(safe).unwrap_or_default().into_owned();
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    vec![
        text(&line.time),
        text(&line.pod),
        text(&line.namespace),
        line.side.map(ProxySide::as_str).unwrap_or_default().to_owned(),
        text(&line.source),
        text(&line.destination),
        text(&line.method),
        number(line.grpc_status.map(u64::from)),
        line.grpc_status_from.map(StatusSource::as_str).unwrap_or_default().to_owned(),
        number(line.http_status.map(u64::from)),
        safe(&line.flags.join(",")).into_owned(),
        text(&line.details),
        text(&line.transport_failure),
        number(line.duration_ms),
        text(&line.upstream_host),
        text(&line.upstream_cluster),
        text(&line.subset),
        text(&line.request_id),
        text(&line.route),
        safe(&line.verdict.what).into_owned(),
    ]
}
